from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from aligned.errors import MalformedMessage
from aligned.wire import netrpc
from aligned.wire.gob import Basic, Local, Struct, Value
from aligned.wire.gob_stream import Outgoing
from aligned.wire.messages import RESPOND, SERVER_RUNNING
from aligned.wire.netrpc import Call, Client, Reply, Server

METHODS = frozenset({RESPOND, SERVER_RUNNING})
DIAL = b"CONNECT /_goRPC_ HTTP/1.0\n\n"
NUMBER = Struct("Number", (("N", Basic.UINT),))


def server(data: bytes = DIAL) -> Server:
    machine = Server(METHODS)
    machine.feed(data)
    return machine


def connected() -> Server:
    machine = server()
    assert machine.next_call() is None
    machine.take_output()
    return machine


def calls(machine: Server) -> list[Call]:
    found: list[Call] = []
    while (call := machine.next_call()) is not None:
        found.append(call)
    return found


def replies(data: bytes) -> list[Reply]:
    client = Client()
    client.feed(b"HTTP/1.0 200 Connected to Go RPC\n\n" + data)
    found: list[Reply] = []
    while (reply := client.next_reply()) is not None:
        found.append(reply)
    return found


def test_a_connect_is_answered_with_the_bytes_of_go(vectors: dict[str, bytes]) -> None:
    machine = server(vectors["connect"])
    assert machine.next_call() is None
    assert machine.connected
    assert machine.take_output() == vectors["connected"]
    assert Client().dial() == vectors["connect"]


@pytest.mark.parametrize(
    "head",
    [
        b"CONNECT /_goRPC_ HTTP/1.0\r\n\r\n",
        b"CONNECT /_goRPC_ HTTP/1.1\r\nHost: aggregator\r\n\r\n",
        b"CONNECT /_goRPC_ HTTP/1.0\nX: " + b"x" * (4096 - 31) + b"\n\n",
    ],
    ids=["carriage returns", "host header", "head of 4 KiB"],
)
def test_other_spellings_of_a_connect_are_accepted(head: bytes) -> None:
    assert len(head) <= 4096
    machine = server(head)
    assert machine.next_call() is None
    assert machine.connected


def test_nothing_is_sent_before_the_first_request() -> None:
    machine = connected()
    assert machine.next_call() is None
    assert machine.take_output() == b""


def test_a_request_right_behind_the_connect_is_not_lost(vectors: dict[str, bytes]) -> None:
    (call,) = calls(server(DIAL + vectors["first_request"]))
    assert (call.method, call.seq) == (RESPOND, 0)


@pytest.mark.parametrize(
    ("head", "status", "body"),
    [
        (b"GET /_goRPC_ HTTP/1.1\r\n\r\n", b"HTTP/1.1 405 ", b"\r\n\r\n405 must CONNECT\n"),
        (b"POST /_goRPC_ HTTP/1.0\r\n\r\n", b"HTTP/1.0 405 ", b"\r\n\r\n405 must CONNECT\n"),
        (b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 404 ", b"\r\n\r\n404 page not found\n"),
        (b"GET /debug/rpc HTTP/1.1\r\n\r\n", b"HTTP/1.1 404 ", b"\r\n\r\n404 page not found\n"),
        (b"CONNECT /else HTTP/1.0\n\n", b"HTTP/1.0 404 ", b"\r\n\r\n404 page not found\n"),
    ],
)
def test_plain_http_is_answered_as_go_does_and_ended(
    head: bytes, status: bytes, body: bytes
) -> None:
    machine = server(head)
    assert machine.next_call() is None
    assert machine.ended
    output = machine.take_output()
    assert output.startswith(status)
    assert output.endswith(body)
    machine.feed(b"more")
    assert machine.next_call() is None
    assert not machine.has_output


@pytest.mark.parametrize(
    "data",
    [b"\x16\x03\x01\x02\n\n", b"CONNECT /_goRPC_\n\n", b"\n\n", b"SSH-2.0-x\r\n\r\n", b"x" * 4096],
    ids=["tls", "no version", "empty", "ssh", "4 KiB without an end"],
)
def test_what_is_no_http_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedMessage):
        server(data).next_call()


def test_replies_are_those_of_a_go_server(vectors: dict[str, bytes]) -> None:
    machine = connected()
    machine.reply(RESPOND, 0, 0)
    assert machine.take_output() == vectors["first_reply"]
    machine.reply(RESPOND, 1, 1)
    assert machine.take_output() == vectors["reply_seq_1_value_1"]
    machine.reply_error(RESPOND, 2, "boom")
    assert machine.take_output() == vectors["error_reply_seq_2_boom"]
    machine.reply(RESPOND, 3, 0)
    assert machine.take_output() == vectors["reply_seq_3_value_0"]
    machine.reply_error(RESPOND, 2, "boom")
    assert machine.take_output().endswith(b"boom\0\x03\xff\x96\x00")
    machine.reply(SERVER_RUNNING, 4, 1, Basic.INT)
    assert machine.take_output().endswith(bytes.fromhex("010400" + "03040002"))


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1), st.integers(0, 255))
def test_quick_replies_are_those_of_the_encoder(seqs: list[int], value: int) -> None:
    machine = connected()
    reference = Outgoing(74)
    for seq in seqs:
        machine.reply(RESPOND, seq, value)
        header = reference.encode(netrpc.RESPONSE, {"ServiceMethod": RESPOND, "Seq": seq})
        assert machine.take_output() == header + reference.encode(Basic.UINT, value)


def test_replies_come_out_in_the_order_they_were_given() -> None:
    machine = connected()
    machine.reply_error(RESPOND, 5, "boom")
    client = Client()
    machine.feed(client.call("Aggregator.Unknown", NUMBER, {"N": 1})[1])
    assert machine.next_call() is None
    machine.reply(RESPOND, 6, 1)
    assert [(reply.seq, reply.error, reply.value) for reply in replies(machine.take_output())] == [
        (5, "boom", None),
        (0, "rpc: can't find method Aggregator.Unknown", None),
        (6, "", 1),
    ]


@pytest.mark.parametrize(
    ("method", "error"),
    [
        ("Nobody.Home", "rpc: can't find service Nobody.Home"),
        (
            "Aggregator.ProcessOperatorSignedTaskResponse",
            "rpc: can't find method Aggregator.ProcessOperatorSignedTaskResponse",
        ),
        ("dotless", "rpc: service/method request ill-formed: dotless"),
        ("", "rpc: service/method request ill-formed: "),
    ],
)
def test_unknown_methods_are_answered_in_the_words_of_go(method: str, error: str) -> None:
    machine = connected()
    client = Client()
    first = client.call(method, NUMBER, {"N": 1})[1]
    machine.feed(first + client.call(SERVER_RUNNING, netrpc.NOTHING, {})[1])
    (call,) = calls(machine)
    assert (call.method, call.seq) == (SERVER_RUNNING, 1)
    assert replies(machine.take_output()) == [Reply(method, 0, error, None)]


def test_the_arguments_of_unknown_methods_are_skipped_whatever_they_are() -> None:
    machine = connected()
    header = Outgoing(65).encode(netrpc.REQUEST, {"ServiceMethod": "A.B"})
    machine.feed(header + bytes.fromhex("04ffc8aaaa"))
    assert machine.next_call() is None
    assert [reply.error for reply in replies(machine.take_output())] == [
        "rpc: can't find service A.B"
    ]


@pytest.mark.parametrize(
    ("declared", "value"),
    [
        (Struct("Request", (("ServiceMethod", Basic.STRING), ("Seq", Basic.STRING))), {}),
        (Struct("Request", (("ServiceMethod", Basic.UINT), ("Seq", Basic.UINT))), {}),
        (Struct("Request", (("Name", Basic.STRING),)), {}),
        (Basic.UINT, 5),
    ],
    ids=["number as text", "name as number", "other fields", "no struct"],
)
def test_a_header_of_another_type_is_malformed(declared: Local, value: Value) -> None:
    machine = connected()
    machine.feed(Outgoing(65).encode(declared, value))
    with pytest.raises(MalformedMessage):
        machine.next_call()


def test_a_header_is_matched_by_name() -> None:
    turned = Struct(
        "Request", (("Extra", Basic.INT), ("Seq", Basic.UINT), ("ServiceMethod", Basic.STRING))
    )
    outgoing = Outgoing(200)
    machine = connected()
    for seq in (1, 2):
        machine.feed(outgoing.encode(turned, {"ServiceMethod": RESPOND, "Seq": seq, "Extra": -1}))
        machine.feed(outgoing.encode(NUMBER, {"N": 1}))
    assert [(call.method, call.seq) for call in calls(machine)] == [(RESPOND, 1), (RESPOND, 2)]


@given(st.lists(st.tuples(st.sampled_from(sorted(METHODS)), st.booleans()), max_size=8))
def test_quick_headers_are_those_of_the_decoder(requests: list[tuple[str, bool]]) -> None:
    machine = connected()
    outgoing = Outgoing(65)
    expected: list[tuple[str, int]] = []
    for number, (method, large) in enumerate(requests):
        seq = 2**63 + number if large else number
        machine.feed(outgoing.encode(netrpc.REQUEST, {"ServiceMethod": method, "Seq": seq}))
        machine.feed(outgoing.encode(NUMBER, {"N": 1}))
        expected.append((method, seq))
    assert [(call.method, call.seq) for call in calls(machine)] == expected


@given(st.data())
def test_the_way_bytes_arrive_changes_nothing(
    vectors: dict[str, bytes], data: st.DataObject
) -> None:
    stream = DIAL + vectors["first_request"]
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=20)))
    machine = Server(METHODS)
    found: list[Call] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        machine.feed(stream[start:end])
        found += calls(machine)
        assert machine.in_message is (0 < end < len(stream) and end != len(DIAL))
    assert found == calls(server(stream))
    assert machine.take_output() == vectors["connected"]


@given(st.binary(max_size=300), st.data())
def test_arbitrary_bytes_are_malformed_at_worst(
    vectors: dict[str, bytes], noise: bytes, data: st.DataObject
) -> None:
    stream = DIAL + vectors["first_request"]
    at = data.draw(st.integers(0, len(stream)))
    machine = server(stream[:at] + noise + stream[at:])
    try:
        assert all(call.method in METHODS for call in calls(machine))
    except MalformedMessage:
        assert machine.connected or at < len(DIAL)


def test_a_client_is_told_what_was_returned(vectors: dict[str, bytes]) -> None:
    assert replies(
        vectors["first_reply"] + vectors["reply_seq_1_value_1"] + vectors["error_reply_seq_2_boom"]
    ) == [Reply(RESPOND, 0, "", 0), Reply(RESPOND, 1, "", 1), Reply(RESPOND, 2, "boom", None)]


@given(st.data())
def test_a_client_reads_replies_in_any_pieces(
    vectors: dict[str, bytes], data: st.DataObject
) -> None:
    stream = vectors["connected"] + vectors["first_reply"] + vectors["reply_seq_3_value_0"]
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=20)))
    client = Client()
    found: list[Reply] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        client.feed(stream[start:end])
        while (reply := client.next_reply()) is not None:
            found.append(reply)
    assert found == [Reply(RESPOND, 0, "", 0), Reply(RESPOND, 3, "", 0)]


@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 200 Connected to Go RPC\r\nContent-Length: 0\r\n\r\n"], ids=["1.1, header"]
)
def test_a_client_accepts_other_spellings_of_the_answer(head: bytes) -> None:
    client = Client()
    client.feed(head)
    assert client.next_reply() is None
    assert client.connected


@pytest.mark.parametrize(
    ("head", "problem"),
    [
        (b"HTTP/1.0 200 OK\n\n", "unexpected HTTP response: 200 OK"),
        (b"HTTP/1.0 503 Busy\n\n", "unexpected HTTP response: 503 Busy"),
        (b"nonsense\n\n", "unexpected HTTP response: nonsense"),
    ],
)
def test_a_client_refuses_other_answers(head: bytes, problem: str) -> None:
    client = Client()
    client.feed(head)
    with pytest.raises(MalformedMessage, match=problem):
        client.next_reply()


@given(st.binary(max_size=100))
def test_a_client_calls_arbitrary_answers_malformed_at_worst(noise: bytes) -> None:
    try:
        found = replies(noise)
    except MalformedMessage:
        return
    assert all(isinstance(reply, Reply) for reply in found)
