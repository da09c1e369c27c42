"""The store over Redis: implements ``Store``, and what sharing and election need beside it."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeVar, cast

from aggregator.journal.format import Fence
from aggregator.ports import RowTaken
from aggregator.store.calls import Calls
from aggregator.store.connection import Refusal, texts
from aggregator.store.keys import LOG_LENGTH
from aggregator.store.primary import refused
from aggregator.store.readers import STEADY_SECONDS, Readers
from aggregator.store.records import (
    FORMAT,
    NOBODY,
    pack_entries,
    pack_row,
    pack_row_key,
    row_key,
    unpack_fence,
    unpack_news,
)
from aggregator.store.rows import Rows
from aligned.errors import StateDamaged
from aligned.model import BatchId, OperatorId, Signature

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from aggregator.outbox import OutboxRow
    from aggregator.store.connection import Argument, Reply
    from aggregator.store.discovery import Discovery
    from aggregator.store.primary import Link
    from aggregator.store.records import News
    from aligned.model import Entry, Identity, Term

logger = logging.getLogger(__name__)

_Sent = TypeVar("_Sent")

FORGET_MEMBER_SECONDS = 30.0
"""A replica that was silent for so long is no member."""

_OPERATOR_BYTES, _SIGNATURE_BYTES = 32, 64
NEW, _OTHER, _REFUTED = b"1", b"2", b"3"


class Member(NamedTuple):
    """A replica as it described itself in its last beat."""

    pod: str
    age: float
    """Seconds since then, by the primary's clock."""
    reads: int
    """The highest format it reads."""
    facts: bytes


class Beat(NamedTuple):
    """What a beat brings back."""

    fence: Fence
    members: tuple[Member, ...]


class Placed(NamedTuple):
    """What a merge found."""

    new: int
    """Entries that were not there."""
    refuted: tuple[Entry, ...]
    """Entries that were evicted before: they were not taken."""


class Swap(NamedTuple):
    """The record of the Redis election after a try to change it."""

    swapped: bool
    version: str
    """Empty: no record."""
    record: bytes


@dataclass(slots=True)
class Counted:
    """What happened since the start."""

    puts: int = 0
    entries: int = 0
    conflicts: int = 0
    """Two values for one signature: one of them is wrong."""


class RedisStore:
    """See ``Store``. For one event loop.

    Resource handling: ``aclose`` it.
    """

    def __init__(  # noqa: PLR0913  # the composition root's call; each is a fact of its own
        self,
        discovery: Discovery,
        identity: Identity,
        *,
        writer: str,
        fence: Fence = NOBODY,
        learned: Callable[[Fence], None] = lambda _: None,
        copies: int = 1,
        reads: int = FORMAT,
        steady: float = STEADY_SECONDS,
    ) -> None:
        """Prepare; nothing is connected yet.

        Args:
            discovery: Knows the primary.
            identity: Whose state it must be.
            writer: Unique to this start of this replica; marks what it wrote itself.
            fence: The highest one known, e.g. from the journal.
            learned: Gets every fence higher than those known before, to be journalled.
            copies: Replicas of the primary that must confirm a write; 0 only where it has none.
            reads: The highest format that this release reads.
            steady: Seconds that all replicas must read a format before the store's is raised.
        """
        self.writer = writer
        self._reads = reads
        self._readers = Readers(steady)
        self.format = 0
        """Of the store, when a term was confirmed last; 0 before."""
        self.counted = Counted()
        self._calls = Calls(
            discovery, identity, fence=fence, learned=learned, copies=copies, reads=reads
        )
        self.primary = self._calls.primary
        self._rows = Rows(self._calls.keys.outbox)

    @property
    def known_fence(self) -> Fence:
        """The highest fence this replica knows of. Memory only."""
        return self._calls.fence

    @property
    def is_outbox_readable(self) -> bool:
        """Every row could be read when the outbox was read last. Memory only."""
        return self._rows.are_readable

    # What any replica does.

    async def put(self, entries: Sequence[Entry]) -> None:
        await self.merge(entries)

    async def merge(self, entries: Sequence[Entry], rows: Sequence[OutboxRow] = ()) -> Placed:
        """Add entries, and rows that a failover may have lost; returns when confirmed.

        An entry is then in one of three states, each of them durable: it is new, it was there
        before, or it lies beside another value for the same signature. (One that was evicted
        before is not taken.)

        Raises:
            StoreUnavailable: Not confirmed in time. They may be stored all the same.
            StateMismatch: The store holds another deployment's state.
            StateDamaged: The script answered nonsense.
        """
        packed: list[Argument] = []
        for row in rows:
            packed += (pack_row_key(row_key(row)), pack_row(row))
        arguments = (self.writer, LOG_LENGTH, pack_entries(entries), *packed)
        states = await self._calls.write("put", *arguments)
        if not isinstance(states, bytes) or len(states) != len(entries) + len(rows):
            raise StateDamaged(f"the put script returned {states!r}")
        self.counted.puts += 1
        self.counted.entries += len(entries)
        of_entries, of_rows = states[: len(entries)], states[len(entries) :]
        if _OTHER in of_entries:
            self._tell_conflicts(_in_state(_OTHER, entries, of_entries))
        if _OTHER in of_rows:
            logger.error(
                "the store holds another transaction under the key of one that this replica "
                "knows; the stored one counts. Check whether someone else uses the signer's key",
                extra={"nonces": [row.nonce for row in _in_state(_OTHER, rows, of_rows)]},
            )
        refuted = _in_state(_REFUTED, entries, of_entries) if _REFUTED in of_entries else ()
        return Placed(of_entries.count(NEW), tuple(refuted))

    def _tell_conflicts(self, entries: Sequence[Entry]) -> None:
        self.counted.conflicts += len(entries)
        for entry in entries:
            logger.error(
                "the store holds another signature for this batch and operator; both are kept, "
                "and the leader evicts the wrong one before it answers. If this goes on, find "
                "out who else writes to this store",
                extra={"batch": entry.batch_id.hex(), "operator_id": entry.operator_id.hex()},
            )

    async def forget(self, batches: Sequence[BatchId]) -> None:
        if batches:
            await self._calls.run("forget", *batches)

    async def fence(self) -> Fence:
        """Read the fence; the highest one known if the primary forgot it.

        Raises:
            StoreUnavailable: No answer in time.
            StateMismatch: The store holds another deployment's state.
        """
        self._calls.learn(_fence_of(await self._calls.run("identity")))
        return self.known_fence

    async def beat(self, pod: str, facts: bytes) -> Beat:
        """Tell the others that this replica lives; return the fence and who else does.

        Raises:
            StoreUnavailable: No answer in time.
            StateMismatch: The store holds another deployment's state.
        """
        silent = int(1000 * FORGET_MEMBER_SECONDS)
        reply = await self._calls.run("beat", pod, facts, silent)
        self._calls.learn(_fence_of(reply))
        _, _, *flat = texts(reply)
        members = (
            Member(name.decode(), int(age) / 1000, int(reads), described)
            for name, age, reads, described in zip(*(flat[n::4] for n in range(4)), strict=True)
        )
        beat = Beat(self.known_fence, tuple(members))
        all_read = min((member.reads for member in beat.members), default=0)
        self._readers.see(all_read, self.primary.lineage.now, now=_now())
        return beat

    async def swap(self, version: str, next_version: str, record: bytes) -> Swap:
        """Compare and swap the record of the Redis election, or only read it.

        Args:
            version: The one last seen; empty: there was no record.
            next_version: Never used before; empty: read only.
            record: What to write.

        Raises:
            StoreUnavailable: No answer in time. It may have been swapped all the same.
            StateMismatch: The store holds another deployment's state.
            StateDamaged: The script answered nonsense.
        """
        match await self._calls.run("lock", version, next_version, record):
            case [int() as swapped, bytes() as now, bytes() as stored]:
                return Swap(swapped == 1, now.decode(), stored)
            case reply:
                raise StateDamaged(f"the lock script returned {reply!r}")

    # What a leader does.

    async def claim(self, term: Term, holder: str) -> Sequence[OutboxRow]:
        rows = await self._calls.write("claim", self.writer, LOG_LENGTH, term, holder)
        self._calls.learn(Fence(term, holder))
        return self._rows.read(texts(rows))

    async def confirm(self, term: Term, holder: str) -> None:
        """Make sure that (``term``, ``holder``) is the fence. Same errors as ``record``.

        Raises the store's format to the highest that all members have read for a while.
        """
        everybody = min(self._readers.agreed(now=_now()), self._reads)
        now = int(await self._fenced(term, holder, "confirm", everybody))
        if 0 < self.format < now:
            logger.info(
                "the store's format is raised: every replica reads it. Releases that do not read "
                "it cannot join any more",
                extra={"format": now},
            )
        self.format = now

    async def record(self, term: Term, holder: str, row: OutboxRow) -> None:
        try:
            await self._fenced(term, holder, "record", pack_row_key(row_key(row)), pack_row(row))
        except StateDamaged as damaged:
            raise RowTaken(str(damaged)) from damaged

    async def drop_rows(self, term: Term, holder: str, rows: Sequence[OutboxRow]) -> None:
        keys = b"".join(pack_row_key(row_key(row)) for row in rows)
        await self._fenced(term, holder, "drop", keys)

    async def evict(self, term: Term, holder: str, entries: Sequence[Entry]) -> None:
        await self._fenced(term, holder, "evict", pack_entries(entries))

    async def _fenced(self, term: Term, holder: str, what: str, *arguments: Argument) -> bytes:
        """Return what the script says. Same errors as ``record``."""
        arguments = (self.writer, LOG_LENGTH, term, holder, what, *arguments)
        reply = await self._calls.write("write", *arguments)
        return reply if isinstance(reply, bytes) else b""

    # What sharing reads. No replica confirms it.

    async def batch_ids(self) -> set[BatchId]:
        """Return the ids of all batches with signatures."""
        [ids] = await self._calls.read(("SMEMBERS", self._calls.keys.open))
        return {BatchId(batch_id) for batch_id in texts(ids)}

    async def signatures(
        self, batch_ids: Sequence[BatchId]
    ) -> dict[BatchId, dict[OperatorId, Signature]]:
        """Return what is stored for batches; an empty mapping where nothing is.

        Values that are no signature by their length are left out.
        """
        commands = [("HGETALL", self._calls.keys.batch(batch_id)) for batch_id in batch_ids]
        stored = {}
        for batch_id, reply in zip(batch_ids, await self._calls.read(*commands), strict=True):
            flat = texts(reply)
            stored[batch_id] = {
                OperatorId(operator_id): Signature(signature)
                for operator_id, signature in zip(flat[::2], flat[1::2], strict=True)
                if len(operator_id) == _OPERATOR_BYTES and len(signature) == _SIGNATURE_BYTES
            }
        return stored

    async def rows(self) -> list[OutboxRow]:
        """Return the outbox.

        Raises:
            OutboxUnreadable: A row cannot be read.
            StoreUnavailable: No answer in time.
        """
        [values] = await self._calls.read(("HVALS", self._calls.keys.outbox))
        return self._rows.read(texts(values))

    async def news(
        self, link: Link, after: bytes, *, limit: int, block_milliseconds: int
    ) -> tuple[bytes, list[News]]:
        """Read the stream; return the last position and what others wrote. Waits if there is none.

        Raises:
            StoreUnavailable: The connection is lost, or the server refuses.
        """
        streams = ("STREAMS", self._calls.keys.log, after)
        command = ("XREAD", "COUNT", limit, "BLOCK", block_milliseconds, *streams)
        [reply] = await link.exchange(command)
        if isinstance(reply, Refusal):
            error = refused(reply)
            raise error
        records = _stream(reply)
        found = []
        for _, flat in records:
            fields = dict(zip(flat[::2], flat[1::2], strict=True))
            if fields.get(b"by") != self.writer.encode():
                found += self._readable(fields)
        return (records[-1][0] if records else after), found

    def _readable(self, fields: Mapping[bytes, bytes]) -> list[News]:
        try:
            news = unpack_news(fields)
        except StateDamaged as damaged:
            logger.error(  # noqa: TRY400 - the text says all
                "a peer's record cannot be read and is skipped; the next union brings what it "
                "said. If this goes on, find out who else writes to this store",
                extra={"reason": str(damaged)},
            )
            return []
        self._calls.learn(news.fence)
        return [news]

    async def aclose(self) -> None:
        """Close what is open. Repeats are free."""
        await self._calls.aclose()


def _now() -> float:
    return asyncio.get_running_loop().time()


def _in_state(state: bytes, sent: Sequence[_Sent], states: bytes) -> list[_Sent]:
    return [each for each, one in zip(sent, states, strict=True) if one == state[0]]


def _fence_of(reply: Reply) -> Fence:
    """Return the fence that begins a reply.

    Raises:
        StateDamaged: It begins with something else.
    """
    match reply:
        case [bytes() as term, bytes() as holder, *_]:
            return unpack_fence(term, holder)
        case _:
            raise StateDamaged(f"a script returned {reply!r} for the fence")


def _stream(reply: Reply) -> list[tuple[bytes, list[bytes]]]:
    """Return position and fields of each record in an answer to XREAD of one stream."""
    match reply:
        case [[_, records]]:
            return cast("list[tuple[bytes, list[bytes]]]", records)
        case _:
            return []
