"""Log lines: JSON for machines, text for people."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from pythonjsonlogger.core import RESERVED_ATTRS, merge_record_extra
from pythonjsonlogger.json import JsonFormatter

if TYPE_CHECKING:
    from typing import TextIO

_QUIET = {
    "kopf": logging.WARNING,
    # It warns that signals are ours, which is meant.
    "kopf._core.reactor.running": logging.ERROR,
    "aiohttp": logging.WARNING,
    "asyncio": logging.WARNING,
    "aggregator.leadership": logging.INFO,
}
"""Lowest levels of libraries."""


class LogFormat(StrEnum):
    """Form of log lines."""

    JSON = "json"
    TEXT = "text"


class JsonLines(JsonFormatter):
    """One JSON object a line: time, level, logger, event, facts, exception."""

    def __init__(self) -> None:
        super().__init__(json_default=str, json_ensure_ascii=False)

    def add_fields(
        self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]
    ) -> None:
        """Fill ``log_data``; a fact that is called as one of our own fields gets an underscore."""
        log_data["time"] = _time(record)
        log_data["level"] = record.levelname.lower()
        log_data["logger"] = record.name
        log_data["event"] = record.message
        for key, value in _facts(record).items():
            log_data[f"{key}_" if key in log_data else key] = value
        if "exc_info" in message_dict:
            log_data["exception"] = message_dict["exc_info"]


class TextLines(logging.Formatter):
    """``12:00:00.000 INFO    event  key=value …``."""

    def format(self, record: logging.LogRecord) -> str:
        facts = "".join(
            f" {key}={json.dumps(value, default=str, ensure_ascii=False)}"
            for key, value in _facts(record).items()
        )
        line = f"{_time(record)} {record.levelname:<7} {_one_line(record.getMessage())}{facts}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def configure(log_format: LogFormat, level: str, stream: TextIO | None = None) -> None:
    """Send the process's log lines to ``stream`` (standard error) and nowhere else.

    Repeats replace what was set before. Warnings of libraries become log lines.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines() if log_format is LogFormat.JSON else TextLines())
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name, least in _QUIET.items():
        logging.getLogger(name).setLevel(max(root.level, least))
    logging.captureWarnings(capture=True)


_RESERVED = frozenset(RESERVED_ATTRS) | {"message", "color_message"}


def _facts(record: logging.LogRecord) -> dict[str, object]:
    facts: dict[str, object] = {}
    merge_record_extra(record, facts, reserved=_RESERVED)
    for of_kopf in ("settings", "k8s_ref", "k8s_skip"):
        facts.pop(of_kopf, None)
    return facts


def _time(record: logging.LogRecord) -> str:
    """Return RFC 3339 in UTC, milliseconds."""
    moment = datetime.fromtimestamp(record.created, tz=UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _one_line(text: str) -> str:
    return text if text.isprintable() else json.dumps(text, ensure_ascii=False)[1:-1]
