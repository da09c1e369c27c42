"""What will be broken, when and how: drawn from a seed, pure.

The same options give the same plan, to the last fault. Steps begin at batches, not at seconds, so
that a slow machine plays the same story as a fast one.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """A fault. The values are what ``--faults`` takes."""

    KILL = "kill"
    TERM = "term"
    STOP = "stop"
    WIPE = "wipe"
    KILL_PERSISTED = "kill-persisted"
    NO_REDIS = "no-redis"
    NO_CHAIN = "no-chain"
    REDIS_KILL = "redis-kill"
    REDIS_PAUSE = "redis-pause"
    REDIS_EMPTY = "redis-empty"
    REDIS_OLD = "redis-old"
    REDIS_ALL = "redis-all"
    REDIS_GONE = "redis-gone"
    REDIS_FAILOVER = "redis-failover"
    REDIS_SCRIPTS = "redis-scripts"

    @property
    def is_of_redis(self) -> bool:
        """Whether Redis is broken and not an aggregator."""
        return self.value.startswith("redis-")


MEANING = {
    Kind.KILL: "SIGKILL an aggregator, start it again",
    Kind.TERM: "SIGTERM an aggregator, start it again",
    Kind.STOP: "SIGSTOP an aggregator for 5 to 20 s, SIGCONT",
    Kind.WIPE: "end an aggregator, delete its journal, start it again",
    Kind.KILL_PERSISTED: "SIGKILL the leader between writing an answer down and sending it",
    Kind.NO_REDIS: "cut an aggregator off from all Redis servers and Sentinels",
    Kind.NO_CHAIN: "cut an aggregator off from the chain",
    Kind.REDIS_KILL: "kill a Redis server; it comes back empty once there is a primary",
    Kind.REDIS_PAUSE: "SIGSTOP a Redis server, SIGCONT",
    Kind.REDIS_EMPTY: "restart the Redis primary at once: it comes back as an empty primary",
    Kind.REDIS_OLD: "restart the Redis primary at once: it comes back as it was a while ago",
    Kind.REDIS_ALL: "restart all Redis servers at once: everything in memory is gone",
    Kind.REDIS_GONE: "SIGSTOP all Redis servers for 5 to 35 s, SIGCONT: longer than calls are held",
    Kind.REDIS_FAILOVER: "SENTINEL FAILOVER by hand, without waiting for replicas",
    Kind.REDIS_SCRIPTS: "flush the script cache of the primary",
}
"""One line for a person."""


class Target(StrEnum):
    """Whom a fault hits: looked up when it begins."""

    LEADER = "the leader"
    STANDBY = "a standby"
    PRIMARY = "the primary"
    FOLLOWER = "a replica of the primary"
    GROUP = "all servers"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is broken and mended again."""

    kind: Kind
    target: Target
    pick: int
    """Which of several that fit, modulo their number; also decides between two ways of doing it."""
    after: float
    """Seconds from the beginning of its step."""
    seconds: float
    """Until it is mended."""


@dataclass(frozen=True, slots=True)
class Step:
    """One fault, or two of different kinds at once; the next one waits until all is well again."""

    batch: int
    """Begins when this batch, counted from 1, has been posted and everything before is mended."""
    faults: tuple[Fault, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a plan is drawn from."""

    seed: int
    minutes: float
    profile: str = "fast"
    """Of the election: fast or normal."""
    kinds: tuple[Kind, ...] = tuple(Kind)
    pace: float = 1.0
    """Seconds between batches."""
    operators: int = 5
    """Of equal stake."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A story."""

    options: Options
    batches: int
    """At least; posting goes on while steps are left."""
    steps: tuple[Step, ...]


_TWO_AT_ONCE = 0.3
_LEADER_SHARE = 0.6
_PRIMARY_SHARE = 0.75
_CALM_SECONDS = (2.0, 6.0)
"""Between the end of a step and the next one."""
_FIRST_SECONDS = 3.0
_LAST_SECONDS = 10.0
"""Nothing begins so shortly before the end."""

_SECONDS = {
    Kind.KILL: (0.3, 4.0),
    Kind.TERM: (0.1, 3.0),
    Kind.STOP: (5.0, 20.0),
    Kind.WIPE: (0.1, 2.0),
    Kind.KILL_PERSISTED: (0.3, 4.0),
    Kind.NO_REDIS: (1.0, 8.0),
    Kind.NO_CHAIN: (2.0, 14.0),
    Kind.REDIS_KILL: (0.5, 4.0),
    Kind.REDIS_PAUSE: (0.5, 8.0),
    Kind.REDIS_OLD: (1.0, 10.0),
    Kind.REDIS_GONE: (5.0, 35.0),
}
"""From, to; the others happen in an instant."""

_LOSING = frozenset(
    {
        Kind.REDIS_KILL,
        Kind.REDIS_PAUSE,
        Kind.REDIS_EMPTY,
        Kind.REDIS_OLD,
        Kind.REDIS_ALL,
        Kind.REDIS_GONE,
        Kind.REDIS_FAILOVER,
    }
)
"""After these, what only Redis held may be gone."""


def is_promised(kinds: tuple[Kind, ...]) -> bool:
    """Tell whether everything is promised to survive these faults at once.

    One of an aggregator beside one of Redis is; a disk lost for ever beside a Redis that may
    forget is the stated limit, and two of a sort are no single fault.
    """
    of_redis = [kind for kind in kinds if kind.is_of_redis]
    if len(of_redis) > 1 or len(kinds) - len(of_redis) > 1:
        return False
    return not (Kind.WIPE in kinds and _LOSING.intersection(of_redis))


def draw(options: Options) -> Plan:
    """Return the plan of these options."""
    luck = random.Random(f"{options.seed} faults")  # noqa: S311 - to be replayed
    batches = max(1, round(options.minutes * 60 / options.pace))
    bag: list[Kind] = []
    steps: list[Step] = []
    at = _FIRST_SECONDS
    while options.kinds and at + _LAST_SECONDS <= batches * options.pace:
        faults = _faults(luck, bag, options.kinds)
        steps.append(Step(1 + int(at / options.pace), faults))
        at += max(fault.after + fault.seconds for fault in faults) + luck.uniform(*_CALM_SECONDS)
    return Plan(options, batches, tuple(steps))


def _faults(luck: random.Random, bag: list[Kind], kinds: tuple[Kind, ...]) -> tuple[Fault, ...]:
    first = _fault(luck, _next(luck, bag, kinds), after=0.0)
    if luck.random() >= _TWO_AT_ONCE:
        return (first,)
    partners = [kind for kind in kinds if is_promised((first.kind, kind))]
    if not partners:
        return (first,)
    return first, _fault(luck, luck.choice(partners), after=round(luck.uniform(0.0, 2.0), 1))


def _next(luck: random.Random, bag: list[Kind], kinds: tuple[Kind, ...]) -> Kind:
    """Draw without putting back: every kind has its turn before one has a second."""
    if not bag:
        bag.extend(kinds)
        luck.shuffle(bag)
    return bag.pop()


def _fault(luck: random.Random, kind: Kind, *, after: float) -> Fault:
    seconds = round(luck.uniform(*_SECONDS.get(kind, (0.0, 0.0))), 1)
    return Fault(kind, _target(luck, kind), luck.randrange(6), after, seconds)


def _target(luck: random.Random, kind: Kind) -> Target:
    if kind is Kind.KILL_PERSISTED:
        return Target.LEADER
    if kind in {Kind.REDIS_ALL, Kind.REDIS_GONE}:
        return Target.GROUP
    if not kind.is_of_redis:
        return Target.LEADER if luck.random() < _LEADER_SHARE else Target.STANDBY
    if kind in {Kind.REDIS_KILL, Kind.REDIS_PAUSE} and luck.random() >= _PRIMARY_SHARE:
        return Target.FOLLOWER
    return Target.PRIMARY


class Manner(StrEnum):
    """How the operators take a batch."""

    AT_ONCE = "all sign within a second"
    HELD = "all sign, so many of them late that the quorum waits"
    LEAN = "as many as the quorum needs sign, the last of them late"
    EARLY = "all sign, some before the batch is on chain"


def manner(options: Options, batch: int) -> tuple[Manner, tuple[float | None, ...]]:
    """Return how batch number ``batch`` is signed.

    Returns:
        The manner, and for each operator the seconds between the batch's posting and its
        signature: negative: before it; None: it does not sign.
    """
    luck = random.Random(f"{options.seed} batch {batch}")  # noqa: S311 - to be replayed
    chosen = luck.choice(tuple(Manner))
    everybody = list(range(options.operators))
    luck.shuffle(everybody)
    needed = quorum(options.operators)
    delays: dict[int, float] = {who: luck.uniform(0.0, 1.0) for who in everybody}
    match chosen:
        case Manner.HELD:
            late = everybody[: options.operators - needed + 1]
            delays |= {who: luck.uniform(2.0, 10.0) for who in late}
        case Manner.LEAN:
            for who in everybody[needed:]:
                del delays[who]
            delays[everybody[0]] = luck.uniform(2.0, 10.0)
        case Manner.EARLY:
            delays |= {who: -luck.uniform(0.0, 2.0) for who in everybody[:needed:2]}
        case Manner.AT_ONCE:
            pass
    return chosen, tuple(delays.get(who) for who in range(options.operators))


def quorum(operators: int) -> int:
    """Return how many of ``operators`` of equal stake the contract wants: 67 % of the stake."""
    return -(-operators * 67 // 100)


def described(plan: Plan) -> list[str]:
    """Return the plan as lines for a person."""
    options = plan.options
    head = (
        f"seed {options.seed}: {plan.batches} batches, one every {options.pace:g} s, signed by "
        f"{options.operators} operators; profile {options.profile}; {len(plan.steps)} steps"
    )
    lines = [head]
    for number, step in enumerate(plan.steps, start=1):
        told = " + ".join(_told(fault) for fault in step.faults)
        lines.append(f"{number:4}. at batch {step.batch:4}: {told}")
    return lines


def _told(fault: Fault) -> str:
    after = f", {fault.after:g} s later" if fault.after else ""
    lasting = f" for {fault.seconds:g} s" if fault.seconds else ""
    return f"{fault.kind} {fault.target}{lasting}{after}"


def command(options: Options) -> str:
    """Return what replays this plan."""
    words = ["python -m tests.nemesis", f"--seed {options.seed}", f"--minutes {options.minutes:g}"]
    usual = Options(seed=options.seed, minutes=options.minutes)
    if options.profile != usual.profile:
        words.append(f"--profile {options.profile}")
    if options.kinds != usual.kinds:
        words.append(f"--faults {','.join(options.kinds)}")
    if options.pace != usual.pace:
        words.append(f"--pace {options.pace:g}")
    if options.operators != usual.operators:
        words.append(f"--operators {options.operators}")
    return " ".join(words)
