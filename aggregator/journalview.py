"""How ``aggregator journal inspect`` shows a journal."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from aggregator.units import format_address, format_fee
from aligned.telemetry.plain import plain

if TYPE_CHECKING:
    from aggregator.journal.inspect import Summary
    from aggregator.outbox import OutboxRow


def described(summary: Summary) -> dict[str, object]:
    """Return the summary as JSON can hold it; transactions without their bytes."""
    facts = cast("dict[str, object]", plain(summary))
    facts["signatures"] = summary.signatures
    if summary.identity is not None:
        identity = cast("dict[str, object]", plain(summary.identity))
        identity["service_manager"] = format_address(summary.identity.service_manager)
        facts["identity"] = identity
    facts["outbox"] = [_row(row) for row in summary.outbox]
    return facts


def as_text(summary: Summary) -> str:
    """Return the summary for a person; lines of batches and transactions are indented."""
    identity = summary.identity
    registry = summary.registry
    lines = [
        f"journal      {summary.path}, format {summary.version}, {summary.size} bytes",
        "deployment   "
        + (
            "none: no aggregator has used it yet"
            if identity is None
            else f"{format_address(identity.service_manager)} on chain {identity.chain_id}"
        ),
        f"operators    {summary.operators}"
        + (f", complete to block {registry.number}" if registry else ""),
        f"term         {summary.fence.term} of {summary.fence.holder or 'nobody'}",
        f"signatures   {summary.signatures} for {len(summary.batches)} batches",
        *(f"  0x{batch.hex()}  {count}" for batch, count in summary.batches.items()),
        f"refuted      {summary.refuted}",
        f"transactions {len(summary.outbox)}",
        *(f"  {_line(row)}" for row in summary.outbox),
    ]
    if summary.moved is not None:
        lines.append(f"moved        to {summary.moved}: `aggregator run` refuses this journal")
    return "\n".join(lines)


def _row(row: OutboxRow) -> dict[str, object]:
    facts = cast("dict[str, object]", plain(row))
    del facts["raw"]
    facts["sender"] = format_address(row.sender)
    return facts


def _line(row: OutboxRow) -> str:
    batch = f" for 0x{row.batch_id.hex()}" if row.batch_id is not None else ""
    return (
        f"nonce {row.nonce}.{row.attempt} {row.kind}{batch}, at most {format_fee(row.max_fee)},"
        f" 0x{row.hash.hex()}"
    )
