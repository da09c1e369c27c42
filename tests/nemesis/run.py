"""One run: starts everything, breaks things as planned, and has what was seen judged."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress
from pathlib import Path

import aiohttp

from devnet.replicas import Replica, status
from tests.nemesis import checks, history as records, witness
from tests.nemesis.crew import Crew
from tests.nemesis.history import History
from tests.nemesis.inflict import Nemesis
from tests.nemesis.judge import Outcome, bounds, judged
from tests.nemesis.plan import Plan, described
from tests.nemesis.show import Painter, Scene
from tests.nemesis.world import World, built, stop

LAST_SECONDS = 180.0
"""Patience for the last acknowledgements and answers after the last fault was mended."""

SPREAD_SECONDS = 60.0
"""Patience until every replica's journal has everything: they unite every ten."""

_LOOK_SECONDS = 0.25
_SHOW_SECONDS = 0.7


async def perform(plan: Plan, folder: Path, painter: Painter) -> Outcome:
    """Run ``plan`` and check what came of it; everything is written into ``folder``.

    Resource handling: everything that was started is stopped, also on failure.

    Raises:
        ChainFailed: There is no anvil, or it does not start.
        DaemonFailed: The replicas do not start.
        GroupFailed: There is no Redis or Valkey, or it does not start.
    """
    folder.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240  # nothing runs yet
    (folder / "plan.txt").write_text("\n".join([*described(plan), ""]))
    history = History()
    try:
        async with built(plan.options, folder, history) as world:
            await Run(plan, folder, world, painter).run()
    finally:
        records.write(history, folder / "history.jsonl")
    outcome = judged(history, plan.options, folder)
    (folder / "problems.txt").write_text("".join(f"{each}\n" for each in outcome.problems))
    return outcome


class Run:
    """What happens between the start and the end of everything."""

    def __init__(self, plan: Plan, folder: Path, world: World, painter: Painter) -> None:
        self._plan = plan
        self._folder = folder
        self._world = world
        self._history = world.history
        self._painter = painter
        self._scene = Scene(len(plan.steps))
        self._crew = Crew(world.network, plan.options, world.history)

    async def run(self) -> None:
        """Fill the history."""
        world = self._world
        self._painter.event("starting three replicas")
        leader = await world.begin()
        self._painter.event(f"{leader.name} leads; operators sign from now on")
        await self._crew.prepare(world.replicas.address)
        async with asyncio.TaskGroup() as tasks:
            lookers = [
                tasks.create_task(witness.watch_answers(world.network, self._history)),
                tasks.create_task(world.guard(), name="guard"),
                *(
                    tasks.create_task(
                        witness.read_stream(world.network, machine.port, self._history)
                    )
                    for machine in world.group.machines
                ),
            ]
            if self._painter.is_live:
                lookers.append(tasks.create_task(self._show(), name="show"))
            enough = asyncio.Event()
            crew = tasks.create_task(self._crew.post(self._plan.batches, enough), name="crew")
            await self._break()
            enough.set()
            await self._finish(crew)
            for each in (crew, *lookers):
                each.cancel()
        await self._stop()

    async def _break(self) -> None:
        nemesis = Nemesis(self._world, self._painter.event)
        for number, step in enumerate(self._plan.steps, start=1):
            await self._crew.posted(step.batch)
            self._scene.step = number
            if not await nemesis.inflict(number, step):
                self._painter.event("the rest of the plan is left out")
                return

    async def _finish(self, crew: asyncio.Task[None]) -> None:
        """Wait for what is still open, for as long as the promises leave time."""
        while len(self._history.posts) < self._plan.batches and not crew.done():  # noqa: ASYNC110  # tasks and other processes
            await asyncio.sleep(_LOOK_SECONDS)
        self._painter.event("waiting for the last answers")
        until = time.monotonic() + LAST_SECONDS
        while time.monotonic() < until and not (crew.done() and self._is_answered):  # noqa: ASYNC110  # the same
            await asyncio.sleep(_LOOK_SECONDS)
        self._history.ended = time.time()
        await witness.read_chain(self._world.network, self._history)
        await self._spread()

    @property
    def _is_answered(self) -> bool:
        return all(post.batch_id in self._history.seen_verified for post in self._history.posts)

    async def _spread(self) -> None:
        """Wait until every disk has what it must have."""
        until = time.monotonic() + SPREAD_SECONDS
        while time.monotonic() < until:
            await self._read_disks()
            if not checks.signatures(self._history, bounds(self._plan.options)).lost:
                return
            await asyncio.sleep(1.0)

    async def _read_disks(self) -> None:
        for replica in self._world.replicas.all:
            self._history.kept[replica.name] = await asyncio.to_thread(replica.kept)
        await witness.read_final(self._world.network, self._history)

    async def _stop(self) -> None:
        """Stop the replicas and take in what they wrote."""
        for replica in self._world.replicas.all:
            await self._keep_status(replica)
            self._world.down.add(replica.name)
            if problem := await stop(replica):
                self._history.unmended.append(problem)
        await self._read_disks()
        for replica in self._world.replicas.all:
            witness.read_log(replica, self._history)
            witness.read_outbox(replica, self._history)

    async def _keep_status(self, replica: Replica) -> None:
        with suppress(aiohttp.ClientError, TimeoutError):
            shown = json.dumps(await replica.daemon.status(), indent=1)
            (self._folder / f"{replica.name}.status.json").write_text(shown)

    # What is shown.

    async def _show(self) -> None:
        scene = self._scene
        while True:
            for replica in self._world.replicas.all:
                scene.replicas[replica.name] = await self._state(replica)
            scene.posted = len(self._history.posts)
            scene.answered = len(self._history.seen_verified)
            scene.delivering = self._crew.delivering
            scene.acknowledged = self._crew.acknowledged
            self._painter.refresh(scene)
            await asyncio.sleep(_SHOW_SECONDS)

    async def _state(self, replica: Replica) -> str:
        if replica.name in self._world.down:
            return "DOWN"
        role = await status(replica)
        if role["leads"]:
            return f"leads, term {role['term']}"
        return "stands by" if "stopping" in role else "does not answer"
