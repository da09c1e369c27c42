"""Settings of the controller: options of ``controller run``, and the environment.

Each option has a variable of the same name, ``CONTROLLER_…``; the option wins. All problems are
told together.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from aligned.errors import BadConfiguration
from controller.api.fields import DURATION, MOST_PORT, NAME, seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

PREFIX = "CONTROLLER_"
LEASE_NAME = "aligned-aggregator-operator"
LOG_FORMATS = ("json", "text")
LOG_LEVELS = ("debug", "info", "warning", "error")

_LEAST_RESYNC, _MOST_RESYNC = 10.0, 3600.0
_MOST_WORKERS = 64

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set."""

    image: str
    """Of the aggregator, where a resource names none."""
    redis_image: str
    """Of a managed Redis, where a resource names none."""
    namespaces: tuple[str, ...] = ()
    """Whose resources are served. Empty: our own, or all of them."""
    all_namespaces: bool = False
    lease_name: str = LEASE_NAME
    """The controller's own Lease."""
    lease_namespace: str | None = None
    """None: our own."""
    pod: str = "controller"
    """What this replica is called."""
    telemetry: tuple[str, int] = ("", 9092)
    """Host and port; no host: all addresses."""
    resync_seconds: float = 300.0
    """Between two lists of everything."""
    workers: int = 4
    """Resources worked on at once."""
    log_format: str = "json"
    log_level: str = "info"


def parse(options: Mapping[str, object], environment: Mapping[str, str], host: str) -> Settings:
    """Return the settings.

    Args:
        options: By name with underscores; None, empty or False: not given.
        environment: Of the process.
        host: What this machine is called; a pod's name.

    Raises:
        BadConfiguration: With every problem there is.
    """
    given = _Given(options, environment)
    namespaces, everywhere = given.names("namespace"), given.flag("all_namespaces")
    if namespaces and everywhere:
        given.problems.append("--namespace and --all-namespaces: give one of them")
    settings = Settings(
        image=given.required("image", "which aggregator to run where a resource names none"),
        redis_image=given.required("redis_image", "which Redis to run where a resource names none"),
        namespaces=namespaces,
        all_namespaces=everywhere,
        lease_name=given.one("lease_name", _lease_name, LEASE_NAME),
        lease_namespace=given.one("lease_namespace", _name, None),
        pod=environment.get("POD_NAME") or host,
        telemetry=given.one("telemetry", _address, ("", 9092)),
        resync_seconds=given.one("resync", _resync, 300.0),
        workers=given.one("workers", _workers, 4),
        log_format=given.one("log_format", _one_of(LOG_FORMATS), "json"),
        log_level=given.one("log_level", _one_of(LOG_LEVELS), "info"),
    )
    if given.problems:
        raise BadConfiguration(tuple(given.problems))
    return settings


class _Given:
    """What was given, and what is wrong with it."""

    def __init__(self, options: Mapping[str, object], environment: Mapping[str, str]) -> None:
        self._options = options
        self._environment = environment
        self.problems: list[str] = []

    def one(self, name: str, parse: Callable[[str], T], default: T) -> T:
        value = self._options.get(name)
        text = str(value) if value else self._variable(name)
        if not text:
            return default
        try:
            return parse(text.strip())
        except ValueError as error:
            self.problems.append(f"{self._told(name, from_option=bool(value))}: {error}")
            return default

    def required(self, name: str, what: str) -> str:
        found = self.one(name, str, "")
        if not found:
            self.problems.append(f"{self._told(name, from_option=True)}: required; {what}")
        return found

    def flag(self, name: str) -> bool:
        return bool(self._options.get(name)) or self.one(f"{name}", _truth, default=False)

    def names(self, name: str) -> tuple[str, ...]:
        value = self._options.get(name)
        several: Sequence[str] = value if isinstance(value, tuple) else ()
        variable = self._variable(f"{name}s") or self._variable(name)
        found = [one.strip() for one in (several or variable.split(",")) if one.strip()]
        for one in found:
            try:
                _name(one)
            except ValueError as error:
                self.problems.append(f"{self._told(name, from_option=bool(several))}: {error}")
        return tuple(dict.fromkeys(found))

    def _variable(self, name: str) -> str:
        return self._environment.get(PREFIX + name.upper(), "")

    @staticmethod
    def _told(name: str, *, from_option: bool) -> str:
        return f"--{name.replace('_', '-')}" if from_option else PREFIX + name.upper()


def _name(text: str) -> str:
    if not re.fullmatch(NAME, text):
        msg = f"{text!r} is not the name of a namespace"
        raise ValueError(msg)
    return text


def _lease_name(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9]([-.a-z0-9]*[a-z0-9])?", text):
        msg = f"{text!r} is not the name of an object"
        raise ValueError(msg)
    return text


def _truth(text: str) -> bool:
    values = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    if text.lower() not in values:
        msg = f"{text!r} is neither true nor false"
        raise ValueError(msg)
    return values[text.lower()]


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    is_bracketed = host.startswith("[") and host.endswith("]")
    if not colon or (":" in host and not is_bracketed):
        msg = f"{text!r} is not host:port, for example :9092, 0.0.0.0:9092 or '[::]:9092'"
        raise ValueError(msg)
    if not port.isdecimal() or int(port) > MOST_PORT:
        msg = f"{port!r} is not a port; write a number up to {MOST_PORT}"
        raise ValueError(msg)
    return host.strip("[]"), int(port)


def _resync(text: str) -> float:
    if not re.fullmatch(DURATION, text):
        msg = f"{text!r} is not a duration; write for example '5m' or '90s'"
        raise ValueError(msg)
    resync = seconds(text)
    if not _LEAST_RESYNC <= resync <= _MOST_RESYNC:
        msg = f"{text} is out of range: from 10s to 1h"
        raise ValueError(msg)
    return resync


def _workers(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= _MOST_WORKERS:
        msg = f"{text!r} is not a number from 1 to {_MOST_WORKERS}"
        raise ValueError(msg)
    return int(text)


def _one_of(values: Sequence[str]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in values:
            msg = f"{text!r} is none of {', '.join(values)}"
            raise ValueError(msg)
        return text.lower()

    return parse
