"""The world outside the cluster: a chain, its batches, and operators who sign them.

It runs in a thread and loop of its own on this machine, so that it goes on whatever a test waits
for. Operators dial the nodes' NodePorts through a load balancer.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import threading
import time
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, TypeVar

from aligned.model import BatchId, batch_id
from aligned.wire.netrpc import CLIENT_FIRST_ID
from devnet.anvil import Anvil
from devnet.balancer import Balancer
from devnet.batcher import Batcher
from devnet.network import ETHER, Deployment, Network
from devnet.operator import Operator, Seen
from tests.nemesis import checks, witness
from tests.nemesis.checks import Bounds
from tests.nemesis.crew import RETRIES, Recorder
from tests.nemesis.history import History, Post

OPERATORS = 4
NEEDED = 3
"""Of equal stake, for 67 %."""

WINDOW_SECONDS = 4.0
"""The leader's wait for late signatures."""

BOUNDS = Bounds(needed=NEEDED, window=WINDOW_SECONDS, slack=7.0, call=75.0)

PACE_SECONDS = 1.5
"""Between batches."""

SETTLE_SECONDS = 240.0
START_SECONDS = 120.0

_VANISHED_SECONDS = 4.0
"""After which the load balancer gives up a node that does not answer a connection."""

_BLOCK_SECONDS = 1.0
_DEPOSIT = 5_000 * ETHER
_LOOK_SECONDS = 0.2

_Result = TypeVar("_Result")


class NotSettled(AssertionError):
    """Batches are not answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gaps:
    """What a client noticed, in seconds."""

    acknowledgement: float
    """Longest time without any acknowledged signature."""
    signature: float
    """Longest time from an operator's first try to its acknowledgement."""
    batch: float
    """Longest time from posting to being seen verified."""
    batches: int


class Held:
    """A batch that two operators have signed, one less than it needs; a third signs it later."""

    def __init__(self, seen: Seen) -> None:
        self.seen = seen

    @property
    def batch_id(self) -> BatchId:
        return self.seen.batch_id


class Traffic:
    """Everything outside. ``start`` it, ``connect`` it, ``close`` it."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._started = threading.Event()
        self._trouble: BaseException | None = None
        self._thread = threading.Thread(target=self._live, name="traffic", daemon=True)
        self._numbers = itertools.count(1)
        self._held: set[BatchId] = set()
        self._posting = True
        self.history = History()

    # From tests.

    def start(self) -> None:
        """Return when the chain serves and the contracts are on it."""
        self._thread.start()
        assert self._started.wait(START_SECONDS), "the chain does not start"
        self.check()

    def close(self) -> None:
        if self._loop is not None and self._stop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(START_SECONDS)
        self.check()

    def check(self) -> None:
        """Raise what ended the world."""
        if self._trouble is not None:
            raise AssertionError("the traffic ended by itself") from self._trouble

    @property
    def endpoint(self) -> str:
        """The chain's URL, for pods."""
        return self._network.anvil.url

    @property
    def deployment(self) -> Deployment:
        return self._network.deployment

    def connect(self, backends: Sequence[tuple[str, int]]) -> None:
        """Have operators dial ``backends``, host and port each, and batches be posted."""
        self._do(self._connect(backends))

    def hold(self) -> Held:
        """Post a batch and have two operators sign it; return when both are acknowledged."""
        return self._do(self._hold())

    def complete(self, held: Held) -> None:
        """Have a third operator sign; if the first two signatures are kept, that is enough."""
        self._do(self._sign(self._operators[2:NEEDED], held.seen))
        self._held.discard(held.batch_id)

    def flow(self, batches: int = 3) -> None:
        """Wait until so many batches more have been posted and answered, and every one before."""
        wanted = len(self.history.posts) + batches

        def is_answered() -> bool:
            still = {post.number for post in self._open}
            is_posted = len(self.history.posts) >= wanted
            return is_posted and not any(number <= wanted for number in still)

        self._until(is_answered, f"{batches} batches more are answered")

    def problems(self) -> tuple[str, ...]:
        """Post no more for a moment, wait until every batch is answered but those held, and judge.

        Returns:
            What is wrong: batches not answered once, signatures lost.
        """
        self._posting = False
        try:
            self._do(self._posted())
            self._until(lambda: not self._open, "an answer to every batch")
            history = self._do(self._judged())
        finally:
            self._posting = True
        answers = checks.answered_once(history)
        signatures = checks.signatures(history, BOUNDS)
        return (*answers.problems, *signatures.problems)

    def gaps(self, since: float) -> Gaps:
        """What clients noticed since a moment of the epoch."""
        calls = [each for each in self.history.calls if each.opened >= since]
        good = [each.ended for each in calls if each.code == 0 and each.ended is not None]
        first: dict[tuple[bytes, bytes], float] = {}
        waits = [0.0]
        for call in calls:
            pair = call.batch_id, call.operator_id
            opened = first.setdefault(pair, call.opened)
            if call.code == 0 and call.ended is not None:
                waits.append(call.ended - opened)
        posts = [each for each in self.history.posts if each.at >= since]
        seen = self.history.seen_verified
        verified = [seen[each.batch_id] - each.at for each in posts if each.batch_id in seen]
        return Gaps(
            acknowledgement=max(
                (after - before for before, after in pairwise([since, *sorted(good)])), default=0.0
            ),
            signature=max(waits),
            batch=max(verified, default=0.0),
            batches=len(posts),
        )

    @property
    def _open(self) -> list[Post]:
        seen = self.history.seen_verified
        posts = list(self.history.posts)
        return [p for p in posts if p.batch_id not in seen and p.batch_id not in self._held]

    def _until(self, holds: Any, what: str) -> None:
        deadline = time.monotonic() + SETTLE_SECONDS
        while not holds():
            self.check()
            if time.monotonic() > deadline:
                numbers = [post.number for post in self._open]
                raise NotSettled(f"not within {SETTLE_SECONDS:g} s: {what}; open are {numbers}")
            self._thread.join(_LOOK_SECONDS)

    def _do(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        self.check()
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(SETTLE_SECONDS)

    # In the thread.

    def _live(self) -> None:
        try:
            with asyncio.Runner() as runner:
                runner.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - whoever waits raises it
            self._trouble = error
        finally:
            self._started.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        async with AsyncExitStack() as stack:
            anvil = Anvil(block_seconds=_BLOCK_SECONDS, host=self._host)
            await stack.enter_async_context(anvil)
            self._network = await Network.deploy(anvil, stakes=(100,) * OPERATORS)
            self._batcher = Batcher(self._network)
            self._sending = asyncio.Lock()  # one nonce after the other
            await self._batcher.deposit(_DEPOSIT)
            self._edges = stack
            self._operators: tuple[Operator, ...] = ()
            stack.callback(self._hang_up)
            await self._work(self._stop)

    async def _work(self, stop: asyncio.Event) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                tasks.create_task(witness.watch_answers(self._network, self.history))
                tasks.create_task(_end(stop))
                self._started.set()
        except* _Over:
            pass

    def _hang_up(self) -> None:
        for operator in self._operators:
            operator.close()

    async def _connect(self, backends: Sequence[tuple[str, int]]) -> None:
        balancer = Balancer(backends, vanished_seconds=_VANISHED_SECONDS)
        await self._edges.enter_async_context(balancer)
        self._operators = tuple(
            Operator(
                key,
                Recorder(balancer.address, CLIENT_FIRST_ID - index % 2, self.history),
                retries=RETRIES,
            )
            for index, key in enumerate(self._network.operators)
        )
        for operator in self._operators:
            with suppress(OSError):  # they dial again when they have something to say
                await operator.client.connect()
        self._tasks.create_task(self._post_batches(), name="batches")

    async def _post_batches(self) -> None:
        while True:
            if self._posting:
                seen = await self._post()
                self._tasks.create_task(self._sign(self._operators, seen))
            await asyncio.sleep(PACE_SECONDS)

    async def _post(self) -> Seen:
        root = secrets.token_bytes(32)
        async with self._sending:
            await self._batcher.post(root)
        batch = batch_id(root, self._batcher.account)
        self.history.posts.append(Post(next(self._numbers), batch, time.time()))
        return Seen(root, self._batcher.account)

    async def _posted(self) -> None:
        """Return when no batch is on its way."""
        async with self._sending:
            pass

    async def _hold(self) -> Held:
        root = secrets.token_bytes(32)
        self._held.add(batch_id(root, self._batcher.account))
        async with self._sending:
            await self._batcher.post(root)
        held = Held(Seen(root, self._batcher.account))
        self.history.posts.append(Post(next(self._numbers), held.batch_id, time.time()))
        await self._sign(self._operators[:2], held.seen)
        return held

    async def _sign(self, operators: Sequence[Operator], seen: Seen) -> None:
        async with asyncio.TaskGroup() as tasks:
            for operator in operators:
                tasks.create_task(operator.answer(seen))

    async def _judged(self) -> History:
        """What was seen so far with what the chain says now, without batches that are held."""
        posts = [post for post in self.history.posts if post.batch_id not in self._held]
        calls = [call for call in self.history.calls if call.batch_id not in self._held]
        history = replace(self.history, posts=posts, calls=calls, mined=[], verified={})
        await witness.read_chain(self._network, history)
        await witness.read_final(self._network, history)
        return history


class _Over(Exception):
    """Ends the group's tasks: the world is closed."""


async def _end(stop: asyncio.Event) -> None:
    await stop.wait()
    raise _Over
