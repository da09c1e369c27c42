"""The PROXY protocol of load balancers, which tells where a connection really comes from; pure.

Source: HAProxy, ``doc/proxy-protocol.txt``, sections 2.1 and 2.2.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from typing import TYPE_CHECKING, NamedTuple

from aggregator.settings import ProxyProtocol
from aligned.errors import BadConfiguration, MalformedMessage

if TYPE_CHECKING:
    from collections.abc import Sequence

_V1_MAX_BYTES = 107
_V1 = re.compile(rb"PROXY (?:(UNKNOWN)[^\r\n]*|TCP[46] (\S+) \S+ (\d{1,5}) \d{1,5})\r\n")
_V2_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_V2_HEAD = struct.Struct(">12sBBH")
_V2_MAX_BYTES = 4096
_V2_LOCAL, _V2_PROXY = 0x20, 0x21
_V2_ADDRESS_BYTES = {0x11: 4, 0x21: 16}
"""TCP over IPv4 and IPv6; other families carry no address of use."""


class Header(NamedTuple):
    """A complete header."""

    source: tuple[str, int] | None
    """Host and port of the client; None where the balancer speaks for itself or does not know."""
    size: int
    """Bytes it took."""


def read(version: ProxyProtocol, data: bytes) -> Header | None:
    """Return the header at the start of ``data``, or None while it is incomplete.

    Raises:
        MalformedMessage: The data begins otherwise.
    """
    return _read_v1(data) if version is ProxyProtocol.V1 else _read_v2(data)


def _read_v1(data: bytes) -> Header | None:
    match = _V1.match(data)
    if match is not None:
        if match[1]:
            return Header(None, match.end())
        return Header((_host(match[2]), _port(int(match[3]))), match.end())
    start = b"PROXY "
    if not data.startswith(start[: len(data)]) or b"\n" in data or len(data) >= _V1_MAX_BYTES:
        raise MalformedMessage("the connection does not begin with a PROXY header, version 1")
    return None


def _host(text: bytes) -> str:
    try:
        return str(ipaddress.ip_address(text.decode("latin-1")))
    except ValueError as error:
        raise MalformedMessage("a PROXY header has no address") from error


def _port(number: int) -> int:
    if number >= 1 << 16:
        raise MalformedMessage("a PROXY header has no port")
    return number


def _read_v2(data: bytes) -> Header | None:
    if not data.startswith(_V2_SIGNATURE[: len(data)]):
        raise MalformedMessage("the connection does not begin with a PROXY header, version 2")
    if len(data) < _V2_HEAD.size:
        return None
    _, command, family, length = _V2_HEAD.unpack_from(data)
    if command not in {_V2_LOCAL, _V2_PROXY} or length > _V2_MAX_BYTES:
        raise MalformedMessage("a PROXY header has an unknown command, or is too long")
    end = _V2_HEAD.size + length
    if len(data) < end:
        return None
    width = _V2_ADDRESS_BYTES.get(family)
    if command == _V2_LOCAL or width is None:
        return Header(None, end)
    if length < 2 * width + 4:
        raise MalformedMessage("a PROXY header is too short for its addresses")
    start = _V2_HEAD.size
    host = str(ipaddress.ip_address(data[start : start + width]))
    port = int.from_bytes(data[start + 2 * width : start + 2 * width + 2])
    return Header((host, port), end)


class Trust:
    """The peers whose header is believed: they must send one, all others must not."""

    def __init__(self, cidrs: Sequence[str]) -> None:
        """Read ``cidrs``.

        Raises:
            BadConfiguration: One of them is no network.
        """
        problems: list[str] = []
        self._networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        for number, cidr in enumerate(cidrs):
            try:
                self._networks.append(ipaddress.ip_network(cidr))
            except ValueError as error:
                problems.append(f"listen.trusted_cidrs[{number}]: {error}")
        if problems:
            raise BadConfiguration(tuple(problems))

    def covers(self, host: str) -> bool:
        """Tell whether ``host`` is in one of the networks; an IPv4 address may come mapped."""
        try:
            address = ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        return any(address in network for network in self._networks)
