"""A prover without arithmetic, and what hears of milestones."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from aggregator import certificate
from aggregator.outbox import Receipt
from aggregator.parking import CannotSend
from aggregator.prove import BadAggregate
from aggregator.quorum import Tally
from aligned.chain.calldata import Certificate
from aligned.model import (
    Batch,
    BatchId,
    Entry,
    G1Point,
    G2Point,
    OperatorId,
    OperatorSet,
    Signature,
    TransactionHash,
)


class FakeProver:
    """Implements what ``Submitter`` asks of ``Prover``."""

    def __init__(self) -> None:
        self.bad: set[OperatorId] = set()
        """Whose signatures do not verify."""
        self.refuse: CannotSend | None = None

    async def certify(
        self, batch: Batch, operators: OperatorSet, signatures: Mapping[OperatorId, Signature]
    ) -> Certificate:
        signers = frozenset(signatures)
        await asyncio.sleep(0)
        if self.refuse is not None:
            raise self.refuse
        if self.bad & signers:
            raise BadAggregate
        non_signers = tuple(certificate.absent(operators, signatures))
        return Certificate(
            merkle_root=batch.merkle_root,
            sender=batch.sender,
            batch_id=batch.batch_id,
            created=batch.created,
            non_signers=non_signers,
            non_signer_keys=tuple(G1Point(bytes(64)) for _ in non_signers),
            quorum_apk=G1Point(bytes(64)),
            signers_apk_g1=G1Point(bytes(64)),
            apk_g2=G2Point(bytes(128)),
            sigma=Signature(bytes(64)),
        )

    async def find_bad(
        self, batch: Batch, operators: OperatorSet, signatures: Mapping[OperatorId, Signature]
    ) -> Sequence[Entry]:
        del operators
        await asyncio.sleep(0)
        return [
            Entry(batch.batch_id, signer, signature)
            for signer, signature in signatures.items()
            if signer in self.bad
        ]


@dataclass
class Heard:
    """Implements ``Milestones``."""

    quorums: list[BatchId] = field(default_factory=list)
    sent: list[tuple[BatchId, int]] = field(default_factory=list)
    mined: list[tuple[BatchId, Receipt]] = field(default_factory=list)

    def quorum_reached(self, batch: Batch, counted: Tally) -> None:
        del counted
        self.quorums.append(batch.batch_id)

    def answer_mined(self, batch: Batch, receipt: Receipt) -> None:
        self.mined.append((batch.batch_id, receipt))

    def answer_sent(self, batch: Batch, transaction: TransactionHash, counted: Tally) -> None:
        del transaction
        self.sent.append((batch.batch_id, counted.signed))
