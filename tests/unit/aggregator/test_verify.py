from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, strategies as st

from aggregator.ports import Standing
from aggregator.verify import BOUNDS, LINGER_AFTER, Lane, Verifier, lane
from aligned.bls.backend import Group, Key, Runs
from aligned.errors import Unavailable
from aligned.model import BatchId, Entry, OperatorId, Signature
from tests.fakes.bls import FakeBackend, fake_signature
from tests.fakes.stages import ManualClock


@dataclass(eq=False)
class Brought:
    entry: Entry
    key: Key
    standing: Standing = field(default_factory=Standing)
    withdrawn: bool = False


def new() -> Standing:
    return Standing()


def proven() -> Standing:
    standing = Standing()
    standing.verified = 1
    return standing


class NeverProven(Standing):
    """Stays in its lane whatever verifies."""

    @property
    def verified(self) -> int:
        return 0

    @verified.setter
    def verified(self, value: int) -> None:
        del value


def suspect() -> Standing:
    standing = Standing()
    standing.failures = 1
    return standing


def batch(number: int) -> BatchId:
    return BatchId(number.to_bytes(32, "big"))


def good(standing: Standing, operator: int = 1, *, on: int = 1) -> Brought:
    key = operator.to_bytes(128, "big")
    return _brought(standing, operator, on, fake_signature(key, batch(on)))


def junk(standing: Standing, operator: int = 1, *, on: int = 1, nonce: int = 0) -> Brought:
    return _brought(standing, operator, on, Signature(nonce.to_bytes(64, "big")))


def _brought(standing: Standing, operator: int, on: int, signature: Signature) -> Brought:
    entry = Entry(batch(on), OperatorId(operator.to_bytes(32, "big")), signature)
    return Brought(entry, operator.to_bytes(128, "big"), standing)


class Bench:
    """A verifier with its fake backend and clock, and all verdicts in order."""

    def __init__(self, runs: Runs = Runs.THREAD) -> None:
        self.backend = FakeBackend(runs)
        self.clock = ManualClock()
        self.verdicts: list[tuple[Brought, bool]] = []
        self.on_verdict: Callable[[Brought], None] = lambda _: None
        self._delivered = asyncio.Event()
        self.verifier: Verifier[Brought] = Verifier(self.backend, self._take, self.clock)

    def _take(self, verdicts: list[tuple[Brought, bool]]) -> None:
        self.verdicts += verdicts
        self._delivered.set()
        for check, _ in verdicts:
            self.on_verdict(check)

    def submit(self, *checks: Brought) -> None:
        for check in checks:
            self.verifier.submit(check)

    async def run(self, *, until: Callable[[], bool] | None = None) -> None:
        """Run the verifier until all verdicts are there."""
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.verifier.run())
            await self.settle(until)
            task.cancel()

    async def settle(self, until: Callable[[], bool] | None = None) -> None:
        while not (until() if until else self.verifier.pending == 0):
            self._delivered.clear()
            await self._delivered.wait()

    def hold(self) -> tuple[threading.Event, threading.Event]:
        """Make calls wait; return what tells that one began, and what lets it go on."""
        started, finish = threading.Event(), threading.Event()

        def wait(groups: Sequence[Group]) -> None:
            del groups
            started.set()
            assert finish.wait(10)

        self.backend.before_answer = wait
        return started, finish

    @property
    def sizes(self) -> list[list[int]]:
        """Signatures in each group of each call."""
        return [[len(group.signatures) for group in call] for call in self.backend.calls]


@pytest.mark.parametrize("runs", Runs)
async def test_what_waits_for_one_batch_is_checked_in_one_group(runs: Runs) -> None:
    bench = Bench(runs)
    checks = [good(proven(), operator) for operator in range(1, 6)]
    bench.submit(*checks)
    await bench.run()
    assert bench.sizes == [[5]]
    assert bench.verdicts == [(check, True) for check in checks]


async def test_what_was_withdrawn_is_not_checked() -> None:
    bench = Bench()
    gone, stays = junk(new(), 1), good(new(), 1)
    bench.submit(gone, stays)
    gone.withdrawn = True
    await bench.run()
    assert bench.verdicts == [(stays, True)]
    assert bench.sizes == [[1]]


async def test_what_waits_for_several_batches_shares_one_call() -> None:
    bench = Bench()
    bench.submit(*(good(proven(), operator, on=operator % 3) for operator in range(7)))
    await bench.run()
    assert bench.sizes == [[3, 2, 2]]


async def test_one_bad_one_fails_alone() -> None:
    bench = Bench()
    checks = [good(proven(), 1), junk(proven(), 2), good(proven(), 3, on=2), good(proven(), 4)]
    bench.submit(*checks)
    await bench.run()
    assert [is_good for _, is_good in bench.verdicts] == [True, False, True, True]
    assert [check.standing.verified for check in checks] == [2, 1, 2, 2]
    assert [check.standing.failures for check in checks] == [0, 1, 0, 0]


async def test_the_loop_stays_free_and_what_arrives_meanwhile_forms_the_next_group() -> None:
    bench = Bench()
    started, finish = bench.hold()
    bench.submit(good(proven(), 1))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(bench.verifier.run())
        assert await asyncio.to_thread(started.wait, 10)
        bench.submit(*(good(proven(), operator) for operator in range(2, 10)))
        assert (bench.verdicts, bench.verifier.pending) == ([], 9)
        finish.set()
        await bench.settle()
        task.cancel()
    assert bench.sizes == [[1], [8]]


async def test_after_a_large_call_the_next_one_lets_more_join() -> None:
    bench = Bench()
    loop = asyncio.get_running_loop()
    later = [good(proven(), operator, on=2) for operator in range(5)]

    def submit_next() -> None:
        if later:
            bench.submit(later.pop())
            loop.call_soon(submit_next)

    def once(_: Brought) -> None:
        bench.on_verdict = lambda _: None
        submit_next()

    bench.on_verdict = once
    bench.backend.before_answer = lambda _: bench.clock.advance(1)
    bench.submit(*(good(proven(), operator) for operator in range(LINGER_AFTER)))
    await bench.run()
    assert bench.sizes == [[LINGER_AFTER], [5]]


@pytest.mark.parametrize("runs", Runs)
async def test_no_call_exceeds_the_bounds_of_its_backend(runs: Runs) -> None:
    bench = Bench(runs)
    bounds = BOUNDS[runs]
    for operator in range(bounds.signatures + 1):
        bench.submit(good(proven(), operator))
    for message in range(bounds.messages + 1):
        bench.submit(good(proven(), 1, on=1000 + message))
    await bench.run()
    assert max(sum(sizes) for sizes in bench.sizes) == bounds.signatures
    assert max(len(sizes) for sizes in bench.sizes) == bounds.messages
    assert all(is_good for _, is_good in bench.verdicts)


async def test_new_connections_wait_in_a_lane_of_smaller_groups() -> None:
    bench = Bench()
    bench.submit(*(good(new(), operator) for operator in range(70)))
    await bench.run()
    assert bench.sizes == [[64], [6]]


async def test_a_point_is_computed_once_for_a_batch() -> None:
    bench = Bench()
    bench.submit(good(new(), 1), good(proven(), 2), good(suspect(), 3), good(suspect(), 4, on=2))
    await bench.run()
    assert bench.backend.hashed == [batch(1), batch(2)]


# Lanes.


@pytest.mark.parametrize(
    ("verified", "failures", "expected"),
    [(0, 0, Lane.NEW), (1, 0, Lane.PROVEN), (9, 1, Lane.SUSPECT), (0, 2, Lane.SUSPECT)],
)
def test_history_decides_the_lane(verified: int, failures: int, expected: Lane) -> None:
    standing = Standing()
    standing.verified, standing.failures = verified, failures
    assert lane(standing) is expected


async def test_proven_connections_go_first_and_lanes_do_not_mix() -> None:
    bench = Bench()
    suspects, news, provens = suspect(), [new(), new()], proven()
    bench.submit(good(suspects, 1), good(news[0], 2), good(news[1], 3), good(provens, 4))
    await bench.run()
    assert [check.standing for check, _ in bench.verdicts] == [provens, *news, suspects]
    assert bench.sizes == [[1], [2], [1]]


async def test_suspects_are_checked_one_by_one() -> None:
    bench = Bench()
    bench.submit(*(good(suspect(), operator) for operator in range(4)))
    await bench.run()
    assert bench.sizes == [[1]] * 4


async def test_a_new_connection_has_one_signature_in_a_group_until_it_is_proven() -> None:
    bench = Bench()
    standing = new()
    bench.submit(*(good(standing, 1, on=number) for number in range(5)), good(new(), 2))
    await bench.run()
    assert bench.sizes == [[1, 1], [1, 1, 1, 1]]


async def test_a_failure_makes_suspects_of_what_still_waits() -> None:
    bench = Bench()
    standing = new()
    bench.submit(*(junk(standing, 1, on=number) for number in range(3)), good(new(), 2))
    await bench.run()
    assert bench.sizes == [[1, 1], [1], [1]]
    assert [is_good for _, is_good in bench.verdicts] == [False, True, False, False]
    assert standing.failures == 3


async def test_what_does_not_fit_into_a_call_keeps_its_place() -> None:
    bench = Bench()
    one, other = new(), new()
    checks = [good(one, 1, on=1), good(one, 1, on=2), good(other, 2, on=3), good(other, 2, on=4)]
    bench.submit(*checks)
    await bench.run()
    assert [check for check, _ in bench.verdicts] == [checks[i] for i in (0, 2, 1, 3)]


def _closed_loop(bench: Bench, *standings: Callable[[], Standing]) -> Counter[Lane]:
    """Keep one signature of each waiting for ever; count seconds by lane, a call takes one."""
    seconds: Counter[Lane] = Counter()
    numbers = iter(range(1, 1_000_000))
    bench.backend.before_answer = lambda _: bench.clock.advance(1)

    def again(check: Brought) -> None:
        seconds[lane(check.standing)] += 1
        if check.standing in loops:
            bench.submit(good(check.standing, next(numbers), on=next(numbers)))

    loops = [make() for make in standings]
    for standing in loops:
        bench.submit(good(standing, next(numbers)))
    bench.on_verdict = again
    return seconds


@pytest.mark.parametrize(
    ("standings", "share"),
    [
        pytest.param(
            (proven, NeverProven, suspect),
            {Lane.PROVEN: 12, Lane.NEW: 4, Lane.SUSPECT: 1},
            id="all",
        ),
        pytest.param((proven, suspect), {Lane.PROVEN: 12, Lane.SUSPECT: 1}, id="no new ones"),
        pytest.param((NeverProven, suspect), {Lane.NEW: 4, Lane.SUSPECT: 1}, id="no proven ones"),
        pytest.param((suspect,), {Lane.SUSPECT: 1}, id="suspects alone"),
    ],
)
async def test_lanes_that_wait_share_the_time(
    standings: tuple[Callable[[], Standing], ...], share: dict[Lane, int]
) -> None:
    bench = Bench(Runs.LOOP)
    seconds = _closed_loop(bench, *standings)
    rounds = 20 * sum(share.values())
    await bench.run(until=lambda: seconds.total() >= rounds)
    for name, weight in share.items():
        assert abs(seconds[name] - 20 * weight) <= weight


async def test_a_lane_earns_no_credit_while_it_is_empty() -> None:
    bench = Bench(Runs.LOOP)
    seconds = _closed_loop(bench, proven)
    await bench.run(until=lambda: seconds.total() >= 100)
    bench.submit(*(good(suspect(), 2_000_000 + number) for number in range(50)))
    seconds.clear()
    await bench.run(until=lambda: seconds.total() >= 26)
    assert seconds[Lane.PROVEN] >= 20


# Junk in somebody's name.


@pytest.mark.parametrize(
    ("standing", "sizes"), [(new, [[1], [1], [2]]), (suspect, [[1], [1], [1], [1]])]
)
@pytest.mark.parametrize("first", ["junk", "real"])
async def test_of_different_signatures_in_one_name_the_first_is_checked_alone(
    standing: Callable[[], Standing], sizes: list[list[int]], first: str
) -> None:
    bench = Bench()
    real, fake = good(standing(), 1), junk(standing(), 1)
    pair = [fake, real] if first == "junk" else [real, fake]
    bench.submit(good(standing(), 2), *pair, good(standing(), 3))
    await bench.run()
    assert bench.sizes == sizes
    assert [check for check, is_good in bench.verdicts if not is_good] == [fake]
    assert len(bench.verdicts) == 4


async def test_two_proven_connections_that_disagree_are_checked_alone() -> None:
    bench = Bench()
    bench.submit(good(proven(), 2), good(proven(), 1), junk(proven(), 1), good(proven(), 3))
    await bench.run()
    assert bench.sizes == [[1], [1], [2]]
    assert [is_good for _, is_good in bench.verdicts] == [True, True, False, True]


async def test_junk_in_the_names_of_all_leaves_the_groups_of_proven_connections_whole() -> None:
    bench = Bench()
    bench.submit(*(junk(new(), operator) for operator in range(20)))
    bench.submit(*(good(proven(), operator) for operator in range(20)))
    await bench.run()
    assert bench.sizes[0] == [20]
    assert [is_good for _, is_good in bench.verdicts] == [True] * 20 + [False] * 20


async def test_junk_that_was_judged_before_takes_nothing_from_the_real_one() -> None:
    bench = Bench()
    bench.submit(junk(new(), 1))
    await bench.run()
    bench.submit(good(proven(), 1), good(proven(), 2))
    await bench.run()
    assert bench.sizes == [[1], [2]]
    assert [is_good for _, is_good in bench.verdicts] == [False, True, True]


STANDINGS = st.sampled_from([new, proven, suspect])
CHECKS = st.lists(
    st.tuples(st.integers(0, 5), st.integers(1, 4), st.integers(1, 3), st.booleans()), max_size=40
)


@given(CHECKS, st.lists(STANDINGS, min_size=6, max_size=6))
def test_each_signature_gets_its_own_verdict_exactly_once(
    asked: list[tuple[int, int, int, bool]], makes: list[Callable[[], Standing]]
) -> None:
    bench = Bench(Runs.LOOP)
    standings = [make() for make in makes]
    checks: dict[Entry, tuple[Brought, bool]] = {}
    for nonce, (who, operator, on, is_good) in enumerate(asked):
        check = (
            good(standings[who], operator, on=on)
            if is_good
            else junk(standings[who], operator, on=on, nonce=nonce)
        )
        checks.setdefault(check.entry, (check, is_good))
    bench.submit(*(check for check, _ in checks.values()))
    asyncio.run(bench.run())
    assert sorted(bench.verdicts, key=_entry) == sorted(checks.values(), key=_entry)
    assert bench.verifier.statistics.signatures == len(checks)
    assert bench.verifier.statistics.failures == sum(not is_good for _, is_good in checks.values())


def _entry(verdict: tuple[Brought, bool]) -> Entry:
    return verdict[0].entry


# The end, and the numbers.


@pytest.mark.parametrize("runs", Runs)
async def test_a_backend_that_fails_ends_the_stage(runs: Runs) -> None:
    bench = Bench(runs)

    def fail(groups: Sequence[Group]) -> None:
        del groups
        msg = "no worker answers"
        raise Unavailable(msg)

    bench.backend.before_answer = fail
    bench.submit(good(proven()))
    with pytest.raises(Unavailable):
        await bench.verifier.run()
    assert bench.verdicts == []


async def test_cancelled_in_the_middle_it_delivers_nothing_more() -> None:
    bench = Bench()
    started, finish = bench.hold()
    bench.submit(good(proven()))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(bench.verifier.run())
        assert await asyncio.to_thread(started.wait, 10)
        task.cancel()
    finish.set()
    await asyncio.sleep(0)
    assert (bench.verdicts, bench.verifier.pending) == ([], 1)


async def test_statistics_count_calls_groups_and_failures() -> None:
    bench = Bench()
    bench.backend.before_answer = lambda _: bench.clock.advance(0.5)
    bench.submit(*(good(proven(), number) for number in range(3)), junk(proven(), 3, on=2))
    await bench.run()
    bench.submit(good(proven(), 9))
    await bench.run()
    statistics = bench.verifier.statistics
    assert (statistics.calls, statistics.groups, statistics.signatures) == (2, 3, 5)
    assert (statistics.failures, statistics.largest_group) == (1, 3)
    assert statistics.seconds == 1.0
