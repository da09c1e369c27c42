"""Tells what became of transactions: log lines, counters, and why one reverted."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from aggregator.chain import refusals, signer
from aggregator.chain.nonces import Fate
from aggregator.parking import ADVICE, CannotSend, Reason
from aligned.chain.reverts import RevertKind
from aligned.errors import ChainUnavailable

if TYPE_CHECKING:
    from aggregator.chain.facts import Node
    from aggregator.chain.nonces import Slot
    from aggregator.chain.pen import Counters
    from aggregator.outbox import OutboxRow, Receipt

logger = logging.getLogger(__name__)


def tell(slot: Slot, counters: Counters) -> None:
    """Log and count the change of one nonce, once for each receipt."""
    row, receipt = slot.mined_row, slot.receipt
    if row is not None and receipt is not None:
        if receipt.hash not in slot.told:
            slot.told.add(receipt.hash)
            _tell_mined(row, receipt, slot, counters)
        return
    facts = {"nonce": slot.nonce, "batches": sorted({r.batch_id for r in slot.rows if r.batch_id})}
    match slot.fate:
        case Fate.FOREIGN:
            logger.error(
                "a nonce of our account was used by a transaction that is not in the outbox: "
                "another program may use this key; find and stop it",
                extra=facts,
            )
        case Fate.OPEN if slot.told:
            logger.warning(
                "a reorg undid a transaction: it is sent again; nothing is to do", extra=facts
            )
        case _:
            pass


def _tell_mined(row: OutboxRow, receipt: Receipt, slot: Slot, counters: Counters) -> None:
    if not slot.inherited:
        counters.gas_used += receipt.gas_used
        counters.fees_paid += receipt.gas_used * receipt.gas_price
        counters.mined += receipt.succeeded
        counters.reverted += not receipt.succeeded
    if receipt.succeeded:
        logger.info(
            "transaction mined",
            extra={
                "batch": row.batch_id,
                "nonce": row.nonce,
                "transaction": row.hash,
                "block": receipt.block.number,
                "gas": receipt.gas_used,
            },
        )


async def why(row: OutboxRow, receipt: Receipt, node: Node) -> CannotSend:
    """Log and return why a mined answer was undone: replayed one block before its own."""
    try:
        revert = await node.replay(signer.decode(row.raw), row.sender, receipt.block.number)
    except ChainUnavailable as away:
        problem = CannotSend(Reason.REVERT, f"mined and reverted; why cannot be had: {away}")
    else:
        problem = refusals.reverted(revert)
        if revert.kind is RevertKind.UNKNOWN:
            problem = CannotSend(Reason.REVERT, f"mined and reverted: {revert.detail}")
    logger.warning(
        "an answer was mined and reverted: its gas is lost and it is built anew; %s",
        ADVICE.get(problem.reason, "nothing is to do"),
        extra={
            "batch": row.batch_id,
            "nonce": row.nonce,
            "transaction": row.hash,
            "block": receipt.block.number,
            "gas": receipt.gas_used,
            "reason": problem.reason,
            "detail": problem.detail,
        },
    )
    return problem
