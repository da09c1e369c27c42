"""Carries out the steps of a plan: breaks, waits, mends, and waits until all is well again."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable

from devnet.replicas import Replica
from devnet.sentinel import GroupFailed
from tests.nemesis.history import Struck
from tests.nemesis.plan import Fault, Kind, Step, Target
from tests.nemesis.snapshot import restart_with_snapshot, take_snapshot
from tests.nemesis.world import CHAIN, REDIS, World, stop

_LEADER_SECONDS = 10.0
"""Patience for somebody to lead before a fault that wants the leader takes anybody."""

_PERSISTED_SECONDS = 15.0
"""Patience for the leader to write an answer down."""

_SUCCESSOR_SECONDS = 60.0
"""Patience for Sentinels to make another server the primary."""

_DROP_SECONDS = 0.3
"""For the wires to break what a dead replica left in them."""

_LOOK_SECONDS = 0.02

Say = Callable[[str], None]


class Nemesis:
    """Breaks things."""

    def __init__(self, world: World, say: Say) -> None:
        self._world = world
        self._say = say
        self._step = 0
        self._ways: dict[Kind, Callable[[Fault], Awaitable[None]]] = {
            Kind.KILL: self._kill,
            Kind.TERM: self._term,
            Kind.STOP: self._stop,
            Kind.WIPE: self._wipe,
            Kind.KILL_PERSISTED: self._kill_persisted,
            Kind.NO_REDIS: self._no_redis,
            Kind.NO_CHAIN: self._no_chain,
            Kind.REDIS_KILL: self._redis_kill,
            Kind.REDIS_PAUSE: self._redis_pause,
            Kind.REDIS_EMPTY: self._redis_empty,
            Kind.REDIS_OLD: self._redis_old,
            Kind.REDIS_ALL: self._redis_all,
            Kind.REDIS_GONE: self._redis_gone,
            Kind.REDIS_FAILOVER: self._redis_failover,
            Kind.REDIS_SCRIPTS: self._redis_scripts,
        }

    async def inflict(self, number: int, step: Step) -> bool:
        """Carry out a step; tell whether everything came right again."""
        self._step = number
        problem = ""
        try:
            async with asyncio.TaskGroup() as faults:
                for fault in step.faults:
                    faults.create_task(self._one(fault), name=f"{fault.kind}")
        except* GroupFailed as failed:
            problem = f"Redis: {failed.exceptions[0]}"
        began = time.monotonic()
        if problem := problem or await self._world.settled():
            self._world.history.unmended.append(f"after step {number}: {problem}")
            self._tell(f"not well again: {problem}")
        else:
            self._tell(f"all is well again {time.monotonic() - began:.1f} s after the last mending")
        kinds = tuple(fault.kind.value for fault in step.faults)
        self._world.history.struck.append(Struck(number, "over", time.time(), kinds))
        return not problem

    async def _one(self, fault: Fault) -> None:
        await asyncio.sleep(fault.after)
        await self._ways[fault.kind](fault)

    def _tell(self, text: str) -> None:
        self._world.history.struck.append(Struck(self._step, text, time.time()))
        self._say(f"step {self._step}: {text}")

    # Aggregators.

    async def _target(self, fault: Fault) -> Replica:
        try:
            async with asyncio.timeout(_LEADER_SECONDS):
                while (leader := await self._world.leader()) is None:  # noqa: ASYNC110  # other processes set no event
                    await asyncio.sleep(_LOOK_SECONDS)
        except TimeoutError:
            self._tell("nobody leads: anybody will do")
            leader = None
        running = [one for one in self._world.replicas.all if one.name not in self._world.down]
        if leader is not None and fault.target is Target.LEADER:
            return leader
        others = [replica for replica in running if replica is not leader]
        return others[fault.pick % len(others)]

    async def _kill(self, fault: Fault) -> None:
        replica = await self._target(fault)
        await self._kill_one(replica, fault, f"SIGKILL {fault.target}, {replica.name}")

    async def _kill_one(self, replica: Replica, fault: Fault, told: str) -> None:
        self._world.down.add(replica.name)
        self._tell(told)
        replica.daemon.kill()
        await asyncio.sleep(fault.seconds)
        self._restart(replica)

    def _restart(self, replica: Replica) -> None:
        self._tell(f"{replica.name} is started again")
        self._world.start(replica)

    async def _term(self, fault: Fault) -> None:
        replica = await self._target(fault)
        self._world.down.add(replica.name)
        self._tell(f"SIGTERM {fault.target}, {replica.name}")
        await self._terminate(replica)
        await asyncio.sleep(fault.seconds)
        self._restart(replica)

    async def _terminate(self, replica: Replica) -> None:
        if problem := await stop(replica):
            self._world.history.unmended.append(problem)

    async def _stop(self, fault: Fault) -> None:
        replica = await self._target(fault)
        self._world.down.add(replica.name)
        self._tell(f"SIGSTOP {fault.target}, {replica.name}")
        replica.daemon.signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            replica.daemon.signal(signal.SIGCONT)
            self._world.down.discard(replica.name)
        self._tell(f"SIGCONT {replica.name}")

    async def _wipe(self, fault: Fault) -> None:
        replica = await self._target(fault)
        self._world.down.add(replica.name)
        self._tell(f"end {fault.target}, {replica.name}, and delete its journal")
        if fault.pick % 2:
            await self._terminate(replica)
        else:
            replica.daemon.kill()
        for file in replica.journal.parent.glob(f"{replica.journal.name}*"):
            file.unlink()
        await asyncio.sleep(fault.seconds)
        self._restart(replica)

    async def _kill_persisted(self, fault: Fault) -> None:
        replica = await self._target(fault)
        gate = self._world.gates[replica.name]
        gate.caught, gate.holds_sends = False, True
        try:
            async with asyncio.timeout(_PERSISTED_SECONDS):
                while not gate.caught:  # noqa: ASYNC110  # another thread's
                    await asyncio.sleep(_LOOK_SECONDS)
            told = f"SIGKILL {replica.name}: its answer is written down and not sent"
        except TimeoutError:
            told = f"SIGKILL {replica.name}: it sent nothing for {_PERSISTED_SECONDS:g} s"
        self._world.down.add(replica.name)
        replica.daemon.kill()
        gate.refuses = True  # what was kept back is never sent
        await asyncio.sleep(_DROP_SECONDS)
        gate.refuses = gate.holds_sends = False
        await self._kill_one(replica, fault, told)

    async def _no_redis(self, fault: Fault) -> None:
        replica = await self._target(fault)
        self._tell(f"{fault.target}, {replica.name}, is cut off from Redis")
        self._world.cut_off(replica, REDIS)
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            self._world.reconnect()
        self._tell(f"{replica.name} has Redis again")

    async def _no_chain(self, fault: Fault) -> None:
        replica = await self._target(fault)
        gate = self._world.gates[replica.name]
        if fault.pick % 2:
            self._tell(f"the chain is silent to {fault.target}, {replica.name}")
            self._world.cut_off(replica, CHAIN)
        else:
            self._tell(f"the chain refuses {fault.target}, {replica.name}")
            gate.refuses = True
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            gate.refuses = False
            self._world.reconnect()
        self._tell(f"{replica.name} has the chain again")

    # Redis.

    async def _server(self, fault: Fault) -> int:
        group = self._world.group
        primary = await self._world.redis(group.primary)
        if fault.target is Target.PRIMARY:
            return primary
        others = [machine.index for machine in group.machines if machine.index != primary]
        return others[fault.pick % len(others)]

    async def _redis_kill(self, fault: Fault) -> None:
        index = await self._server(fault)
        group = self._world.group
        self._tell(f"SIGKILL {fault.target}, server {index}")
        await self._world.redis(lambda: group.kill(index))
        await asyncio.sleep(fault.seconds)
        primary = await self._successor(index)
        await self._world.redis(lambda: group.start_server(index, primary=primary))
        self._tell(f"server {index} is back, empty, as a replica of server {primary}")

    async def _successor(self, index: int) -> int:
        """Wait until another server than ``index`` is the primary; return which one is."""
        until = time.monotonic() + _SUCCESSOR_SECONDS
        while (primary := await self._world.redis(self._world.group.primary)) == index:
            if time.monotonic() > until:
                self._tell(f"no primary but server {index} after {_SUCCESSOR_SECONDS:g} s")
                break
            await asyncio.sleep(_LOOK_SECONDS)
        return primary

    async def _redis_pause(self, fault: Fault) -> None:
        index = await self._server(fault)
        group = self._world.group
        self._tell(f"SIGSTOP {fault.target}, server {index}")
        await self._world.redis(lambda: group.pause(index))
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            await self._world.redis(lambda: group.resume(index))
        self._tell(f"SIGCONT server {index}")

    async def _redis_empty(self, fault: Fault) -> None:
        index = await self._server(fault)
        await self._world.redis(lambda: self._world.group.restart(index))
        self._tell(f"the primary, server {index}, was restarted and is empty")

    async def _redis_old(self, fault: Fault) -> None:
        index = await self._server(fault)
        await self._world.redis(lambda: take_snapshot(self._world.group, index))
        await asyncio.sleep(fault.seconds)
        await self._world.redis(lambda: restart_with_snapshot(self._world.group, index))
        self._tell(
            f"the primary, server {index}, was restarted as it was {fault.seconds:g} s before"
        )

    async def _redis_all(self, fault: Fault) -> None:
        del fault
        await self._world.redis(self._restart_servers)
        self._tell("all Redis servers were restarted and are empty")

    def _restart_servers(self) -> None:
        group = self._world.group
        primary = group.primary()
        others = [machine.index for machine in group.machines if machine.index != primary]
        for index in (*others, primary):  # a primary without replicas stays the primary
            group.kill(index)
        for index in (primary, *others):
            group.start_server(index, primary=primary)

    async def _redis_gone(self, fault: Fault) -> None:
        group = self._world.group
        self._tell(f"SIGSTOP {fault.target}")
        try:
            for machine in group.machines:
                group.pause(machine.index)
            await asyncio.sleep(fault.seconds)
        finally:
            for machine in group.machines:
                group.resume(machine.index)
        self._tell("SIGCONT all servers")

    async def _redis_failover(self, fault: Fault) -> None:
        index = await self._server(fault)
        self._tell(f"SENTINEL FAILOVER by hand, away from server {index}")
        await self._world.redis(self._world.group.fail_over)
        await self._successor(index)

    async def _redis_scripts(self, fault: Fault) -> None:
        index = await self._server(fault)
        port = self._world.group.machines[index].port
        await self._world.redis(lambda: self._world.group.ask(port, "SCRIPT", "FLUSH"))
        self._tell(f"the script cache of the primary, server {index}, was flushed")
