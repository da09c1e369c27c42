"""Every benchmark by name."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bench import daemon, failover, reconcile, redis_failover, replicated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from bench.figures import Figures

TAKEOVER_SECONDS = 1.0
"""Beside the lease, for a successor's first submission."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A benchmark."""

    name: str
    title: str
    """Over its table."""
    about: str
    """For ``--help``, with what a run costs."""
    series: Callable[[int], AsyncIterator[Figures]]
    """Given how many, measures that many runs, one after the other."""
    runs: int = 3
    """If nothing else is asked for."""
    main: str = ""
    """The figure that is drawn."""
    unit: str = "ms"
    reach: float | None = None
    """What the 95th percentile of ``main`` shall not exceed."""
    lacks: str = ""
    """What it cannot be run without, and is not there."""


PROGRAMS = {
    "bls": "arithmetic alone, by how many signatures wait together (bench.bls)",
    "journal": "the journal alone, by how many signatures share a commit (bench.journal)",
}
"""Benchmarks that are programs of their own and print their own tables."""


def catalogue(operators: int, batches: int, kubeconfig: Path | None = None) -> dict[str, Bench]:
    """Return all benchmarks in the order they are run.

    Args:
        operators: Of the load; failovers need only a few.
        batches: Signed by each of them in a closed loop.
        kubeconfig: Of a cluster for the controller; None: there is none.
    """
    every = (
        *_single(operators, batches),
        *_replicated(operators, batches),
        *_failovers(),
        *_controller(kubeconfig),
    )
    return {bench.name: bench for bench in every}


def _single(operators: int, batches: int) -> list[Bench]:
    found = []
    for backend in ("arkworks", "zksnake"):
        found += [
            Bench(
                name=f"closed-{backend}",
                title=f"Acknowledged responses, closed loop, {operators} × {batches}, {backend}",
                about="one process, no Redis: CPU, rate and latency as fast as it goes; 10 s a run",
                series=_each(partial(daemon.closed, operators, batches, backend)),
            ),
            Bench(
                name=f"paced-{backend}",
                title=f"Acknowledged responses, {daemon.PACED_RATE:,.0f}/s paced, {backend}",
                about="one process, no Redis: latency at a given rate; 15 s a run",
                series=_each(partial(daemon.paced, operators, backend)),
            ),
        ]
    return [
        *found,
        Bench(
            name="answers",
            title=f"Answers, {operators} operators, {daemon.NON_SIGNERS} non-signers, window off",
            about="from the signature that completes a quorum to the broadcast; 15 s a run",
            series=_each(partial(daemon.answers, operators, "arkworks")),
        ),
        Bench(
            name="start",
            title=f"Start and memory, {daemon.OPEN_BATCHES} open batches × {operators} signatures",
            about="one process that finds open batches in its journal; 25 s a run",
            series=_each(partial(daemon.start, operators, "arkworks")),
        ),
    ]


def _replicated(operators: int, batches: int) -> list[Bench]:
    return [
        Bench(
            name="replicated",
            title=f"Acknowledged and replicated responses, closed loop, {operators} × {batches}",
            about="no Redis, one replica, three replicas in one run, with ratios; 60 s a run",
            series=_each(partial(replicated.closed, operators, batches)),
        ),
        Bench(
            name="replicated-paced",
            title=f"Acknowledged and replicated responses, {daemon.PACED_RATE:,.0f}/s paced",
            about="one replica, three replicas: latency at a given rate; 60 s a run",
            series=_each(partial(replicated.paced, operators)),
        ),
        Bench(
            name="replica-start",
            title=(
                f"Start of one of three replicas, {replicated.OPEN_BATCHES} open batches × "
                f"{operators} signatures to merge"
            ),
            about="with its journal, and with an empty one; memory; 25 s a run after 60 s",
            series=partial(replicated.start, operators=operators),
        ),
        Bench(
            name="idle",
            title="Three replicas at rest, profile normal",
            about="CPU of a leader, a standby and a Redis server; 20 s a run",
            series=partial(replicated.idle, operators=operators),
        ),
    ]


def _failovers() -> list[Bench]:
    leases = {"fast": 1.5, "normal": 5.0}
    return [
        *(
            Bench(
                name=f"failover-{profile}",
                title=f"SIGKILL of the leader, profile {profile}: until its successor's answer",
                about=f"a batch is complete and unanswered at the kill; {seconds} s a run",
                series=partial(failover.killed, profile=profile),
                main="first submission ms",
                reach=1000 * (leases[profile] + TAKEOVER_SECONDS),
            )
            for profile, seconds in (("fast", 6), ("normal", 10))
        ),
        Bench(
            name="handover",
            title="SIGTERM of the leader: until its successor leads",
            about="the same with a leader that is told to stop; 6 s a run",
            series=failover.handover,
            main="leads ms",
            reach=500.0,
        ),
        *(
            Bench(
                name=f"redis-{fault}",
                title=f"Redis primary {what}: until every replica acknowledges again",
                about=f"the longest time without an acknowledgement; {seconds} s a run",
                series=partial(redis_failover.series, fault=fault),
                main="longest silence of a replica ms",
                reach=reach,
            )
            for fault, what, seconds, reach in (
                ("killed", "killed", 10, 3500.0),
                ("coordinated", "moved in good order (COORDINATED)", 7, 500.0),
                ("frozen", "frozen (SIGSTOP)", 12, None),
            )
        ),
    ]


def _controller(kubeconfig: Path | None) -> list[Bench]:
    config = kubeconfig or Path()
    lacks = "" if kubeconfig else "KUBECONFIG names no cluster; a control plane is enough"
    return [
        Bench(
            name="controller-create",
            title="A resource with Redis, until all its objects are there",
            about="at the API server of KUBECONFIG; 3 s a run",
            series=partial(reconcile.created, config=config),
            main="all objects ms",
            reach=3000.0,
            lacks=lacks,
        ),
        Bench(
            name="controller-repair",
            title="An object that is deleted by hand, or changed, until it is as it was",
            about="of each kind in turn, at the API server of KUBECONFIG; 1 s a run",
            series=partial(reconcile.repaired, config=config),
            main="repaired ms",
            reach=1000.0,
            lacks=lacks,
        ),
        Bench(
            name="controller-many",
            title=f"A controller that starts, {reconcile.MANY} resources changed meanwhile",
            about="at the API server of KUBECONFIG; 90 s a run",
            series=_each(partial(reconcile.many, config)),
            lacks=lacks,
        ),
    ]


def _each(
    measure: Callable[[], Coroutine[object, object, Figures]],
) -> Callable[[int], AsyncIterator[Figures]]:
    """Return a series whose runs have nothing in common."""

    async def series(runs: int) -> AsyncIterator[Figures]:
        for _ in range(runs):
            yield await measure()

    return series
