from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from aggregator.ports import Standing
from aggregator.verify import Verifier
from aligned.bls.backend import Key
from aligned.bls.choose import choose
from aligned.bls.curve import G1, G2, multiply_g1, negate_g1, sum_g1
from aligned.bls.hash_to_g1 import hash_to_g1
from aligned.model import BatchId, Entry, OperatorId, Signature

BATCHES = [BatchId(bytes([number]) * 32) for number in (1, 2)]
D = multiply_g1(G1, 1234)


@dataclass(eq=False)
class Brought:
    entry: Entry
    key: Key
    standing: Standing = field(default_factory=Standing)
    withdrawn: bool = False


async def test_colluders_are_refused_each_and_the_honest_beside_them_are_not() -> None:
    backend = choose("auto")
    key = backend.key(G2)
    verdicts: list[tuple[Brought, bool]] = []

    def take(delivered: list[tuple[Brought, bool]]) -> None:
        nonlocal verdicts
        verdicts += delivered
        task.cancel()

    verifier: Verifier[Brought] = Verifier(backend, take)
    points = [hash_to_g1(batch) for batch in BATCHES]  # signatures of the secret 1
    minus = negate_g1(D)
    signatures = [
        *((0, point) for point in (points[0], sum_g1([points[0], D]), sum_g1([points[0], minus]))),
        *((1, point) for point in (sum_g1([points[1], D]), points[1])),
        (0, sum_g1([points[0], minus, minus])),
        (0, points[0]),
    ]
    for number, (batch, point) in enumerate(signatures):
        operator = OperatorId(bytes([number]) * 32)
        verifier.submit(Brought(Entry(BATCHES[batch], operator, Signature(point)), key))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(verifier.run())
    assert verifier.statistics.calls == 1
    assert [good for _, good in verdicts] == [True, False, False, False, True, False, True]
