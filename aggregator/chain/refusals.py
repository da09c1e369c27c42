"""Why an answer cannot be sent, from what the chain says. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aggregator.chain import signer
from aggregator.chain.fees import OVERHEAD_GAS
from aggregator.outbox import Kind
from aggregator.parking import CannotSend, Reason
from aligned.chain.reverts import RevertKind, SendRefusal, revert_of, send_refusal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aggregator.chain.fees import Unaffordable
    from aggregator.outbox import OutboxRow, Survey
    from aligned.chain.reverts import Revert
    from aligned.chain.rpc import RpcError
    from aligned.model import Address, Batch, Wei

_REASONS = {
    RevertKind.ALREADY_ANSWERED: Reason.ANSWERED,
    RevertKind.UNKNOWN_BATCH: Reason.MOVED,
    RevertKind.TOO_EARLY: Reason.TOO_EARLY,
    RevertKind.FEE_LIMIT: Reason.FEE_LIMIT,
    RevertKind.BATCHER_FUNDS: Reason.BATCHER_FUNDS,
    RevertKind.NOT_AGGREGATOR: Reason.WRONG_AGGREGATOR,
    RevertKind.PAUSED: Reason.PAUSED,
    RevertKind.STALE_DATA: Reason.NO_QUORUM_DATA,
    RevertKind.BAD_SIGNATURE: Reason.NO_QUORUM_DATA,  # ours verified: the contract has other keys
    RevertKind.BELOW_THRESHOLD: Reason.NO_QUORUM_DATA,
    RevertKind.UNKNOWN: Reason.REVERT,
}

_SENDER = slice(4 + 32 + 12, 4 + 64)
"""The batcher in the call data of ``respondToTaskV2``: its second word."""


def reverted(revert: Revert) -> CannotSend:
    """Return why an answer is not sent that would revert, or did."""
    return CannotSend(_REASONS[revert.kind], revert.detail)


def refused(error: RpcError) -> CannotSend:
    """Return why a node did not estimate an answer."""
    words = error.message.lower()
    if send_refusal(error) is SendRefusal.NO_FUNDS or "exceeds allowance" in words:
        return CannotSend(Reason.OWN_FUNDS, error.message)
    return reverted(revert_of(error))


def too_dear(price: Unaffordable) -> CannotSend:
    """Return why an answer at this price is not sent."""
    detail = f"{_gwei(price.needed)} per gas is needed now, {_gwei(price.allowed)} is allowed"
    return CannotSend(Reason.FEE_LIMIT, detail)


def _gwei(fee: Wei) -> str:
    return f"{fee / 10**9:.9g} gwei"


def stands_in_the_way(survey: Survey, batch: Batch, account: Address) -> CannotSend | None:
    """Return what makes an answer pointless before it is simulated."""
    record = survey.record
    if record.created_block == 0:
        return CannotSend(Reason.MOVED, "the contract does not have the batch")
    if record.responded:
        return CannotSend(Reason.ANSWERED, "the contract has an answer")
    if record.created_block != batch.created.number:
        detail = f"in block {record.created_block} now, not in {batch.created.number}"
        return CannotSend(Reason.MOVED, detail)
    if survey.aggregator != account:
        return wrong_aggregator(survey.aggregator, account)
    return None


def wrong_aggregator(aggregator: Address, account: Address) -> CannotSend:
    """Return why ``account`` does not answer."""
    detail = f"the contract's aggregator is 0x{aggregator.hex()}, our account 0x{account.hex()}"
    return CannotSend(Reason.WRONG_AGGREGATOR, detail)


def batcher_lacks(
    survey: Survey, batch: Batch, in_flight: Iterable[OutboxRow]
) -> CannotSend | None:
    """Return why the batcher cannot pay: its deposit less what our other answers may take of it."""
    reserved = sum(
        row.max_fee * (row.gas + OVERHEAD_GAS)
        for row in in_flight
        if row.kind is Kind.ANSWER and row.batch_id != batch.batch_id and _pays(batch.sender, row)
    )
    needed = survey.record.fee_limit
    if survey.deposit - reserved >= needed:
        return None
    detail = (
        f"batcher 0x{batch.sender.hex()} has {survey.deposit} wei in the service manager, "
        f"{reserved} of it for answers under way, and needs {needed}"
    )
    # What others take passes by itself: nobody has to deposit for it.
    return CannotSend(Reason.BATCHER_FUNDS if survey.deposit < needed else Reason.BUSY, detail)


def _pays(sender: Address, row: OutboxRow) -> bool:
    return signer.decode(row.raw).data[_SENDER] == sender


def we_lack(
    survey: Survey, account: Address, needed: int, in_flight: Iterable[OutboxRow]
) -> CannotSend | None:
    """Return why our account cannot pay ``needed`` wei beside what is in flight."""
    reserved = sum(row.gas * row.max_fee for row in in_flight)
    if survey.balance - reserved >= needed:
        return None
    detail = (
        f"fund 0x{account.hex()}: it has {survey.balance} wei, {reserved} of it for transactions "
        f"under way, and needs {needed}"
    )
    return CannotSend(Reason.OWN_FUNDS, detail)


def somebody_else(detail: str) -> CannotSend:
    """Return why nothing is sent while another program uses our key."""
    return CannotSend(Reason.FOREIGN_NONCE, detail)
