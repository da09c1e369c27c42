"""Small histories: a good one, to be spoiled by each test in one place."""

from __future__ import annotations

from collections.abc import Collection

from aligned.model import BatchId, OperatorId, TransactionHash
from tests.nemesis.checks import Bounds
from tests.nemesis.history import Call, Claimed, History, Leading, Mined, Post, Row, Sent

BOUNDS = Bounds(needed=4, window=4.0, slack=3.0, call=60.0)
OPERATORS = tuple(OperatorId(bytes([number]) * 32) for number in range(5))
REPLICAS = ("replica-0", "replica-1", "replica-2")
POSTED = 1000.0
"""When the first batch was posted; each of the next ones is ten seconds later."""


def batch(number: int) -> BatchId:
    return BatchId(b"batch".ljust(31) + bytes([number]))


def transaction(number: int) -> TransactionHash:
    return TransactionHash(b"transaction".ljust(31) + bytes([number]))


def acknowledged(number: int, operator: int, at: float, opened: float | None = None) -> Call:
    began = at - 0.1 if opened is None else opened
    return Call(batch(number), OPERATORS[operator], began, at, 0)


def answered(
    number: int, *, without: Collection[int] = (), name: int | None = None, succeeded: bool = True
) -> Mined:
    lacking = frozenset(OPERATORS[who] for who in without)
    hashed = transaction(number if name is None else name)
    return Mined(hashed, number, succeeded, 300_000, batch(number), lacking)


def leads(term: int, at: float, holder: str | None = None) -> Leading:
    name = f"replica-{term % 3}"
    return Leading(name, term, holder or f"{name}.{term}", at)


def claims(term: int, at: float, holder: str | None = None) -> Claimed:
    return Claimed(term, holder or f"replica-{term % 3}.{term}", (round(at * 1000), 0))


def row(number: int, term: int, at: float) -> Row:
    return Row(transaction(number), term, batch(number), (round(at * 1000), 0), "a writer")


def good() -> History:
    """Two batches, each signed by all, in terms 1 and 2."""
    history = History(ended=POSTED + 100)
    for number in (1, 2):
        at = POSTED + 10 * number
        history.posts.append(Post(number, batch(number), at))
        history.calls += [acknowledged(number, who, at + 1 + who / 10) for who in range(5)]
        history.leading.append(leads(number, at))
        history.claims.append(claims(number, at - 0.1))
        history.rows.append(row(number, number, at + 2))
        history.sent.append(Sent(f"replica-{number}", transaction(number), at + 2.1))
        history.mined.append(answered(number))
        history.verified[batch(number)] = [transaction(number)]
    pairs = {(call.batch_id, call.operator_id) for call in history.calls}
    history.kept = {name: set(pairs) for name in REPLICAS}
    return history
