"""Edge: operators' keys and stakes, from the registry contracts.

Keys come from registration events, which are append-only: the contract binds a key to an operator
once and for ever. Who is a member with which stake is asked for each reference block.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from aligned.bls.backend import BadKey
from aligned.chain import abi, blocks, calldata, events
from aligned.chain.logs import Filter, Logs
from aligned.chain.rpc import BlockMissing, RpcError, eth_call, pinned, to_bytes
from aligned.errors import ChainUnavailable
from aligned.model import BlockRef, OperatorSet, Stake

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from aligned.bls.backend import Backend, Key
    from aligned.chain.calldata import Indices
    from aligned.chain.deployment import Contracts
    from aligned.chain.events import Log
    from aligned.chain.rpc import Rpc
    from aligned.model import Address, BlockHash, Operator, OperatorId

    Save = Callable[[Sequence[Operator], BlockRef], Awaitable[None]]

logger = logging.getLogger(__name__)

REREAD: Final = 64
"""Blocks under the last head that every scan reads again."""
LOOK_UPS: Final = 16
"""Operators that one ``look_up`` asks for."""
_LOOK_UP_INTERVAL: Final = 1.0
"""Seconds between two of them: unknown ids are free to invent."""
_SEARCH_INTERVAL: Final = 300.0
"""Seconds between two searches of the whole chain for members of a quorum: a search reads as many
blocks as a first start."""
_SETS: Final = 256
"""Operator sets kept."""
_SAVE_BLOCKS: Final = 256
"""Progress worth a write of its own."""
_SAVE_INTERVAL: Final = 10.0
"""Seconds between writes during a long scan."""


class Registered(NamedTuple):
    """A registered operator with its decoded key."""

    operator: Operator
    key: Key


@dataclass(frozen=True, slots=True)
class Known:
    """What the journal knew of the registry."""

    operators: Sequence[Operator] = ()
    progress: BlockRef | None = None
    """Up to which ``operators`` is complete."""


class Registry:
    """``aggregator.ports.Registry`` over the chain. Used from one event loop."""

    def __init__(
        self,
        rpc: Rpc,
        contracts: Contracts,
        backend: Backend,
        save: Save,
        *,
        deployment_block: int,
        clock: Callable[[], float],
    ) -> None:
        self._rpc = rpc
        self._contracts = contracts
        self._backend = backend
        self._save = save
        self._deployment_block = deployment_block
        self._clock = clock
        self._logs = Logs(rpc, clock)
        self._operators: dict[OperatorId, Registered] = {}
        self._bad: set[OperatorId] = set()
        self._synced: BlockRef | None = None
        self._scanned: int | None = None
        """Registrations up to this block are in memory."""
        self._unsaved: list[Operator] = []
        self._saved: BlockRef | None = None
        self._sets: OrderedDict[BlockHash, OperatorSet] = OrderedDict()
        self._reading: dict[BlockHash, asyncio.Lock] = {}
        self._syncing = asyncio.Lock()
        self._looked_up_at = -_LOOK_UP_INTERVAL
        self._missed: set[OperatorId] = set()
        """Members that no scan has shown; still to be searched for."""
        self._searched_at = -_SEARCH_INTERVAL

    async def restore(self, known: Known) -> None:
        """Take what the journal knew; keys are decoded, which checks them."""
        await self._adopt(known.operators)
        self._unsaved.clear()
        if known.progress is not None:
            self._saved, self._scanned = known.progress, known.progress.number

    def operator(self, operator_id: OperatorId) -> Registered | None:
        """See ``aggregator.ports.Registry.operator``."""
        return self._operators.get(operator_id)

    def __len__(self) -> int:
        return len(self._operators)

    @property
    def synced(self) -> BlockRef | None:
        """See ``aggregator.ports.Registry.synced``."""
        return self._synced

    # Keys.

    async def sync(self, head: BlockRef) -> None:
        """Read registrations up to ``head``, and the last blocks again; search for who was missed.

        Errors leave what was read in place; the next call goes on from there.

        Raises:
            ChainUnavailable: No endpoint answers.
        """
        async with self._syncing:
            if self._synced == head:
                return
            wrote = self._clock()
            async for bite in self._logs.scan(self._filter(), self._first(head), head.number):
                await self._adopt(_operators(bite.logs))
                self._scanned = max(bite.last, self._scanned or 0)
                if bite.last < head.number and self._clock() - wrote > _SAVE_INTERVAL:
                    (header,) = await blocks.headers(self._rpc, [bite.last])
                    await self._write(header.ref)
                    wrote = self._clock()
            if self._synced is None or head.number >= self._synced.number:
                self._synced = head
            saved = self._saved
            if self._unsaved or saved is None or head.number - saved.number >= _SAVE_BLOCKS:
                await self._write(head)
            await self._search_missed()
            if self._unsaved:
                await self._write(head)

    def _filter(self, *more: tuple[bytes, ...]) -> Filter:
        topics = ((abi.NEW_PUBKEY_REGISTRATION,), *more)
        return Filter(self._contracts.bls_apk_registry, topics)

    def _first(self, head: BlockRef) -> int:
        if self._scanned is None:
            return self._deployment_block
        return max(min(self._scanned, head.number) + 1 - REREAD, self._deployment_block)

    async def _write(self, progress: BlockRef) -> None:
        new = tuple(self._unsaved)
        await self._save(new, progress)
        del self._unsaved[: len(new)]
        self._saved = progress

    async def _adopt(self, operators: Iterable[Operator]) -> None:
        """Decode keys on a thread and keep those that were new; they are still to be saved."""
        unknown = [
            operator
            for operator in operators
            if operator.operator_id not in self._operators and operator.operator_id not in self._bad
        ]
        if not unknown:
            return
        registered = await asyncio.to_thread(self._decode, unknown)
        for one in registered:
            if self._operators.setdefault(one.operator.operator_id, one) is one:
                self._unsaved.append(one.operator)

    def _decode(self, operators: Sequence[Operator]) -> list[Registered]:
        registered = []
        for operator in operators:
            try:
                registered.append(Registered(operator, self._backend.key(operator.g2)))
            except BadKey as bad:
                self._bad.add(operator.operator_id)
                logger.warning(
                    "operator left out: the registry holds no valid key of it. Its responses "
                    "cannot be checked; tell the operator",
                    extra={"operator": operator.operator_id.hex(), "reason": str(bad)},
                )
        return registered

    async def look_up(self, ids: Iterable[OperatorId]) -> Sequence[OperatorId]:
        """Search the chain for operators that no scan has shown yet; return who was searched for.

        At most ``LOOK_UPS`` of them, and nobody at all within a second of the last search: the
        scans find everything in the end. What is found is in ``operator`` afterwards.

        Raises:
            ChainUnavailable: No endpoint answers.
        """
        wanted = [i for i in dict.fromkeys(ids) if i not in self._operators][:LOOK_UPS]
        now = self._clock()
        if not wanted or now - self._looked_up_at < _LOOK_UP_INTERVAL:
            return ()
        self._looked_up_at = now
        await self._search(wanted)
        return wanted

    def miss(self, members: Iterable[OperatorId]) -> None:
        """Take note of members of a quorum whose registration no scan has shown.

        An endpoint left it out, and no scan comes back to its block: the next ``sync`` searches
        the whole chain for them, at most every five minutes.
        """
        self._missed.update(members)

    async def _search_missed(self) -> None:
        now = self._clock()
        wanted = sorted(self._missed.difference(self._operators, self._bad))
        if not wanted or now - self._searched_at < _SEARCH_INTERVAL:
            return
        self._searched_at = now
        await self._search(wanted)
        self._missed.clear()  # who was not found is missed again by the next attempt to answer
        found = [member.hex() for member in wanted if member in self._operators]
        if found:
            logger.warning(
                "registrations that an endpoint had left out were found by a search: batches of "
                "these operators are answered within minutes. See whether the endpoints' nodes are "
                "in sync",
                extra={"operators": found},
            )

    async def _search(self, wanted: Sequence[OperatorId]) -> None:
        """Search the chain for the registrations of these operators.

        Raises:
            ChainUnavailable: No endpoint answers.
        """
        addresses = [a for a in await self._addresses(wanted) if any(a)]
        if not addresses:
            return
        head = await blocks.latest(self._rpc)
        wanted_logs = self._filter(tuple(bytes(12) + address for address in addresses))
        # An operator too new for the scans registered a moment ago; an older one may be anywhere.
        for first in (max(head.number - REREAD, self._deployment_block), self._deployment_block):
            found = await self._logs.read(wanted_logs, first, head.number)
            await self._adopt(_operators(found))
            if len(found) >= len(addresses):
                break

    async def _addresses(self, ids: Sequence[OperatorId]) -> list[Address]:
        registry = self._contracts.bls_apk_registry
        answers = await self._rpc.call_many(
            [eth_call(registry, calldata.get_operator_from_pubkey_hash(i), "latest") for i in ids]
        )
        for answer in answers:
            if isinstance(answer, RpcError):  # silence about one would pass for "nobody"
                msg = f"the key registry does not answer: {answer}"
                raise ChainUnavailable(msg) from answer
        return [calldata.parse_address(to_bytes(answer)) for answer in answers]

    # Stakes.

    async def operators_at(self, block: BlockRef) -> OperatorSet:
        """See ``aggregator.ports.Registry.operators_at``."""
        known = self._cached(block)
        if known is not None:
            return known
        lock = self._reading.setdefault(block.hash, asyncio.Lock())
        try:
            async with lock:
                known = self._cached(block)
                if known is None:
                    known = await self._read_set(block)
                    self._sets[block.hash] = known
                    while len(self._sets) > _SETS:
                        self._sets.popitem(last=False)
                return known
        finally:
            if not lock.locked():
                self._reading.pop(block.hash, None)

    def _cached(self, block: BlockRef) -> OperatorSet | None:
        known = self._sets.get(block.hash)
        if known is not None:
            self._sets.move_to_end(block.hash)
        return known

    async def _read_set(self, block: BlockRef) -> OperatorSet:
        """Ask the batch's own state; if that is pruned, the histories in a recent one.

        Raises:
            BlockMissing: No endpoint has ``block`` in its chain.
            ChainUnavailable: No endpoint answers.
        """
        try:
            return await self._read_set_in(block, block)
        except BlockMissing:
            head = await blocks.latest(self._rpc)
            (canonical,) = await blocks.headers(self._rpc, [block.number])
            if canonical.hash != block.hash:
                msg = f"block {block.number} 0x{block.hash.hex()} is not in the chain any more"
                raise BlockMissing(msg) from None
            return await self._read_set_in(block, head.ref)

    async def _read_set_in(self, block: BlockRef, state: BlockRef) -> OperatorSet:
        """Return quorum 0 as of ``block``, from the contracts' histories in ``state``."""
        contracts = self._contracts
        number = block.number
        members, index = await self._reads(
            state,
            (
                contracts.operator_state_retriever,
                calldata.get_operator_state(contracts.registry_coordinator, number),
            ),
            (contracts.stake_registry, calldata.get_total_stake_indices(number)),
        )
        position = calldata.parse_total_stake_indices(index)
        (total,) = await self._reads(
            state, (contracts.stake_registry, calldata.get_total_stake(number, position))
        )
        return OperatorSet(
            block=block,
            stakes={m.operator_id: m.stake for m in calldata.parse_operator_state(members)},
            total=Stake(calldata.parse_uint(total)),
        )

    async def indices(
        self, created: BlockRef, non_signers: Sequence[OperatorId], *, at: BlockRef
    ) -> Indices:
        """Return where the histories hold the values of ``created``.

        Args:
            created: The batch's block.
            non_signers: Members at that block, strictly ascending.
            at: A block not before ``created`` whose state is asked, such as the head.

        Raises:
            RpcError: The contract refuses: not all are members.
            BlockMissing: No endpoint has ``at`` in its chain, with its state.
            ChainUnavailable: No endpoint answers.
        """
        contracts = self._contracts
        question = calldata.get_check_signatures_indices(
            contracts.registry_coordinator, created.number, non_signers
        )
        retriever = contracts.operator_state_retriever
        answer = await self._rpc.call(*eth_call(retriever, question, pinned(at.hash)))
        return calldata.parse_check_signatures_indices(to_bytes(answer))

    async def _reads(self, state: BlockRef, *questions: tuple[Address, bytes]) -> list[bytes]:
        """Return the answers of contracts in exactly this state, in one exchange.

        Raises:
            BlockMissing: No endpoint has ``state`` in its chain.
            ChainUnavailable: No endpoint answers, or a contract does not.
        """
        block = pinned(state.hash)
        answers = await self._rpc.call_many([eth_call(to, data, block) for to, data in questions])
        for answer in answers:
            if isinstance(answer, RpcError):
                msg = f"the registry as of block {state.number} cannot be read: {answer}"
                raise ChainUnavailable(msg) from answer
        return [to_bytes(answer) for answer in answers]


def _operators(logs: Sequence[Log]) -> list[Operator]:
    return [events.new_operator(log) for log in logs]
