from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from aggregator.ingress import proxy
from aggregator.ingress.proxy import Header, Trust
from aggregator.settings import ProxyProtocol
from aligned.errors import BadConfiguration, MalformedMessage

V1, V2 = ProxyProtocol.V1, ProxyProtocol.V2
SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
V4 = bytes([203, 0, 113, 7, 10, 0, 0, 1]) + (5000).to_bytes(2) + (8090).to_bytes(2)
V6 = bytes.fromhex("20010db8" + "00" * 11 + "01") + bytes(16) + (5000).to_bytes(2) + bytes(2)


def v2(command: int, family: int, addresses: bytes) -> bytes:
    return SIGNATURE + bytes((command, family)) + len(addresses).to_bytes(2) + addresses


HEADERS = [
    pytest.param(
        V1, b"PROXY TCP4 203.0.113.7 10.0.0.1 5000 8090\r\n", ("203.0.113.7", 5000), id="v1 IPv4"
    ),
    pytest.param(
        V1, b"PROXY TCP6 2001:db8::1 ::1 5000 8090\r\n", ("2001:db8::1", 5000), id="v1 IPv6"
    ),
    pytest.param(V1, b"PROXY UNKNOWN\r\n", None, id="v1 unknown"),
    pytest.param(V1, b"PROXY UNKNOWN ff:: ff:: 65535 65535\r\n", None, id="v1 unknown, longest"),
    pytest.param(V2, v2(0x21, 0x11, V4), ("203.0.113.7", 5000), id="v2 IPv4"),
    pytest.param(V2, v2(0x21, 0x21, V6), ("2001:db8::1", 5000), id="v2 IPv6"),
    pytest.param(V2, v2(0x21, 0x11, V4 + b"\x04\0\1x"), ("203.0.113.7", 5000), id="v2 with extras"),
    pytest.param(V2, v2(0x20, 0x00, b""), None, id="v2 health check of the balancer"),
    pytest.param(V2, v2(0x21, 0x00, b""), None, id="v2 unspecified family"),
]


@pytest.mark.parametrize(("version", "data", "source"), HEADERS)
def test_a_header_tells_the_source_and_its_own_size(
    version: ProxyProtocol, data: bytes, source: tuple[str, int] | None
) -> None:
    assert proxy.read(version, data + b"CONNECT") == Header(source, len(data))
    for end in range(len(data)):
        assert proxy.read(version, data[:end]) is None


@pytest.mark.parametrize(
    ("version", "data"),
    [
        (V1, b"CONNECT /_goRPC_ HTTP/1.0\n\n"),
        (V1, v2(0x21, 0x11, V4)),
        (V1, b"PROXY TCP4 203.0.113.7 10.0.0.1 5000\r\n"),
        (V1, b"PROXY TCP4 203.0.113.777 10.0.0.1 5000 8090\r\n"),
        (V1, b"PROXY TCP4 203.0.113.7 10.0.0.1 70000 8090\r\n"),
        (V1, b"PROXY UDP4 203.0.113.7 10.0.0.1 5000 8090\r\n"),
        (V1, b"PROXY " + b"x" * 101),
        (V2, b"PROXY TCP4 203.0.113.7 10.0.0.1 5000 8090\r\n"),
        (V2, v2(0x31, 0x11, V4)),
        (V2, v2(0x22, 0x11, V4)),
        (V2, v2(0x21, 0x11, V4[:11])),
        (V2, SIGNATURE + b"\x21\x11\x10\x01"),
    ],
)
def test_anything_else_is_malformed(version: ProxyProtocol, data: bytes) -> None:
    with pytest.raises(MalformedMessage):
        proxy.read(version, data)


@given(st.sampled_from([V1, V2]), st.sampled_from([b"", b"PROXY ", SIGNATURE]), st.binary())
def test_arbitrary_bytes_are_malformed_at_worst(
    version: ProxyProtocol, start: bytes, noise: bytes
) -> None:
    try:
        header = proxy.read(version, start + noise)
    except MalformedMessage:
        return
    assert header is None or header.size <= len(start + noise)


@pytest.mark.parametrize(
    ("host", "trusted"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("fd00::1%eth0", True),
        ("192.0.2.1", False),
        ("::1", False),
        ("unknown", False),
    ],
)
def test_trust_is_by_network(host: str, trusted: bool) -> None:
    assert Trust(("10.0.0.0/8", "fd00::/8")).covers(host) is trusted


def test_every_bad_network_is_reported() -> None:
    with pytest.raises(BadConfiguration) as caught:
        Trust(("10.0.0.0/8", "10.0.0.1/8", "nonsense"))
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "listen.trusted_cidrs[1]",
        "listen.trusted_cidrs[2]",
    ]
