"""The YAML file of the Go aggregator, and which of its keys were used."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from aggregator import yamlfile
from aligned.errors import BadConfiguration

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_DURATION = re.compile(r"(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|μs|ms|s|m|h)")
_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_SECONDS = {
    "ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0,
}  # fmt: skip


def go_duration(text: str) -> float:
    """Return ``"1h30m"`` as seconds.

    Raises:
        ValueError: Go would not read it as a duration either.

    Source: Go, ``time.ParseDuration``.
    """
    if text == "0":
        return 0.0
    if not re.fullmatch(f"(?:{_DURATION.pattern})+", text):
        msg = f"{text!r} is not a duration of Go, such as 72s or 168h"
        raise ValueError(msg)
    return sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))


class GoFile:
    """Values by dotted key; each as the text that is in the file.

    Args:
        path: The file.

    Raises:
        BadConfiguration: It cannot be read, or is no mapping.
    """

    def __init__(self, path: Path) -> None:
        try:
            document = yamlfile.parse(path.read_text(encoding="utf-8"), yamlfile.TextLoader)
        except OSError as error:
            raise BadConfiguration((f"{path}: cannot be read: {error.strerror}",)) from error
        except ValueError as error:
            raise BadConfiguration((f"{path}: {error}",)) from error
        if not isinstance(document.value, dict):
            raise BadConfiguration((f"{path}: is not the YAML file of a Go aggregator",))
        self.problems: list[str] = list(document.problems)
        self._values = dict(_leaves(document.value, ""))
        self._used: set[str] = set()

    def take(self, key: str) -> str | None:
        """Return the value of ``key``, None where it is absent or null, and count it as used."""
        self._used.add(key)
        return self._values.get(key)

    def require(self, key: str) -> str:
        """Return the value of ``key``; note a problem and return "" where there is none."""
        value = self.take(key)
        if not value:
            self.problems.append(f"{key}: required")
        return value or ""

    def duration(self, key: str) -> float | None:
        """Return the seconds of ``key``; note a problem where it is not a duration."""
        text = self.take(key)
        if text is None:
            return None
        try:
            return go_duration(text)
        except ValueError as error:
            self.problems.append(f"{key}: {error}")
            return None

    def number(self, key: str) -> int | None:
        """Return the whole number of ``key``; note a problem where it is none."""
        text = self.take(key)
        if text is None:
            return None
        if not text.isdecimal():
            self.problems.append(f"{key}: {text!r} is not a whole number")
            return None
        return int(text)

    def unused(self) -> list[str]:
        """Return the keys that nobody took, in the order of the file."""
        return [key for key in self._values if key not in self._used]


def _leaves(value: object, above: str) -> Iterator[tuple[str, str | None]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{above}.{key}".lstrip("."))
    elif value is None or isinstance(value, str):
        yield above, value
    else:
        yield above, str(value)
