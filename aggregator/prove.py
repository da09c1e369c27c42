"""Step: signatures become a certificate that the contract accepts, or the bad ones are found."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, TypeVar

from aggregator import certificate
from aggregator.certificate import KeysMissing
from aggregator.parking import CannotSend, Reason
from aligned.bls.backend import Runs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from aggregator.ports import KnownOperator
    from aligned.bls.backend import Backend
    from aligned.chain.calldata import Certificate
    from aligned.model import Batch, Entry, OperatorId, OperatorSet, Signature

logger = logging.getLogger(__name__)

T = TypeVar("T")


class BadAggregate(Exception):
    """The contract would refuse the sum of the signatures held."""


class Prover:
    """Runs the arithmetic where its backend belongs.

    Args:
        operator: Looks up an operator's keys.
        backend: Arithmetic.
        miss: Hears of members whose keys are not known, so that they are searched for.
    """

    def __init__(
        self,
        operator: Callable[[OperatorId], KnownOperator | None],
        backend: Backend,
        miss: Callable[[Sequence[OperatorId]], None],
    ) -> None:
        self._operator = operator
        self._backend = backend
        self._miss = miss

    async def certify(
        self, batch: Batch, operators: OperatorSet, signatures: Mapping[OperatorId, Signature]
    ) -> Certificate:
        """Return the certificate of all ``signatures``, checked by the contract's own equation.

        Raises:
            CannotSend: A member's key is not known.
            BadAggregate: The check failed; ``find_bad`` tells why.
        """

        def compute() -> tuple[Certificate, bool]:
            proof = certificate.assemble(
                batch, operators, signatures, self._operator, self._backend
            )
            return proof, certificate.holds(proof, self._backend)

        try:
            proof, holds = await self._compute(compute)
        except KeysMissing as missing:
            self._miss(missing.members)
            raise CannotSend(Reason.NO_QUORUM_DATA, str(missing)) from missing
        if not holds:
            raise BadAggregate
        return proof

    async def find_bad(
        self, batch: Batch, operators: OperatorSet, signatures: Mapping[OperatorId, Signature]
    ) -> Sequence[Entry]:
        """Return the signatures that do not verify alone; at least one.

        Raises:
            CannotSend: All do: the keys do not fit together.
        """
        bad = await self._compute(
            lambda: certificate.find_bad(
                batch, operators, signatures, self._operator, self._backend
            )
        )
        if not bad:
            detail = (
                "every signature verifies, their sum does not: the quorum's keys in G1 and G2 do "
                "not belong together"
            )
            raise CannotSend(Reason.NO_QUORUM_DATA, detail)
        logger.error(
            "stored signatures do not verify: they are evicted and the batch goes on with the "
            "rest. Find out who else writes to the store, and check the disk of the journal",
            extra={"batch": batch.batch_id, "operators": [entry.operator_id for entry in bad]},
        )
        return bad

    async def _compute(self, work: Callable[[], T]) -> T:
        if self._backend.runs is Runs.LOOP:
            return work()
        return await asyncio.to_thread(work)
