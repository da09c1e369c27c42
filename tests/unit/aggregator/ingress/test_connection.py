from __future__ import annotations

import logging

import pytest
from hypothesis import given, strategies as st

from aggregator.ingress.connection import UNPROVEN_CALLS, UNREAD_SECONDS
from aggregator.ingress.statistics import Ending
from aggregator.ports import ReplyCode
from aggregator.settings import Listen, ProxyProtocol
from aligned.wire import messages, netrpc
from aligned.wire.gob import Basic, Struct
from aligned.wire.netrpc import Reply
from tests.fakes.ingress import House, Inbox, Peer, honest


def endings(house: House) -> dict[Ending, int]:
    return dict(house.statistics.connections_ended)


def test_a_call_reaches_the_receiver_and_its_answer_the_caller() -> None:
    house = House()
    peer = house.peer()
    peer.call(honest(7, by=3))
    ((response, caller, seq),) = house.inbox.calls
    assert response == honest(7, by=3)
    assert caller is peer.connection
    assert caller.source == "192.0.2.1:4000"
    caller.answer(seq, ReplyCode.ACCEPTED)
    house.turn()
    assert peer.replies() == [Reply(messages.RESPOND, 0, "", 0)]
    assert house.statistics.calls == 1
    assert house.statistics.calls_open == 0


def test_nothing_is_written_before_the_first_call() -> None:
    house = House()
    peer = house.peer()
    assert peer.pipe.writes == [b"HTTP/1.0 200 Connected to Go RPC\n\n"]
    house.sweep_after(1)
    house.turn()
    assert len(peer.pipe.writes) == 1


def test_answers_of_one_round_are_one_write() -> None:
    house = House()
    peer = house.peer()
    for number in range(3):
        peer.call(honest(number))
    peer.replies()
    house.inbox.answer_all()
    assert peer.pipe.writes == []
    house.turn()
    assert len(peer.pipe.writes) == 1
    assert [reply.seq for reply in peer.replies()] == [0, 1, 2]


def test_an_answer_is_given_once() -> None:
    house = House()
    peer = house.peer()
    peer.call(honest())
    peer.connection.answer(0, ReplyCode.ACCEPTED)
    peer.connection.answer(0, ReplyCode.REFUSED)
    peer.connection.fail(0, "too late")
    peer.connection.answer(99, ReplyCode.ACCEPTED)
    house.turn()
    assert [(reply.seq, reply.value) for reply in peer.replies()] == [(0, 0)]


def test_an_error_is_an_rpc_error() -> None:
    house = House()
    peer = house.peer()
    peer.call(honest())
    peer.connection.fail(0, "operator not known yet")
    house.turn()
    assert peer.replies() == [Reply(messages.RESPOND, 0, "operator not known yet", None)]


def test_server_running_is_answered_in_place() -> None:
    house = House()
    peer = house.peer()
    peer.send(peer.client.call(messages.SERVER_RUNNING, netrpc.NOTHING, {})[1])
    house.turn()
    assert peer.replies() == [Reply(messages.SERVER_RUNNING, 0, "", 1)]
    assert house.inbox.calls == []
    assert house.statistics.probes == 1


def bad_responses() -> list[object]:
    good = messages.to_value(honest())
    point = {"X": [1, 0, 0, 0], "Y": [1, 0, 0, 0]}
    largest = {"X": [2**64 - 1] * 4, "Y": [1, 0, 0, 0]}
    zero = {"X": [0] * 4, "Y": [0] * 4}
    return [
        pytest.param(good | {"BlsSignature": {}}, "nil signature", id="nil outside"),
        pytest.param(good | {"BlsSignature": {"G1Point": {}}}, "nil signature", id="nil inside"),
        pytest.param(
            good | {"BlsSignature": {"G1Point": {"G1Affine": largest}}},
            "coordinate not below the field modulus",
            id="limbs of p or more",
        ),
        pytest.param(
            good | {"BlsSignature": {"G1Point": {"G1Affine": point}}},
            "signature is not on the curve",
            id="off the curve",
        ),
        pytest.param(
            good | {"BlsSignature": {"G1Point": {"G1Affine": zero}}},
            "signature is the point at infinity",
            id="infinity",
        ),
        pytest.param(
            good | {"BatchMerkleRoot": [9] * 32},
            "batch id is not the hash of root and sender",
            id="wrong hash",
        ),
    ]


@pytest.mark.parametrize(("value", "reason"), bad_responses())
def test_what_can_never_be_right_is_refused_before_the_receiver(
    value: dict[str, object], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    house = House()
    peer = house.peer()
    for _ in range(3):
        peer.send(
            peer.client.call(messages.RESPOND, messages.SIGNED_TASK_RESPONSE, value)[1]  # type: ignore[arg-type]  # a table of values
        )
    peer.call(honest())
    house.turn()
    assert [reply.value for reply in peer.replies()] == [1, 1, 1]
    assert house.inbox.responses == [honest()]
    assert house.statistics.refused == {reason: 3}
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_an_argument_of_another_type_is_an_error_and_the_connection_goes_on() -> None:
    house = House()
    peer = house.peer()
    wrong = Struct("SignedTaskResponse", (("OperatorId", Basic.STRING),))
    peer.send(peer.client.call(messages.RESPOND, wrong, {"OperatorId": "me"})[1])
    peer.call(honest())
    house.turn()
    assert [reply.error for reply in peer.replies()] == [
        "gob: type mismatch: SignedTaskResponse lacks field BatchMerkleRoot"
    ]
    assert house.inbox.responses == [honest()]
    assert house.statistics.errors == 1


def test_an_unknown_method_is_an_error_and_the_connection_goes_on() -> None:
    house = House()
    peer = house.peer()
    peer.send(peer.client.call("Aggregator.Old", netrpc.NOTHING, {})[1])
    peer.call(honest())
    house.turn()
    assert [reply.error for reply in peer.replies()] == ["rpc: can't find method Aggregator.Old"]
    assert house.inbox.responses == [honest()]


def test_a_malformed_message_closes_after_the_replies_before_it() -> None:
    house = House()
    peer = house.peer()
    peer.call(honest(1))
    peer.call(honest(2))
    peer.connection.answer(0, ReplyCode.ACCEPTED)
    peer.send(b"\x00")
    assert [reply.seq for reply in peer.replies()] == [0]
    assert peer.pipe.closed
    assert endings(house) == {Ending.MALFORMED: 1}
    assert house.statistics.malformed == {"a message is empty or too long": 1}
    house.turn()
    assert house.inbox.gone == [peer.connection]


def test_two_open_calls_of_one_number_are_malformed() -> None:
    house = House()
    peer = house.peer()
    call = peer.encode(honest(1))
    peer.send(call)
    second, third = peer.encode(honest(2)), peer.encode(honest(3))
    peer.send(second + second[: second[0] + 1] + third[third[0] + 1 :])
    assert house.inbox.responses == [honest(1), honest(2)]
    assert endings(house) == {Ending.MALFORMED: 1}


def test_http_is_answered_and_ended() -> None:
    house = House()
    peer = Peer(house)
    peer.send(b"GET /metrics HTTP/1.1\r\n\r\n")
    assert peer.pipe.writes[0].startswith(b"HTTP/1.1 404 ")
    assert peer.pipe.eof
    assert endings(house) == {Ending.NOT_RPC: 1}


@given(st.data())
def test_the_way_bytes_arrive_changes_nothing(data: st.DataObject) -> None:
    house = House(inbox=Inbox(at_once=ReplyCode.ACCEPTED))
    peer = Peer(house)
    sent = [honest(number) for number in range(3)]
    stream = peer.client.dial() + b"".join(peer.encode(response) for response in sent)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=10)))
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        peer.send(stream[start:end])
        house.turn()
    assert house.inbox.responses == sent
    assert [reply.seq for reply in peer.replies()] == [0, 1, 2]


@given(st.binary(max_size=200), st.integers(0, 1000))
def test_arbitrary_bytes_hurt_only_their_connection(noise: bytes, at: int) -> None:
    house = House(inbox=Inbox(at_once=ReplyCode.ACCEPTED))
    honest_peer, hostile = house.peer(), Peer(house)
    stream = hostile.client.dial() + hostile.encode(honest(1))
    hostile.send(stream[:at] + noise + stream[at:])
    house.turn()
    honest_peer.call(honest(2))
    house.turn()
    assert [reply.value for reply in honest_peer.replies()] == [0]


# Limits and back-pressure.


def test_reading_stops_at_the_limit_of_open_calls_and_nothing_is_dropped() -> None:
    house = House(Listen(max_calls_per_connection=2))
    peer = house.peer()
    peer.send(b"".join(peer.encode(honest(number)) for number in range(5)))
    assert house.inbox.responses == [honest(0), honest(1)]
    assert not peer.pipe.reading
    peer.connection.answer(0, ReplyCode.ACCEPTED)
    house.turn()
    assert house.inbox.responses == [honest(0), honest(1), honest(2)]
    assert not peer.pipe.reading
    for seq in range(1, 5):
        peer.connection.answer(seq, ReplyCode.ACCEPTED)
        house.turn()
    assert house.inbox.responses == [honest(number) for number in range(5)]
    assert peer.pipe.reading
    assert [reply.seq for reply in peer.replies()] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("verified", "failures", "taken"),
    [
        pytest.param(0, 0, UNPROVEN_CALLS, id="newcomer"),
        pytest.param(1, 1, UNPROVEN_CALLS, id="suspect"),
        pytest.param(1, 0, 10, id="proven"),
    ],
)
def test_more_calls_wait_for_a_good_signature(verified: int, failures: int, taken: int) -> None:
    house = House(Listen(max_calls_per_connection=10))
    peer = house.peer()
    peer.connection.standing.verified = verified
    peer.connection.standing.failures = failures
    peer.send(b"".join(peer.encode(honest(number)) for number in range(12)))
    assert len(house.inbox.calls) == taken
    assert not peer.pipe.reading


def test_the_first_good_signature_lets_the_others_in() -> None:
    house = House(Listen(max_calls_per_connection=10))
    peer = house.peer()
    peer.send(b"".join(peer.encode(honest(number)) for number in range(10)))
    peer.connection.standing.verified = 1
    peer.connection.answer(0, ReplyCode.ACCEPTED)
    house.turn()
    assert len(house.inbox.calls) == 10
    assert peer.pipe.reading


def test_a_pause_holds_all_connections_and_loses_nothing() -> None:
    house = House()
    first, second, silent = house.peer(), house.peer(), house.peer()
    house.shared.paused = True
    second.call(honest(2))
    first.send(first.encode(honest(1)) + first.encode(honest(3)))
    assert house.inbox.calls == []
    assert (first.pipe.reading, second.pipe.reading, silent.pipe.reading) == (False, False, True)
    house.shared.resume()
    assert house.inbox.responses == [honest(2), honest(1), honest(3)]
    assert first.pipe.reading
    assert second.pipe.reading


def test_a_pause_in_the_middle_of_a_read_takes_effect_at_once() -> None:
    house = House()
    peer, other = house.peer(), house.peer()
    house.shared.paused = True
    other.call(honest(9))
    peer.send(b"".join(peer.encode(honest(number)) for number in range(3)))

    def pause() -> None:
        house.shared.paused = True

    house.inbox.on_receive = pause
    taken: list[int] = []
    for _ in range(4):
        house.shared.resume()
        taken.append(len(house.inbox.calls))
    assert taken == [1, 2, 3, 4]
    assert house.inbox.responses[0] == honest(9)


def test_a_held_connection_is_not_blamed_for_being_slow() -> None:
    house = House()
    peer = house.peer()
    house.shared.paused = True
    peer.send(peer.encode(honest())[:100])
    house.sweep_after(1000)
    assert endings(house) == {}
    house.shared.resume()
    house.sweep_after(29)
    assert endings(house) == {}
    house.sweep_after(2)
    assert endings(house) == {Ending.SLOW_MESSAGE: 1}


def test_a_peer_that_does_not_read_is_not_read_from_and_aborted_in_the_end() -> None:
    house = House()
    peer = house.peer()
    peer.connection.pause_writing()
    peer.call(honest(1))
    assert not peer.pipe.reading
    assert house.inbox.calls == []
    peer.connection.resume_writing()
    assert peer.pipe.reading
    assert house.inbox.responses == [honest(1)]
    peer.connection.pause_writing()
    house.sweep_after(UNREAD_SECONDS + 1)
    assert peer.pipe.aborted
    assert endings(house) == {Ending.SLOW_READER: 1}


# Deadlines, beside honest load.


def test_a_silent_dial_is_closed_after_ten_seconds_and_honest_ones_are_not() -> None:
    house = House()
    silent = Peer(house)
    trickling = Peer(house)
    busy = house.peer()
    busy.call(honest())
    for second in range(11):
        trickling.send(b"CONNECT /_goRPC_ HTTP/1.0\n"[second : second + 1])
        house.sweep_after(1)
    assert silent.pipe.closed
    assert trickling.pipe.closed
    assert not busy.pipe.closed
    assert endings(house) == {Ending.SLOW_HEAD: 2}


def test_a_message_must_be_complete_thirty_seconds_after_its_first_byte() -> None:
    house = House()
    slow, quick = house.peer(), house.peer()
    call = slow.encode(honest(1))
    house.sweep_after(50)
    for at in range(30):
        slow.send(call[at : at + 1])
        quick.call(honest(at))
        house.inbox.answer_all()
        house.sweep_after(1)
    assert endings(house) == {}
    slow.send(call[30:31])
    house.sweep_after(1)
    assert slow.pipe.closed
    assert endings(house) == {Ending.SLOW_MESSAGE: 1}


def test_definitions_without_a_value_are_an_unfinished_message() -> None:
    house = House()
    peer = house.peer()
    call = peer.encode(honest())
    peer.send(call[: call[0] + 1])
    house.sweep_after(31)
    assert endings(house) == {Ending.SLOW_MESSAGE: 1}


def test_an_idle_connection_is_closed_and_a_waiting_one_never() -> None:
    house = House(Listen(idle_timeout=60))
    idle, waiting = house.peer(), house.peer()
    waiting.call(honest())
    house.sweep_after(59)
    assert endings(house) == {}
    house.sweep_after(2)
    assert endings(house) == {Ending.IDLE: 1}
    assert idle.pipe.eof
    house.sweep_after(1000)
    assert not waiting.pipe.eof
    waiting.connection.answer(0, ReplyCode.ACCEPTED)
    house.turn()
    house.sweep_after(59)
    assert not waiting.pipe.eof
    house.sweep_after(2)
    assert waiting.pipe.eof


def test_what_arrives_after_our_fin_is_dropped_until_the_socket_is_closed() -> None:
    house = House()
    peer = house.peer()
    house.sweep_after(61)
    assert peer.pipe.eof
    peer.call(honest())
    assert house.inbox.calls == []
    assert not peer.pipe.closed
    house.sweep_after(3)
    assert peer.pipe.closed


# Ends.


def test_open_calls_of_a_vanished_peer_are_reported_once() -> None:
    house = House()
    peer, other = house.peer(), house.peer()
    peer.call(honest(1))
    other.call(honest(2))
    other.connection.answer(0, ReplyCode.ACCEPTED)
    peer.vanish()
    other.vanish()
    assert house.inbox.gone == []
    house.turn()
    assert house.inbox.gone == [peer.connection]
    peer.connection.answer(0, ReplyCode.ACCEPTED)
    peer.connection.fail(0, "gone")
    peer.connection.hang_up()
    house.turn()
    assert house.inbox.gone == [peer.connection]
    assert house.statistics.connections_open == 0
    assert house.statistics.calls_open == 0
    assert endings(house) == {Ending.PEER: 2}


def test_hanging_up_sends_the_answers_given_and_a_fin() -> None:
    house = House()
    peer = house.peer()
    peer.call(honest(1))
    peer.call(honest(2))
    peer.connection.answer(0, ReplyCode.ACCEPTED)
    peer.connection.hang_up()
    assert [reply.seq for reply in peer.replies()] == [0]
    assert peer.pipe.eof
    house.turn()
    assert house.inbox.gone == [peer.connection]
    assert endings(house) == {Ending.HUNG_UP: 1}


def test_a_half_closed_peer_still_gets_its_answers() -> None:
    house = House()
    peer = house.peer()
    peer.call(honest())
    assert peer.connection.eof_received()
    assert not peer.pipe.closed
    peer.connection.answer(0, ReplyCode.ACCEPTED)
    house.turn()
    assert [reply.value for reply in peer.replies()] == [0]
    assert peer.pipe.closed
    assert endings(house) == {Ending.PEER: 1}


def test_a_half_closed_peer_with_nothing_open_is_closed() -> None:
    house = House()
    peer = house.peer()
    peer.send(peer.encode(honest())[:50])
    assert not peer.connection.eof_received()
    assert endings(house) == {Ending.PEER: 1}


def test_calls_held_back_when_a_peer_half_closes_are_taken_all_the_same() -> None:
    house = House()
    peer = house.peer()
    house.shared.paused = True
    peer.call(honest())
    assert peer.connection.eof_received()
    house.shared.resume()
    assert house.inbox.responses == [honest()]


def test_a_flood_of_bad_input_does_not_flood_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    house = House()
    for _ in range(50):
        house.peer().send(b"\x00")
    assert len(caplog.records) == 10
    assert house.statistics.malformed.total() == 50
    house.shared.allow_logs()
    house.peer().send(b"\x00")
    assert len(caplog.records) == 11


# Budgets.


def test_at_the_limit_the_least_recently_used_idle_connection_goes() -> None:
    house = House(Listen(max_connections=3), Inbox(at_once=ReplyCode.ACCEPTED))
    first, second, third = house.peer(), house.peer(), house.peer()
    first.call(honest())
    house.turn()
    house.peer()
    assert (first.pipe.closed, second.pipe.closed, third.pipe.closed) == (False, True, False)
    assert endings(house) == {Ending.EVICTED: 1}


def test_a_proven_connection_with_open_calls_never_goes_for_another() -> None:
    house = House(Listen(max_connections=2))
    busy = [house.peer(), house.peer()]
    for peer in busy:
        peer.connection.standing.verified = 1
        peer.call(honest())
    late = house.peer()
    assert late.pipe.closed
    assert not any(peer.pipe.closed for peer in busy)
    assert endings(house) == {Ending.FULL: 1}


def test_calls_of_strangers_do_not_keep_others_out() -> None:
    house = House(Listen(max_connections=2))
    strangers = [house.peer(), house.peer()]
    for peer in strangers:
        peer.call(honest())
    late = house.peer()
    assert [peer.pipe.closed for peer in strangers] == [True, False]
    late.call(honest())
    assert len(house.inbox.calls) == 3
    assert endings(house) == {Ending.EVICTED: 1}


def test_connections_of_one_source_are_limited_where_that_is_set() -> None:
    house = House(Listen(max_connections_per_source=1))
    first, elsewhere = house.peer("192.0.2.1"), house.peer("192.0.2.2")
    second = house.peer("192.0.2.1")
    assert (first.pipe.closed, elsewhere.pipe.closed, second.pipe.closed) == (True, False, False)
    second.connection.standing.verified = 1
    second.call(honest())
    third = house.peer("192.0.2.1")
    assert third.pipe.closed
    assert not second.pipe.closed


PROXIED = Listen(
    proxy_protocol=ProxyProtocol.V1,
    trusted_cidrs=("10.0.0.0/8",),
    max_connections_per_source=1,
)


def test_a_trusted_balancer_says_where_a_connection_comes_from() -> None:
    house = House(PROXIED)
    peers = [Peer(house, ("10.0.0.1", 1)) for _ in range(3)]
    for number, peer in enumerate(peers):
        header = f"PROXY TCP4 203.0.113.{number} 10.0.0.1 5{number} 8090\r\n".encode()
        peer.send(header[:20])
        peer.send(header[20:] + peer.client.dial() + peer.encode(honest()))
    assert [caller.source for _, caller, _ in house.inbox.calls] == [
        "203.0.113.0:50",
        "203.0.113.1:51",
        "203.0.113.2:52",
    ]


def test_a_header_from_an_untrusted_peer_is_malformed() -> None:
    house = House(PROXIED)
    peer = Peer(house, ("192.0.2.1", 1))
    peer.send(b"PROXY TCP4 203.0.113.1 10.0.0.1 5 8090\r\n\r\n")
    assert endings(house) == {Ending.MALFORMED: 1}


def test_an_untrusted_peer_without_a_header_is_served() -> None:
    house = House(PROXIED)
    house.peer("192.0.2.1").call(honest())
    assert house.inbox.responses == [honest()]


def test_a_trusted_peer_without_a_header_is_malformed() -> None:
    house = House(PROXIED)
    house.peer("10.0.0.1")
    assert endings(house) == {Ending.MALFORMED: 1}


def test_a_balancer_that_says_nothing_is_closed_after_ten_seconds() -> None:
    house = House(PROXIED)
    peer = Peer(house, ("10.0.0.1", 1))
    peer.send(b"PROXY ")
    house.sweep_after(11)
    assert peer.pipe.closed
    assert endings(house) == {Ending.SLOW_HEAD: 1}
