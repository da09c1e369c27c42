"""JSON-RPC 2.0 bodies: requests out, answers in, and what a node's refusal says. Pure."""

from __future__ import annotations

import json
import re
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final

from aligned.chain.rpc import RpcError

if TYPE_CHECKING:
    from collections.abc import Sequence


_DEPTH_LIMIT: Final = 500
_BRACKETS: Final = re.compile(rb"[\[\]{}]")


class BadBody(Exception):
    """A body that is no answer: HTML, truncated, of another request."""


class BatchRefused(Exception):
    """The node takes no batches, or none of this size."""


def encode_call(method: str, params: Sequence[object]) -> bytes:
    """Return the body of one request; bytes in ``params`` become hex."""
    return json.dumps(_request(0, method, params), default=_hex).encode()


def encode_calls(calls: Sequence[tuple[str, Sequence[object]]]) -> bytes:
    """Return the body of a batch; the ids are positions."""
    batch = [_request(i, method, params) for i, (method, params) in enumerate(calls)]
    return json.dumps(batch, default=_hex).encode()


def _request(identifier: int, method: str, params: Sequence[object]) -> dict[str, object]:
    return {"jsonrpc": "2.0", "id": identifier, "method": method, "params": params}


def _hex(value: object) -> object:
    if isinstance(value, bytes | bytearray):
        return "0x" + bytes(value).hex()
    if hasattr(value, "items"):  # web3's AttributeDict
        return dict(value.items())
    msg = f"{type(value).__name__} cannot be a JSON-RPC parameter"
    raise TypeError(msg)


def decode_answer(body: bytes) -> Any | RpcError:
    """Return the result, or the refusal, in the answer to one request.

    Raises:
        BadBody: It is no such answer.
    """
    return _answer(_load(body))


def decode_answers(body: bytes, count: int) -> list[Any | RpcError]:
    """Return the answers to a batch of ``count``, in the order of the requests.

    Raises:
        BadBody: It is no such answer.
        BatchRefused: It is one refusal of the whole.
    """
    loaded = _load(body)
    if isinstance(loaded, dict) and isinstance(loaded.get("error"), dict | str):
        refusal = _answer(loaded)
        if isinstance(refusal, RpcError) and judge(refusal) is Verdict.ENDPOINT:
            return [refusal] * count
        raise BatchRefused(str(refusal))
    if not isinstance(loaded, list):
        msg = "no batch answer"
        raise BadBody(msg)
    by_id = {
        item["id"]: item
        for item in loaded
        if isinstance(item, dict) and isinstance(item.get("id"), int | float)
    }
    if any(i not in by_id for i in range(count)):
        msg = "answers are missing in a batch"
        raise BadBody(msg)
    return [_answer(by_id[i]) for i in range(count)]


def _load(body: bytes) -> Any:
    if _is_deep(body):
        msg = f"the body is nested deeper than {_DEPTH_LIMIT}"
        raise BadBody(msg)
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        msg = "the body is not JSON"
        raise BadBody(msg) from error


def _is_deep(body: bytes) -> bool:
    """Tell whether parsing could exhaust the C stack.

    py_ecc raises the interpreter's recursion limit so far that a nested body ends the process
    with a segmentation fault in place of a ``RecursionError``.
    """
    if body.count(b"[") + body.count(b"{") <= _DEPTH_LIMIT:
        return False
    depth = 0
    for bracket in _BRACKETS.finditer(body):  # those within strings count too: harmless
        depth += 1 if bracket[0] in b"[{" else -1
        if depth > _DEPTH_LIMIT:
            return True
    return False


def _answer(loaded: Any) -> Any | RpcError:
    if not isinstance(loaded, dict):
        msg = "no JSON-RPC answer"
        raise BadBody(msg)
    error = loaded.get("error")
    if isinstance(error, dict):
        code = error.get("code")
        return RpcError(
            code if isinstance(code, int) else 0, str(error.get("message", "")), error.get("data")
        )
    if isinstance(error, str):
        return RpcError(0, error)
    if "result" not in loaded:
        msg = "no JSON-RPC answer"
        raise BadBody(msg)
    return loaded["result"]


class Verdict(Enum):
    """Whose matter a refusal is."""

    FINAL = auto()
    """The request's: every node would say it."""
    LAGS = auto()
    """This node has not got, or no longer has, the block or its state: another one may."""
    ENDPOINT = auto()
    """The provider's: over a quota, overloaded."""
    DOUBTFUL = auto()
    """Perhaps this node's alone (internal error, its own deadline): worth asking another."""
    UNSUPPORTED = auto()
    """This node lacks the method: another one may have it."""


_LAGS: Final = (
    "header not found",  # geth, erigon
    "header for hash not found",
    "unknown block",  # geth, besu, reth: "unknown block or tx index"
    "block not found",  # reth, besu, anvil
    "blockhash not found",
    "hash is not currently canonical",  # geth, requireCanonical
    "not canonical",
    "non-canonical",
    "could not find block",
    "cannot find block",
    "block #",  # erigon: "block #n not found"
    "missing trie node",  # geth, pruned
    "state not available",
    "state is not available",
    "historical state",  # geth: "historical state … is not available"
    "state unavailable",  # geth ("required historical …"), besu ("World …")
    "no state available",  # nethermind
    "state histories haven't been fully indexed",
    "maximum proof window",  # reth
    "pruned",
    "pruning",  # erigon
    "out of range",  # anvil: "BlockOutOfRangeError"
    "outofrange",
    "beyond current head",  # geth, getLogs
    "beyond head",
    "exceeds the head",
    "greater than latest",
    "one of the blocks specified in filter",  # ethers of old nodes, getLogs
    "unknown or pruned",
)
_ENDPOINT: Final = (
    "rate limit",
    "ratelimit",
    "too many requests",
    "request count exceeded",
    "request limit",
    "compute units",
    "over capacity",
    "quota",
    "unauthorized",
    "api key",
)
_DOUBTFUL: Final = ("timeout", "timed out")
_DOUBTFUL_CODES: Final = frozenset({-32603, -32002})
_UNSUPPORTED: Final = ("not supported", "unsupported", "does not exist/is not")
_UNSUPPORTED_CODES: Final = frozenset({-32601, -32004})
_NOT_FOUND: Final = -32001
_LAG_CODES: Final = frozenset({_NOT_FOUND})


def no_block(number: int) -> RpcError:
    """Return the refusal of a node that has no such block yet."""
    return RpcError(_NOT_FOUND, f"block {number} not found")


def judge(error: RpcError) -> Verdict:
    """Return whose matter ``error`` is.

    A revert is always final, whatever its reason string contains. So is anything unknown: a
    semantic refusal tried elsewhere costs time and hides what is wrong.
    """
    words = error.message.lower()
    if "revert" in words or error.code == 3:  # noqa: PLR2004 - geth's code of a revert
        return Verdict.FINAL
    for verdict, codes, fragments in _VERDICTS:
        if error.code in codes or any(fragment in words for fragment in fragments):
            return verdict
    return Verdict.FINAL


_VERDICTS: Final = (
    (Verdict.ENDPOINT, frozenset[int](), _ENDPOINT),
    (Verdict.LAGS, _LAG_CODES, _LAGS),
    (Verdict.UNSUPPORTED, _UNSUPPORTED_CODES, _UNSUPPORTED),
    (Verdict.DOUBTFUL, _DOUBTFUL_CODES, _DOUBTFUL),
)


def worst(answers: list[Any | RpcError]) -> tuple[Verdict | None, RpcError | None]:
    """Return the verdict for which another endpoint is worth asking, if there is one.

    A method that is not there is no reason to ask for all the others again.
    """
    refusals = [(judge(a), a) for a in answers if isinstance(a, RpcError)]
    wanted = [Verdict.LAGS, Verdict.DOUBTFUL]
    if len(answers) == 1:
        wanted.append(Verdict.UNSUPPORTED)
    for verdict in wanted:
        for found, refusal in refusals:
            if found is verdict:
                return verdict, refusal
    return None, None
