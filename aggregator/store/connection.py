"""Edge: one connection to a Redis or Sentinel, and what its errors mean to us.

The client library's connection is used without its pools, retries and Sentinel client: those
reconnect to the old primary, trust the first Sentinel that answers, and wait 59 s for one that
vanished.
"""

from __future__ import annotations

import asyncio
import ssl
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from redis.asyncio.connection import Connection, SSLConnection
from redis.credentials import CredentialProvider
from redis.exceptions import (
    AuthenticationError,
    NoPermissionError,
    RedisError,
    ResponseError,
)

from aggregator.sections import split_redis_url
from aligned.errors import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

CONNECT_SECONDS = 0.5
"""For the socket; a black-holed address costs this much."""

HANDSHAKE_SECONDS = 1.0
"""For the socket, TLS and authentication: a frozen server still accepts connections."""

Argument: TypeAlias = bytes | str | int
Reply: TypeAlias = "bytes | int | list[Reply] | Refusal | None"


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error that a server replied; the connection is still good."""

    code: str
    """First word: FENCED, NOSCRIPT, OOM, READONLY, LOADING, NOREPLICAS, MASTERDOWN, …"""
    text: str
    """The rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """Files for TLS, PEM. They are read at every connect, so renewed ones are taken up."""

    ca_file: Path | None = None
    """None: the system's authorities."""
    certificate_file: Path | None = None
    key_file: Path | None = None
    check_hostname: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How to get in."""

    username: str | None = None
    """ACL user; None: the default user."""
    password_file: Path | None = None
    """Read at every connect; white space around it is dropped."""
    tls: Tls | None = None
    """None: plain TCP."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server named in the configuration."""

    address: Address
    access: Access = field(default_factory=Access)
    database: int = 0


def parse_url(url: str, access: Access) -> Server:
    """Return the server of ``redis://[user@]host[:port][/database]``; ``rediss`` means TLS.

    Args:
        url: Has no password: that is a file in ``access``.
        access: A user in ``url`` and its scheme are added to it.

    Raises:
        ValueError: Not such a URL; the message holds nothing secret.
    """
    place = split_redis_url(url)
    return Server(
        address=Address(place.host, place.port),
        access=Access(
            username=place.username or access.username,
            password_file=access.password_file,
            tls=access.tls or Tls() if place.tls else access.tls,
        ),
        database=place.database,
    )


class Files(CredentialProvider):
    """User and password for the client library."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """Read them.

        Raises:
            StoreUnavailable: The file cannot be read.
        """
        username, file = self._access.username, self._access.password_file
        try:
            password = "" if file is None else file.read_text().strip()
        except (OSError, ValueError) as error:
            msg = f"the password file {file} cannot be read: {error}; check the mounted secret"
            raise StoreUnavailable(msg) from error
        return (password,) if username is None else (username, password)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        """Read them without blocking the loop."""
        return await asyncio.to_thread(self.get_credentials)


async def connect(server: Server, name: str) -> Connection:
    """Return a connection that is authenticated; the caller closes it.

    Args:
        server: Where to.
        name: Shown by CLIENT LIST.

    Raises:
        StoreUnavailable: It does not answer, or does not let us in.
    """
    access = server.access
    knows_password = access.username is not None or access.password_file is not None
    common: dict[str, Any] = {
        "host": server.address.host,
        "port": server.address.port,
        "db": server.database,
        "client_name": name,
        "credential_provider": Files(access) if knows_password else None,
        "socket_timeout": None,  # every call has a deadline of its own
        "socket_connect_timeout": CONNECT_SECONDS,
        "socket_keepalive": True,
        "protocol": 2,
        "driver_info": None,  # CLIENT SETINFO is not in every ACL
    }
    connection = Connection(**common)
    if (tls := access.tls) is not None:
        connection = SSLConnection(
            **common,
            ssl_ca_certs=None if tls.ca_file is None else str(tls.ca_file),
            ssl_certfile=None if tls.certificate_file is None else str(tls.certificate_file),
            ssl_keyfile=None if tls.key_file is None else str(tls.key_file),
            ssl_check_hostname=tls.check_hostname,
            ssl_min_version=ssl.TLSVersion.TLSv1_2,
        )
    try:
        with translated(server.address):
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                await connection.connect()  # type: ignore[no-untyped-call]  # the library's
    except TimeoutError as error:
        await connection.disconnect(nowait=True)
        msg = f"{server.address} did not answer in time"
        raise StoreUnavailable(msg) from error
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
    return connection


async def exchange(connection: Connection, commands: Sequence[Sequence[Argument]]) -> list[Reply]:
    """Send commands in one write and return their replies in order.

    Cancelling closes the connection: its replies would belong to nobody.

    Raises:
        StoreUnavailable: The connection is lost.
    """
    with translated(Address(connection.host, connection.port)):
        await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
        return [await _reply(connection) for _ in commands]


async def receive(connection: Connection) -> Reply:
    """Return what the server sends next, e.g. a message of a subscription.

    Cancelling closes the connection.

    Raises:
        StoreUnavailable: The connection is lost.
    """
    with translated(Address(connection.host, connection.port)):
        return await _reply(connection)


async def _reply(connection: Connection) -> Reply:
    try:
        return cast("Reply", await connection.read_response())
    except ResponseError as error:
        return _refusal(error)


def texts(reply: Reply) -> list[bytes]:
    """Return the strings of a list reply; none if it is no list."""
    return [part for part in reply if isinstance(part, bytes)] if isinstance(reply, list) else []


def _refusal(error: ResponseError) -> Refusal:
    # The library cuts the code off those texts it has classes for, and keeps it beside them.
    if error.status_code:
        return Refusal(error.status_code, str(error))
    code, _, text = str(error).partition(" ")
    return Refusal(code, text)


@contextmanager
def translated(address: Address) -> Iterator[None]:
    """Turn the client library's errors into ours.

    Raises:
        StoreUnavailable: What happened, at which server, and what to do where that is known.
    """
    try:
        yield
    except (AuthenticationError, NoPermissionError) as error:
        msg = f"{address} does not let us in: {error}; check user, password file and ACL"
        raise StoreUnavailable(msg) from error
    except (RedisError, OSError) as error:
        msg = f"{address}: {error}"
        raise StoreUnavailable(msg) from error
