from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from aggregator import quorum
from aggregator.quorum import Tally
from aligned.model import Stake
from tests.fakes.builders import operator_id, operator_set

STAKES = st.lists(st.integers(0, 2**96 - 1), min_size=1, max_size=8)


@pytest.mark.parametrize(
    ("signed", "total", "enough"),
    [
        pytest.param(67, 100, True, id="exactly-67-percent"),
        pytest.param(66, 100, False, id="one-less"),
        pytest.param(67 * 10**30 - 1, 100 * 10**30, False, id="exact-in-large-numbers"),
        pytest.param(1, 1, True, id="everybody"),
        pytest.param(0, 0, False, id="nobody-to-sign"),
    ],
)
def test_the_threshold_is_the_contracts(signed: int, total: int, enough: bool) -> None:
    assert Tally(Stake(signed), Stake(total)).is_quorum is enough


def test_strangers_weigh_nothing() -> None:
    counted = quorum.tally(operator_set(60, 40), [operator_id(1), operator_id(9)])
    assert counted == Tally(Stake(60), Stake(100))


@given(STAKES, st.data())
def test_one_more_signature_never_lowers_the_tally(stakes: list[int], data: st.DataObject) -> None:
    operators = operator_set(*stakes)
    ids = sorted(operators.stakes)
    some = data.draw(st.sets(st.sampled_from(ids)))
    extra = data.draw(st.sampled_from(ids))
    more = quorum.tally(operators, some | {extra})
    assert more.signed >= quorum.tally(operators, some).signed


@pytest.mark.parametrize(
    ("signed", "reached", "expected"),
    [
        pytest.param(66, None, None, id="no-quorum-never-fires"),
        pytest.param(66, 5.0, None, id="a-quorum-lost-again-does-not-fire"),
        pytest.param(67, None, 25.0, id="the-window-starts-now"),
        pytest.param(80, 5.0, 20.0, id="late-signatures-do-not-restart-the-window"),
        pytest.param(100, None, 10.0, id="everybody-fires-at-once"),
        pytest.param(100, 5.0, 10.0, id="the-last-one-ends-the-window"),
    ],
)
def test_when_to_answer(signed: int, reached: float | None, expected: float | None) -> None:
    counted = Tally(Stake(signed), Stake(100))
    assert quorum.fire_at(counted, reached, 10.0, 15.0) == expected
