"""The exported form of a journal: JSON lines that any later release, and a person, can read.

::

    {"format": "aligned-aggregator-journal", "version": 1, "identity": {…}, "fence": [term, holder]}
    {"batch": "…", "height": 123, "signatures": {"<operator id>": "<signature>", …}}
    {"outbox": {…}}
    {"refuted": ["<batch>", "<operator id>", "<signature>"]}
    {"lines": 4711, "sha256": "…"}

Bytes are hex. The last line counts and hashes the others, so that a torn copy is noticed.
Operators and hints stay behind: the chain tells them again, and a place in the chain that was
copied to another node's view of it could be wrong.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aggregator.journal import format as layout
from aligned.model import BatchId, Entry, OperatorId, Signature

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from aggregator.journal.format import Fence, Json
    from aggregator.journal.reading import Loaded
    from aggregator.outbox import OutboxRow
    from aligned.model import Identity

NAME = "aligned-aggregator-journal"
VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What an export carries."""

    identity: Identity
    fence: Fence
    entries: Mapping[int, Sequence[Entry]]
    """By the chain's height when they came."""
    refuted: Sequence[Entry]
    outbox: Sequence[OutboxRow]


def write_lines(identity: Identity, loaded: Loaded) -> Iterator[bytes]:
    """Yield the lines of an export, each with its line feed."""
    digest = hashlib.sha256()
    count = 0
    for record in _records(identity, loaded):
        line = json.dumps(record).encode() + b"\n"
        digest.update(line)
        count += 1
        yield line
    yield json.dumps({"lines": count, "sha256": digest.hexdigest()}).encode() + b"\n"


def read_lines(lines: Iterable[bytes]) -> Exported:
    """Return what the lines of an export carry.

    Raises:
        KeyError: A field is missing.
        TypeError: A field is of another type.
        ValueError: Not an export, one of a later release, or not whole. The message says which.
    """
    records = _whole(list(lines))
    head = layout.parse_object(records[0]) if records else {}
    if head.get("format") != NAME:
        msg = "no export of a journal"
        raise ValueError(msg)
    if head["version"] != VERSION:
        msg = f"exported in format {head['version']}, this release reads {VERSION}"
        raise ValueError(msg)
    identity = head["identity"]
    if not isinstance(identity, dict):
        raise TypeError(identity)
    body = [layout.parse_object(line) for line in records[1:]]
    return Exported(
        identity=layout.decode_identity(identity),
        fence=layout.decode_fence(head["fence"]),
        entries=_read_signatures(body),
        refuted=[_read_refuted(record["refuted"]) for record in body if "refuted" in record],
        outbox=[_read_row(record["outbox"]) for record in body if "outbox" in record],
    )


def _records(identity: Identity, loaded: Loaded) -> Iterator[dict[str, Json]]:
    yield {
        "format": NAME,
        "version": VERSION,
        "identity": layout.encode_identity(identity),
        "fence": [loaded.fence.term, loaded.fence.holder],
    }
    for height, entries in loaded.entries.items():
        by_batch: dict[BatchId, dict[str, Json]] = {}
        for batch_id, operator_id, signature in entries:
            by_batch.setdefault(batch_id, {})[operator_id.hex()] = signature.hex()
        for batch_id, signatures in by_batch.items():
            yield {"batch": batch_id.hex(), "height": height, "signatures": signatures}
    for row in loaded.outbox:
        yield {"outbox": layout.encode_row(row)}
    for entry in loaded.refuted:
        yield {"refuted": [field.hex() for field in entry]}


def _whole(lines: list[bytes]) -> list[bytes]:
    """Return all lines but the last after checking them against it.

    Raises:
        ValueError: They do not fit.
    """
    *records, last = lines or [b"{}"]
    end = layout.parse_object(last)
    if end.get("lines") != len(records):
        msg = "torn: its last line does not count the others"
        raise ValueError(msg)
    if end.get("sha256") != hashlib.sha256(b"".join(records)).hexdigest():
        msg = "changed since it was written: its hash does not fit"
        raise ValueError(msg)
    return records


def _read_signatures(body: list[dict[str, Json]]) -> dict[int, list[Entry]]:
    by_height: dict[int, list[Entry]] = {}
    for record in body:
        if "signatures" not in record:
            continue
        signatures = record["signatures"]
        if not isinstance(signatures, dict):
            raise TypeError(signatures)
        batch_id = BatchId(layout.unhex(record["batch"]))
        by_height.setdefault(layout.whole(record["height"]), []).extend(
            Entry(batch_id, OperatorId(bytes.fromhex(operator)), Signature(layout.unhex(signature)))
            for operator, signature in signatures.items()
        )
    return by_height


def _read_refuted(value: Json) -> Entry:
    if not isinstance(value, list):
        raise TypeError(value)
    batch_id, operator_id, signature = map(layout.unhex, value)
    return Entry(BatchId(batch_id), OperatorId(operator_id), Signature(signature))


def _read_row(value: Json) -> OutboxRow:
    if not isinstance(value, dict):
        raise TypeError(value)
    return layout.decode_row(value)
