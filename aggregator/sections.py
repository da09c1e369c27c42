"""What the sections of the configuration are made of: their base, addresses and URLs."""

from __future__ import annotations

from typing import Annotated, NamedTuple
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, PlainSerializer

_MAX_PORT = 65535


class Misfits(ValueError):
    """Values of a section that do not fit each other.

    Attributes:
        problems: What is wrong, by key within the section.
    """

    def __init__(self, problems: dict[str, str]) -> None:
        super().__init__("; ".join(f"{key} {problem}" for key, problem in problems.items()))
        self.problems = problems


def split_address(address: str) -> tuple[str, int]:
    """Return ``"host:port"`` as host and port; an IPv6 host loses its brackets.

    Raises:
        ValueError: Not host:port, or no such port.
    """
    host, colon, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not host or (":" in host and not bracketed):
        msg = f"{address!r} is not host:port, for example 0.0.0.0:8090 or '[::]:8090'"
        raise ValueError(msg)
    if not port.isdecimal() or int(port) > _MAX_PORT:
        msg = f"{port!r} is not a port; write a number up to {_MAX_PORT}"
        raise ValueError(msg)
    return host.strip("[]"), int(port)


def _listen_address(address: str) -> str:
    split_address(address)
    return address


def host_of(url: str) -> str:
    """Return what of ``url`` may be shown: scheme, host and port; paths and queries hold keys."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or "?"
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "(not a URL)"
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{port}"


def redacted(url: str | None) -> str | None:
    """Return ``url`` for a person to read: whatever follows the host is replaced."""
    if url is None or host_of(url) == url.rstrip("/"):
        return url
    return f"{host_of(url)}/(redacted)"


def _http_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        fine = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        fine = False
    if not fine:
        msg = "must be a URL that begins with http:// or https://"
        raise ValueError(msg)
    return url


def _without_credentials(url: str) -> str:
    if "@" in urlsplit(url).netloc:
        msg = "must not hold a user or password"
        raise ValueError(msg)
    return url


class RedisUrl(NamedTuple):
    """What a URL says of a Redis."""

    host: str
    port: int
    database: int
    username: str | None
    tls: bool


_REDIS_PORT = 6379


def split_redis_url(url: str) -> RedisUrl:
    """Take ``redis://[user@]host[:port][/database]`` apart; ``rediss`` means TLS.

    Raises:
        ValueError: Not such a URL, or with a password; the message holds nothing secret.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"redis", "rediss"} or not parts.hostname:
        msg = "must begin with redis:// or rediss:// and name a host"
        raise ValueError(msg)
    if parts.password is not None:
        msg = "must not hold a password: put it into a file"
        raise ValueError(msg)
    database = parts.path.strip("/")
    if database and not database.isdecimal():
        msg = "may end with a database number and nothing else"
        raise ValueError(msg)
    username = unquote(parts.username) if parts.username else None
    port = parts.port or _REDIS_PORT
    return RedisUrl(parts.hostname, port, int(database or 0), username, parts.scheme == "rediss")


ListenAddress = Annotated[str, AfterValidator(_listen_address)]
SecretUrl = Annotated[str, AfterValidator(_http_url), PlainSerializer(redacted, when_used="json")]
PlainUrl = Annotated[SecretUrl, AfterValidator(_without_credentials)]


class Section(BaseModel):
    """A part of the file; unknown keys are errors, and nothing changes after reading."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, use_attribute_docstrings=True
    )
