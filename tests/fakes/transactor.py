"""A transactor that remembers what it was given, and knobs for what a real one says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NoReturn

from aggregator.outbox import OutboxRow, Standing, Survey
from aggregator.parking import CannotSend
from aggregator.submit import Submitter
from aligned.chain.calldata import BatchRecord, Indices
from aligned.model import Address, Batch, BatchId, OperatorId, Term, TransactionHash, Wei


class FakeTransactor:
    """Implements ``aggregator.submit.Transactor``; everything handed in is under way for ever."""

    def __init__(self) -> None:
        self.is_observing = False
        self.blocked: CannotSend | None = None
        self.rows: Sequence[OutboxRow] = ()
        self.free = 4
        self.surveyed: list[tuple[BatchId, tuple[OperatorId, ...]]] = []
        self.answered: list[tuple[BatchId, bytes]] = []
        self.standings: dict[BatchId, Standing] = {}
        self.refuse: Exception | None = None
        """What ``answer`` raises."""
        self.on_survey: Callable[[], None] = lambda: None
        self.fail_run: Exception | None = None
        self.desk: Submitter | None = None

    def begin(self, term: Term, holder: str, rows: Sequence[OutboxRow], desk: Submitter) -> None:
        del term, holder
        self.rows, self.desk = rows, desk

    def end(self) -> None:
        self.blocked = None

    def room(self) -> int:
        return self.free

    def standing(self, batch: Batch) -> Standing:
        return self.standings.get(batch.batch_id, Standing.FREE)

    async def survey(self, batch: Batch, non_signers: Sequence[OperatorId]) -> Survey:
        self.surveyed.append((batch.batch_id, tuple(non_signers)))
        await asyncio.sleep(0)
        self.on_survey()
        places = tuple(range(len(non_signers)))
        return Survey(
            indices=Indices(
                non_signer_bitmap=places,
                quorum_apk=(0,),
                total_stake=(0,),
                non_signer_stake=(places,),
            ),
            record=BatchRecord(
                created_block=batch.created.number, responded=False, fee_limit=batch.fee_limit
            ),
            aggregator=Address(bytes(20)),
            deposit=Wei(10**18),
            balance=Wei(10**18),
            base_fee=Wei(100),
            tip=Wei(10),
        )

    async def answer(self, batch: Batch, data: bytes, survey: Survey) -> TransactionHash | None:
        del survey
        await asyncio.sleep(0)
        if self.refuse is not None:
            raise self.refuse
        self.answered.append((batch.batch_id, data))
        if self.is_observing:
            return None
        self.standings[batch.batch_id] = Standing.UNDER_WAY
        self.free -= 1
        return TransactionHash(batch.batch_id)

    async def run(self) -> NoReturn:
        if self.fail_run is not None:
            raise self.fail_run
        await asyncio.Event().wait()
        raise AssertionError("unreachable")
