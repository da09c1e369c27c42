"""Log lines: JSON for machines, text for people.

A line has a constant event and facts from ``extra``: ``batch`` and ``operator`` are the ids'
bytes and come out as 0x hex.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pythonjsonlogger.core import RESERVED_ATTRS, merge_record_extra
from pythonjsonlogger.json import JsonFormatter

from aligned.telemetry.plain import plain

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from typing import TextIO


class LogFormat(StrEnum):
    """How log lines look."""

    JSON = "json"
    TEXT = "text"


class JsonLines(JsonFormatter):
    """One JSON object a line: time, level, logger, event, facts, exception."""

    def __init__(self, hidden: Collection[str] = ()) -> None:
        super().__init__(json_default=plain, json_ensure_ascii=False)
        self._hidden = _RESERVED.union(hidden)

    def add_fields(
        self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]
    ) -> None:
        """Fill ``log_data``; a fact that is called as one of our own fields gets an underscore."""
        log_data["time"] = _time(record)
        log_data["level"] = record.levelname.lower()
        log_data["logger"] = record.name
        log_data["event"] = record.message
        for key, value in _facts(record, self._hidden).items():
            log_data[f"{key}_" if key in log_data else key] = plain(value)
        if "exc_info" in message_dict:
            log_data["exception"] = message_dict["exc_info"]


class TextLines(logging.Formatter):
    """``12:00:00.000 INFO    event  key=value …``."""

    def __init__(self, hidden: Collection[str] = ()) -> None:
        super().__init__()
        self._hidden = _RESERVED.union(hidden)

    def format(self, record: logging.LogRecord) -> str:
        told = _facts(record, self._hidden)
        facts = "".join(f" {key}={_word(value)}" for key, value in told.items())
        line = f"{_time(record)} {record.levelname:<7} {_one_line(record.getMessage())}{facts}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def configure(
    log_format: LogFormat,
    level: str,
    stream: TextIO | None = None,
    *,
    quiet: Mapping[str, int] = MappingProxyType({}),
    hidden: Collection[str] = (),
) -> None:
    """Send the process's log lines to ``stream`` (standard error) and nowhere else.

    Repeats replace what was set before. Warnings of libraries become log lines.

    Args:
        log_format: For machines or for people.
        level: Lines below it are not written; in any case.
        stream: Where to; None: standard error.
        quiet: Lowest levels of libraries, by the name of their logger. Those whose lower levels
            print URLs belong here, as URLs hold keys.
        hidden: Facts that a library adds to its lines and nobody wants to see.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines(hidden) if log_format is LogFormat.JSON else TextLines(hidden))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name, least in quiet.items():
        logging.getLogger(name).setLevel(max(root.level, least))
    logging.captureWarnings(capture=True)


def _facts(record: logging.LogRecord, hidden: frozenset[str]) -> dict[str, object]:
    facts: dict[str, object] = {}
    merge_record_extra(record, facts, reserved=hidden)
    return facts


_RESERVED = frozenset(RESERVED_ATTRS) | {"message", "color_message"}


def _time(record: logging.LogRecord) -> str:
    """Return RFC 3339 in UTC, milliseconds."""
    moment = datetime.fromtimestamp(record.created, tz=UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _word(value: object) -> str:
    """Return a value without anything that could end the line or look like the next fact."""
    shown = plain(value)
    if isinstance(shown, str) and shown.isprintable() and shown and " " not in shown:
        return shown
    return json.dumps(shown, ensure_ascii=False)


def _one_line(text: str) -> str:
    return text if text.isprintable() else json.dumps(text, ensure_ascii=False)[1:-1]
