"""Which backend serves: the fastest one that is installed and answers known questions right."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Literal

from aligned.bls.arkworks import Arkworks
from aligned.bls.known_answers import first_wrong_answer
from aligned.bls.reference import Reference
from aligned.bls.zksnake import Zksnake
from aligned.errors import AlignedError, BadConfiguration

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aligned.bls.backend import Backend

logger = logging.getLogger(__name__)

Name = Literal["auto", "arkworks", "zksnake", "py_ecc"]

BACKENDS: Mapping[str, Callable[[], Backend]] = {
    "arkworks": Arkworks,
    "zksnake": Zksnake,
    "py_ecc": Reference,
}
"""Fastest first."""

_REMEDIES = {
    "arkworks": "install cargo and run 'make setup', or use 'auto'",
    "zksnake": "install the package zksnake, which not every platform has, or use 'auto'",
    "py_ecc": "install the package py_ecc",
}


def choose(name: Name, backends: Mapping[str, Callable[[], Backend]] = BACKENDS) -> Backend:
    """Return the backend called ``name``, or for ``auto`` the fastest one that works here.

    Each is asked known questions first: a few ms, some seconds for py_ecc. Blocks: call it
    before the loop runs.

    Args:
        name: As in the configuration.
        backends: Constructors by name, the preferred first; ImportError means absent.

    Raises:
        BadConfiguration: The backend asked for, or every one, is absent or wrong.
    """
    candidates = list(backends) if name == "auto" else [name]
    problems = []
    for candidate in candidates:
        try:
            backend = _admit(backends[candidate])
        except ImportError as error:
            problems.append(f"{candidate} is not installed here: {error}; {_REMEDIES[candidate]}")
        except _Wrong as error:
            problems.append(f"{candidate} gives wrong answers: {error}; {_REMEDIES[candidate]}")
            logger.warning(
                "BLS backend is broken, reinstall it; another one serves, if there is one",
                extra={"backend": candidate, "wrong": str(error)},
            )
        else:
            logger.info("BLS backend chosen", extra={"backend": candidate})
            return backend
    raise BadConfiguration(tuple(f"bls.backend: {problem}" for problem in problems))


class _Wrong(AlignedError):
    """A backend fails its known answers."""


def _admit(build: Callable[[], Backend]) -> Backend:
    backend = build()
    try:
        wrong = first_wrong_answer(backend)
    except (
        AlignedError,
        ArithmeticError,
        AttributeError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as e:
        backend.close()  # an extension of another version, for example
        raise _Wrong(repr(e)) from e
    if wrong is not None:
        backend.close()
        raise _Wrong(wrong)
    return backend
