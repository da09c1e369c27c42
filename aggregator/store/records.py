"""What values in Redis look like: pure.

Entries are 128 bytes, batch id ‖ operator id ‖ signature, and concatenated without separators.
An outbox row is its transaction's hash, 32 bytes, then JSON; rows are the same if their hashes
are, so a later release may add fields without making yesterday's rows look different.

What the release before does not read needs a new format: replicas announce the highest they read,
and the leader raises the store's when all of them read it. Until then the old one is written.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from aggregator.journal.format import Fence, whole
from aggregator.outbox import Kind, OutboxRow
from aligned.errors import StateDamaged
from aligned.model import (
    Address,
    BatchId,
    BlockHash,
    BlockRef,
    Entry,
    OperatorId,
    Signature,
    Term,
    TransactionHash,
    Wei,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aligned.model import Identity

FORMAT = 1
"""The highest that this release reads. A store of a higher one is refused."""

ENTRY_BYTES = 128
_ENTRY = struct.Struct("32s32s64s")
_ROW_KEY = struct.Struct(">20sQI")
_HASH_BYTES = 32

NOBODY = Fence(Term(0), "")
"""The fence before the first term."""


class RowKey(NamedTuple):
    """What identifies an outbox row."""

    sender: Address
    nonce: int
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """One record of the stream: what one write changed. Usually one field is filled."""

    entries: tuple[Entry, ...] = ()
    rows: tuple[OutboxRow, ...] = ()
    dropped: tuple[RowKey, ...] = ()
    """Rows that are not needed any more."""
    evicted: tuple[Entry, ...] = ()
    """Entries found bad."""
    fence: Fence = NOBODY
    """A term that began."""


def identity_text(identity: Identity) -> bytes:
    """Return the identity as a person reads it; equal texts are equal identities."""
    return (
        f"chain {identity.chain_id}, genesis 0x{identity.genesis_hash.hex()}, "
        f"service manager 0x{identity.service_manager.hex()}, "
        f"deployment block 0x{identity.deployment_hash.hex()}"
    ).encode()


def pack_entries(entries: Iterable[Entry]) -> bytes:
    """Return entries one after the other, 128 bytes each."""
    return b"".join([part for entry in entries for part in entry])


def unpack_entries(packed: bytes) -> tuple[Entry, ...]:
    """Reverse ``pack_entries``.

    Raises:
        StateDamaged: Not a whole number of entries.
    """
    if len(packed) % ENTRY_BYTES:
        msg = f"a record of {len(packed)} bytes in the shared store is no list of signatures"
        raise StateDamaged(msg)
    return tuple(
        Entry(BatchId(batch_id), OperatorId(operator_id), Signature(signature))
        for batch_id, operator_id, signature in _ENTRY.iter_unpack(packed)
    )


def row_key(row: OutboxRow) -> RowKey:
    """Return what identifies ``row``."""
    return RowKey(row.sender, row.nonce, row.attempt)


def pack_row_key(key: RowKey) -> bytes:
    """Return the field of a row in the outbox, 32 bytes: sender ‖ nonce ‖ attempt."""
    return _ROW_KEY.pack(*key)


def unpack_row_key(field: bytes) -> RowKey:
    """Reverse ``pack_row_key``.

    Raises:
        StateDamaged: Not 32 bytes.
    """
    if len(field) != _ROW_KEY.size:
        msg = f"the outbox of the shared store has a field of {len(field)} bytes"
        raise StateDamaged(msg)
    sender, nonce, attempt = _ROW_KEY.unpack(field)
    return RowKey(Address(sender), nonce, attempt)


def pack_row(row: OutboxRow) -> bytes:
    """Return the value of a row: 32 bytes of hash, then JSON."""
    fields = {
        "sender": row.sender.hex(),
        "nonce": row.nonce,
        "attempt": row.attempt,
        "kind": row.kind.value,
        "batch": None if row.batch_id is None else row.batch_id.hex(),
        "created": None if row.created is None else [row.created.number, row.created.hash.hex()],
        "raw": row.raw.hex(),
        "gas": row.gas,
        "max_fee": row.max_fee,
        "max_priority_fee": row.max_priority_fee,
        "term": row.term,
    }
    return row.hash + json.dumps(fields, separators=(",", ":")).encode()


def unpack_row(value: bytes) -> OutboxRow:
    """Reverse ``pack_row``; fields of later releases are ignored.

    Raises:
        StateDamaged: Not a row.
    """
    try:
        fields = json.loads(value[_HASH_BYTES:])
        batch_id, created = fields["batch"], fields["created"]
        return OutboxRow(
            sender=Address(bytes.fromhex(fields["sender"])),
            nonce=whole(fields["nonce"]),
            attempt=whole(fields["attempt"]),
            kind=Kind(fields["kind"]),
            batch_id=None if batch_id is None else BatchId(bytes.fromhex(batch_id)),
            created=None
            if created is None
            else BlockRef(whole(created[0]), BlockHash(bytes.fromhex(created[1]))),
            raw=bytes.fromhex(fields["raw"]),
            hash=TransactionHash(value[:_HASH_BYTES]),
            gas=whole(fields["gas"]),
            max_fee=Wei(whole(fields["max_fee"])),
            max_priority_fee=Wei(whole(fields["max_priority_fee"])),
            term=Term(whole(fields["term"])),
        )
    except (ValueError, KeyError, TypeError, IndexError) as error:
        msg = f"{value[:_HASH_BYTES].hex()} in the outbox of the shared store is no row: {error!r}"
        raise StateDamaged(msg) from error


def unpack_fence(term: bytes, holder: bytes) -> Fence:
    """Return the fence of its two values.

    Raises:
        StateDamaged: The term is no number.
    """
    try:
        return Fence(Term(int(term)), holder.decode())
    except ValueError as error:
        msg = f"the fence of the shared store is not a term and a name: {term!r}, {holder!r}"
        raise StateDamaged(msg) from error


def unpack_news(fields: Mapping[bytes, bytes]) -> News:
    """Return what a record of the stream says; fields of later releases are ignored.

    Raises:
        StateDamaged: A field cannot be read.
    """
    term, _, holder = fields.get(b"fence", b"0 ").partition(b" ")
    row, dropped = fields.get(b"row"), fields.get(b"dropped", b"")
    size = _ROW_KEY.size
    return News(
        entries=unpack_entries(fields.get(b"entries", b"")),
        rows=() if row is None else (unpack_row(row),),
        dropped=tuple(
            unpack_row_key(dropped[start : start + size]) for start in range(0, len(dropped), size)
        ),
        evicted=unpack_entries(fields.get(b"evicted", b"")),
        fence=unpack_fence(term, holder),
    )
