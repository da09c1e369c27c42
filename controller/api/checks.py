"""Pure: what is wrong with a spec that the API server could not see, or took before it had a rule.

What passes here is configuration that the daemon begins with: it ends at once over any other.
"""

from __future__ import annotations

from fractions import Fraction
from ipaddress import ip_network
from string import digits
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from eth_utils.address import is_checksum_address

from controller.api.fields import MOST_PORT, seconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from controller.api.spec import AggregatorSpec, ExternalRedis

_UNITS = {"gwei": 10**9, "ether": 10**18, "wei": 1}
"""In wei; ``wei`` last, as it ends the first."""

MOST_NESTED = 50
"""Levels of a pod template; what walks through one calls itself once or more for each."""


def problems(spec: AggregatorSpec) -> tuple[str, ...]:
    """Return what a person has to change, one sentence each, with the path of the field."""
    return tuple(_problems(spec))


def _problems(spec: AggregatorSpec) -> Iterator[str]:
    tip, fee = spec.submission.max_priority_fee_per_gas, spec.submission.max_fee_per_gas
    if tip is not None and fee is not None and wei(tip) > wei(fee):
        yield "spec.submission.maxPriorityFeePerGas: must not exceed maxFeePerGas"
    yield from _addresses(spec)
    yield from _durations(spec)
    yield from _urls(spec)
    if spec.redis.external is not None:
        yield from _redis(spec.redis.external)
    yield from _overlays(spec)
    service = spec.service
    yield from _networks("spec.service.sourceRanges", service.source_ranges)
    trusted = service.proxy_protocol.trusted_cidrs
    yield from _networks("spec.service.proxyProtocol.trustedCidrs", trusted)


def _durations(spec: AggregatorSpec) -> Iterator[str]:
    lasting = {
        "spec.chain.pollInterval": spec.chain.poll_interval,
        "spec.chain.requestTimeout": spec.chain.request_timeout,
        "spec.submission.resubmitAfter": spec.submission.resubmit_after,
    }
    for path, duration in lasting.items():
        if not seconds(duration):
            yield f"{path}: must be longer than {duration}; write for example 15s"
    if seconds(spec.aggregation.window) >= seconds(spec.aggregation.expiry):
        yield "spec.aggregation.window: must be shorter than expiry"


def _urls(spec: AggregatorSpec) -> Iterator[str]:
    found = {
        f"spec.chain.endpoints[{index}].url": endpoint.url
        for index, endpoint in enumerate(spec.chain.endpoints)
    }
    if spec.signer is not None and spec.signer.web3signer is not None:
        found["spec.signer.web3Signer.url"] = spec.signer.web3signer.url
    for path, url in found.items():
        if url is not None and (not _names_host(url) or urlsplit(url).port == 0):
            yield (
                f"{path}: needs a host, if any a port from 1 to {MOST_PORT}; write for example"
                " https://ethereum.example.org:8545"
            )


def _redis(external: ExternalRedis) -> Iterator[str]:
    for index, sentinel in enumerate(external.sentinels):
        if int(sentinel.rpartition(":")[2]) > MOST_PORT:
            path = f"spec.redis.external.sentinels[{index}]"
            yield f"{path}: needs a port up to {MOST_PORT}; write for example redis-0:26379"
    url = external.url
    if url is None:
        return
    if not _names_host(url) or urlsplit(url).path.strip("/").strip(digits):
        yield (
            f"spec.redis.external.url: needs a host, if any a port up to {MOST_PORT}, and nothing"
            " behind but the number of a database; write for example redis://cache:6379/0"
        )


def _names_host(url: str) -> bool:
    """Tell whether a URL has a host, and a port only where there can be one."""
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and (parts.port is None or parts.port <= MOST_PORT)
    except ValueError:
        return False


def _overlays(spec: AggregatorSpec) -> Iterator[str]:
    managed = spec.redis.managed
    found = {
        "spec.template": spec.template,
        "spec.redis.managed.template": managed.template if managed is not None else None,
    }
    for path, overlay in found.items():
        if _is_deeper(overlay, MOST_NESTED):
            yield f"{path}: nested deeper than {MOST_NESTED} levels, which no pod template is"


def _is_deeper(value: object, levels: int) -> bool:
    level = [value]
    for _ in range(levels):
        level = [below for each in level for below in _below(each)]
    return bool(level)


def _below(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _addresses(spec: AggregatorSpec) -> Iterator[str]:
    found = {}
    if spec.network.contracts is not None:
        named = spec.network.contracts.model_dump(by_alias=True)
        found = {f"spec.network.contracts.{key}": value for key, value in named.items()}
    if spec.signer is not None and spec.signer.web3signer is not None:
        found["spec.signer.web3Signer.address"] = spec.signer.web3signer.address
    for path, address in found.items():
        letters = address.removeprefix("0x")
        is_plain = letters in {letters.lower(), letters.upper()}
        if not is_plain and not is_checksum_address(address):
            yield f"{path}: {address} has a wrong checksum: a digit or the case of a letter is off"


def _networks(path: str, cidrs: Iterable[str]) -> Iterator[str]:
    for index, cidr in enumerate(cidrs):
        try:
            ip_network(cidr)
        except ValueError as error:
            yield f"{path}[{index}]: {error}; write for example 10.0.0.0/8"


def wei(fee: str) -> Fraction:
    """Return a fee such as ``30gwei`` in wei, exactly; the schema has judged its form."""
    unit = next(unit for unit in _UNITS if fee.endswith(unit))
    return Fraction(fee.removesuffix(unit)) * _UNITS[unit]
