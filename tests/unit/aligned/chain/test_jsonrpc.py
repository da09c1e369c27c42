from __future__ import annotations

import json

import pytest
from hypothesis import given, strategies as st

from aligned.chain import jsonrpc
from aligned.chain.jsonrpc import BadBody, BatchRefused, Verdict
from aligned.chain.rpc import RpcError


def body(value: object) -> bytes:
    return json.dumps(value).encode()


def test_a_result_is_returned_as_it_came() -> None:
    assert jsonrpc.decode_answer(body({"id": 0, "result": {"a": 1}})) == {"a": 1}
    assert jsonrpc.decode_answer(body({"id": 0, "result": None})) is None


def test_a_refusal_keeps_code_message_and_data() -> None:
    error = {"code": 3, "message": "execution reverted", "data": "0x01"}
    refusal = jsonrpc.decode_answer(body({"id": 0, "error": error}))
    assert isinstance(refusal, RpcError)
    assert (refusal.code, refusal.message, refusal.data) == (3, "execution reverted", "0x01")


@pytest.mark.parametrize(
    "answer",
    [b"<html>502</html>", b'{"id": 0, "resu', b"[]", b"7", b'{"id": 0}', b"", b"[" * 100_000],
    ids=["html", "truncated", "array", "number", "no result", "empty", "nested"],
)
def test_what_is_no_answer_is_a_bad_body(answer: bytes) -> None:
    with pytest.raises(BadBody):
        jsonrpc.decode_answer(answer)


def test_a_large_answer_that_is_flat_is_read() -> None:
    rows = [{"topics": [[n]]} for n in range(1000)]
    assert jsonrpc.decode_answer(body({"id": 0, "result": rows})) == rows


def test_batch_answers_are_put_into_the_order_of_the_requests() -> None:
    answers = [{"id": 1, "result": "b"}, {"id": 0, "result": "a"}]
    assert jsonrpc.decode_answers(body(answers), 2) == ["a", "b"]


def test_a_missing_answer_in_a_batch_is_a_bad_body() -> None:
    with pytest.raises(BadBody):
        jsonrpc.decode_answers(body([{"id": 1, "result": "b"}]), 2)


@pytest.mark.parametrize("junk", [[0], {"n": 0}, "0", None], ids=repr)
def test_an_answer_in_a_batch_whose_id_is_no_number_is_none(junk: object) -> None:
    answers = [{"id": junk, "result": "junk"}, {"id": 0, "result": "a"}]
    assert jsonrpc.decode_answers(body(answers), 1) == ["a"]
    with pytest.raises(BadBody):
        jsonrpc.decode_answers(body(answers[:1]), 1)


def test_one_error_for_a_batch_refuses_it() -> None:
    with pytest.raises(BatchRefused):
        jsonrpc.decode_answers(body({"error": {"code": -32600, "message": "no batches"}}), 2)


def test_a_quota_error_for_a_batch_is_no_refusal_of_batches() -> None:
    error = {"code": -32005, "message": "daily request count exceeded, request rate limited"}
    answers = jsonrpc.decode_answers(body({"error": error}), 2)
    assert [isinstance(answer, RpcError) for answer in answers] == [True, True]


def test_bytes_are_sent_as_hex() -> None:
    sent = json.loads(jsonrpc.encode_call("m", [b"\x01", {"data": bytearray(b"\x02")}]))
    assert sent["params"] == ["0x01", {"data": "0x02"}]


@given(st.binary())
def test_no_body_breaks_the_decoder(answer: bytes) -> None:
    try:
        jsonrpc.decode_answers(answer, 1)
    except (BadBody, BatchRefused):
        return


@pytest.mark.parametrize(
    ("code", "message", "verdict"),
    [
        (3, "execution reverted: header not found", Verdict.FINAL),
        (-32000, "execution reverted", Verdict.FINAL),
        (-32015, "VM execution error: Reverted 0x", Verdict.FINAL),
        (-32000, "nonce too low", Verdict.FINAL),
        (-32602, "invalid params", Verdict.FINAL),
        (-32005, "query returned more than 10000 results", Verdict.FINAL),
        (
            -32602,
            "Log response size exceeded. this block range should work: [0x1, 0x2]",
            Verdict.FINAL,
        ),
        (-32000, "header not found", Verdict.LAGS),
        (-32000, "header for hash not found", Verdict.LAGS),
        (-32000, "hash is not currently canonical", Verdict.LAGS),
        (-32001, "block not found: hash 0xab", Verdict.LAGS),
        (-39001, "Unknown block", Verdict.LAGS),
        (-32000, "missing trie node 12 (path ) state 0xab is not available", Verdict.LAGS),
        (-32000, "distance to target block exceeds maximum proof window", Verdict.LAGS),
        (-32002, "No state available for block 0xab", Verdict.LAGS),
        (-32000, "block range extends beyond current head block", Verdict.LAGS),
        (-32005, "daily request count exceeded, request rate limited", Verdict.ENDPOINT),
        (429, "Your app has exceeded its compute units per second capacity", Verdict.ENDPOINT),
        (-32603, "Internal error", Verdict.DOUBTFUL),
        (-32601, "the method eth_x does not exist/is not available", Verdict.UNSUPPORTED),
        (-32000, "Unsupported method: eth_x on ETH_MAINNET", Verdict.UNSUPPORTED),
        (-32000, "request timed out", Verdict.DOUBTFUL),
    ],
)
def test_a_refusal_is_judged_by_whose_matter_it_is(
    code: int, message: str, verdict: Verdict
) -> None:
    assert jsonrpc.judge(RpcError(code, message)) is verdict
