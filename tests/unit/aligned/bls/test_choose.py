from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from aligned.bls.backend import Backend
from aligned.bls.choose import BACKENDS, choose
from aligned.bls.zksnake import Zksnake
from aligned.errors import BadConfiguration, Unavailable
from tests.fakes.bls import FakeBackend


class Right(Zksnake):
    """A real one, so that it knows the answers."""


class Raising(FakeBackend):
    """An extension of another version, for example."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error
        self.closed = False

    def bad_signatures(self, groups: object) -> list[list[int]]:
        raise self.error

    def close(self) -> None:
        self.closed = True


def absent() -> Backend:
    msg = "No module named 'bn254bls'"
    raise ImportError(msg)


@pytest.fixture(autouse=True)
def _info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def levels(caplog: pytest.LogCaptureFixture) -> list[int]:
    return [record.levelno for record in caplog.records]


def test_the_fastest_comes_first() -> None:
    assert list(BACKENDS) == ["arkworks", "zksnake", "py_ecc"]


def test_the_first_that_works_serves(caplog: pytest.LogCaptureFixture) -> None:
    backends: dict[str, Callable[[], Backend]] = {"arkworks": Right, "zksnake": absent}
    assert isinstance(choose("auto", backends), Right)
    assert levels(caplog) == [logging.INFO]


def test_an_absent_one_is_passed_over_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    assert isinstance(choose("auto", {"arkworks": absent, "zksnake": Right}), Right)
    assert levels(caplog) == [logging.INFO]


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(FakeBackend(), id="wrong answers"),
        pytest.param(Raising(TypeError("takes 3 arguments")), id="another version"),
        pytest.param(Raising(RuntimeError("panicked")), id="a panic"),
        pytest.param(Raising(Unavailable("no worker answers")), id="no workers"),
    ],
)
def test_a_broken_one_is_passed_over_with_a_warning(
    broken: FakeBackend, caplog: pytest.LogCaptureFixture
) -> None:
    assert isinstance(choose("auto", {"arkworks": lambda: broken, "zksnake": Right}), Right)
    assert levels(caplog) == [logging.WARNING, logging.INFO]


def test_a_broken_one_is_closed() -> None:
    broken = Raising(RuntimeError("panicked"))
    choose("auto", {"arkworks": lambda: broken, "zksnake": Right})
    assert broken.closed


def test_the_one_asked_for_has_no_substitute() -> None:
    with pytest.raises(BadConfiguration) as refusal:
        choose("arkworks", {"arkworks": absent, "zksnake": Right})
    (problem,) = refusal.value.problems
    assert problem.startswith("bls.backend: arkworks is not installed here")
    assert "make setup" in problem


def test_the_one_asked_for_must_answer_right() -> None:
    with pytest.raises(BadConfiguration, match="zksnake gives wrong answers: points of messages"):
        choose("zksnake", {"zksnake": FakeBackend, "py_ecc": Right})


def test_without_any_every_problem_is_told() -> None:
    with pytest.raises(BadConfiguration) as refusal:
        choose("auto", {"arkworks": absent, "zksnake": FakeBackend, "py_ecc": absent})
    assert len(refusal.value.problems) == 3
