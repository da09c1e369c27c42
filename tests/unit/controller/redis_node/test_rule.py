from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import pytest
from hypothesis import given, strategies as st

from controller.redis_node.rule import Answer, Configuration, Ignorance, decide, translated

ADDRESSES = ("10.0.0.1", "10.0.0.2", "10.0.0.3")
ZERO, ONE, ME = ADDRESSES
SILENT, REFUSING, STARTING = Ignorance.SILENT, Ignorance.REFUSING, Ignorance.STARTING
FIRST = Configuration(ZERO, 0)


def named(primary: str, epoch: int = 5) -> Configuration:
    return Configuration(primary, epoch)


@pytest.mark.parametrize(
    ("answers", "now", "at_last"),
    [
        pytest.param((STARTING, STARTING), FIRST, FIRST, id="all start: pod 0"),
        pytest.param((SILENT, SILENT), None, FIRST, id="alone: pod 0 after a while"),
        pytest.param((SILENT, STARTING), None, FIRST, id="one may know: wait"),
        pytest.param((REFUSING, STARTING), None, FIRST, id="one may know and does not tell"),
        pytest.param((REFUSING, REFUSING), None, FIRST, id="other passwords all around"),
        pytest.param((named(ONE), named(ONE)), named(ONE), named(ONE), id="both agree"),
        pytest.param((named(ONE), STARTING), named(ONE), named(ONE), id="one knows, one starts"),
        pytest.param((named(ONE), SILENT), None, named(ONE), id="one knows, one may know better"),
        pytest.param((named(ONE), REFUSING), None, named(ONE), id="the same with a password"),
        pytest.param((named(ONE, 4), named(ONE)), named(ONE), named(ONE), id="epochs may differ"),
        pytest.param((named(ZERO, 6), named(ONE)), None, named(ZERO, 6), id="the newer one counts"),
        pytest.param((named(ZERO), named(ONE, 6)), None, named(ONE, 6), id="in any order"),
        pytest.param((named(ME), named(ME)), None, named(ME), id="I was it: wait for another"),
        pytest.param((named(ME), STARTING), None, named(ME), id="the same, one starts"),
        pytest.param((named(ME), SILENT), None, named(ME), id="the same, one is away"),
        pytest.param((named(ME, 6), named(ONE)), None, named(ME, 6), id="I am the newer one"),
        pytest.param((named(ME), named(ONE, 6)), None, named(ONE, 6), id="I am the older one"),
    ],
)
def test_what_others_say_decides(
    answers: tuple[Answer, Answer], now: Configuration | None, at_last: Configuration
) -> None:
    for order in itertools.permutations(answers):
        assert decide(order, addresses=ADDRESSES, me=ME, final=False) == now
        assert decide(order, addresses=ADDRESSES, me=ME, final=True) == at_last


def test_an_address_that_was_given_up_is_the_server_that_claims_the_role() -> None:
    gone = named("10.0.0.99")
    answers = translated([gone, STARTING], addresses=ADDRESSES, claiming=[ONE])
    assert answers == [named(ONE), STARTING]


@pytest.mark.parametrize("claiming", [[], [ZERO, ONE]])
def test_without_a_single_one_that_claims_it_it_tells_nothing(claiming: list[str]) -> None:
    gone = named("10.0.0.99")
    answers = translated([gone, named(ZERO)], addresses=ADDRESSES, claiming=claiming)
    assert answers == [SILENT, named(ZERO)]


_answers = st.one_of(
    st.sampled_from(Ignorance),
    st.builds(Configuration, st.sampled_from(ADDRESSES), st.integers(0, 3)),
)


@given(st.lists(_answers, min_size=2, max_size=2), st.sampled_from(ADDRESSES))
def test_in_the_end_it_is_always_decided_and_by_nothing_that_was_not_said(
    answers: list[Answer], me: str
) -> None:
    decided = decide(answers, addresses=ADDRESSES, me=me, final=True)
    known = [answer for answer in answers if isinstance(answer, Configuration)]
    assert decided in (known or [FIRST])
    assert decided is not None
    assert decided.epoch == max((answer.epoch for answer in known), default=0)


@given(st.lists(_answers, min_size=2, max_size=2), st.sampled_from(ADDRESSES))
def test_what_is_decided_early_is_what_would_be_decided_at_last(
    answers: list[Answer], me: str
) -> None:
    early = decide(answers, addresses=ADDRESSES, me=me, final=False)
    assert early in {None, decide(answers, addresses=ADDRESSES, me=me, final=True)}


@dataclass
class Pod:
    """One that starts, in small steps that others see."""

    state: Answer = SILENT
    asked: int = 0
    decided: Configuration | None = None

    def step(self, me: str, others: list[Answer], patience: int) -> None:
        if self.decided is not None:
            self.state = self.decided  # its Sentinel is up
        elif self.state is SILENT:
            self.state = STARTING
        else:
            self.asked += 1
            final = self.asked > patience
            self.decided = decide(others, addresses=ADDRESSES, me=me, final=final)
            if self.decided is not None:
                self.state = SILENT  # its Sentinel is not up yet


@dataclass
class Group:
    pods: list[Pod] = field(default_factory=lambda: [Pod() for _ in ADDRESSES])

    def step(self, index: int) -> None:
        others = [pod.state for i, pod in enumerate(self.pods) if i != index]
        self.pods[index].step(ADDRESSES[index], others, patience=3)

    def primaries(self) -> set[str]:
        """Who believe of themselves that they are."""
        pairs = zip(ADDRESSES, self.pods, strict=True)
        return {a for a, pod in pairs if pod.decided is not None and pod.decided.primary == a}


@given(st.lists(st.integers(0, 2), max_size=40))
def test_any_cold_start_makes_at_most_one_primary(steps: list[int]) -> None:
    group = Group()
    for index in steps:
        group.step(index)
        assert len(group.primaries()) <= 1
    assert {pod.decided for pod in group.pods} <= {None, FIRST}


@given(st.lists(st.integers(0, 1), max_size=30), st.sampled_from(ADDRESSES), st.integers(1, 9))
def test_starts_beside_one_that_lives_make_no_second_primary(
    steps: list[int], primary: str, epoch: int
) -> None:
    group = Group()
    group.pods[2].state = group.pods[2].decided = Configuration(primary, epoch)
    for index in steps:
        group.step(index)
        assert group.primaries() <= {primary}
