"""Pure: what is wrong with a spec that the API server could not see."""

from __future__ import annotations

from ipaddress import ip_network
from typing import TYPE_CHECKING

from eth_utils.address import is_checksum_address

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from controller.api.spec import AggregatorSpec

_UNITS = {"gwei": 1e9, "ether": 1e18, "wei": 1.0}
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
    yield from _overlays(spec)
    service = spec.service
    yield from _networks("spec.service.sourceRanges", service.source_ranges)
    trusted = service.proxy_protocol.trusted_cidrs
    yield from _networks("spec.service.proxyProtocol.trustedCidrs", trusted)


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
        digits = address.removeprefix("0x")
        is_plain = digits in {digits.lower(), digits.upper()}
        if not is_plain and not is_checksum_address(address):
            yield f"{path}: {address} has a wrong checksum: a digit or the case of a letter is off"


def _networks(path: str, cidrs: Iterable[str]) -> Iterator[str]:
    for index, cidr in enumerate(cidrs):
        try:
            ip_network(cidr)
        except ValueError as error:
            yield f"{path}[{index}]: {error}; write for example 10.0.0.0/8"


def wei(fee: str) -> float:
    """Return a fee such as ``30gwei`` in wei, to compare it; the schema has judged its form."""
    unit = next(unit for unit in _UNITS if fee.endswith(unit))
    return float(fee.removesuffix(unit)) * _UNITS[unit]
