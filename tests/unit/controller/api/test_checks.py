from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from controller.errors import InvalidSpec
from controller.resource import parse

RIGHT = "0xeF2A435e5EE44B2041100EF8cbC8ae035166606c"
CONTRACTS = {
    "serviceManager": RIGHT,
    "registryCoordinator": RIGHT.lower(),
    "operatorStateRetriever": RIGHT.lower(),
}


def chain(url: str = "http://a", **fields: Any) -> dict[str, Any]:
    return {"chain": {"endpoints": [{"name": "a", "url": url}], **fields}}


def external(**fields: Any) -> dict[str, Any]:
    return {"mode": "External", "external": fields}


def problems(**spec: Any) -> tuple[str, ...]:
    least = {
        "network": {"preset": "Mainnet"},
        "chain": {"endpoints": [{"name": "main", "url": "https://ethereum.example.org"}]},
        "submission": {"mode": "Observe"},
    }
    metadata = {"namespace": "a", "name": "b", "uid": "c"}
    try:
        parse({"metadata": metadata, "spec": least | spec})
    except InvalidSpec as invalid:
        return invalid.problems
    return ()


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"submission": {"maxFeePerGas": "1gwei", "maxPriorityFeePerGas": "1000000000wei"}},
        {"service": {"sourceRanges": ["10.0.0.0/8", "2001:db8::/32"]}},
        {"network": {"chainId": 1, "contracts": CONTRACTS}},
        {"aggregation": {"window": "0s", "expiry": "1ms"}, "redis": external(url="redis://a/1/")},
        chain("http://[::1]:8545?a"),
        {"redis": external(sentinels=["a:0"], masterName="m")},  # of several, it is passed over
    ],
)
def test_what_can_be_has_no_problem(spec: dict[str, Any]) -> None:
    assert problems(**spec) == ()


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        (
            {"submission": {"maxFeePerGas": "1gwei", "maxPriorityFeePerGas": "2gwei"}},
            "spec.submission.maxPriorityFeePerGas: ",
        ),
        (
            {"service": {"sourceRanges": ["10.0.0.0/8", "10.0.0.1/8"]}},
            "spec.service.sourceRanges[1]: ",
        ),
        (
            {"service": {"proxyProtocol": {"version": "V1", "trustedCidrs": ["here"]}}},
            "spec.service.proxyProtocol.trustedCidrs[0]: ",
        ),
        (
            {
                "network": {
                    "chainId": 1,
                    "contracts": CONTRACTS | {"serviceManager": RIGHT.replace("eF", "Ef")},
                }
            },
            "spec.network.contracts.serviceManager: ",
        ),
        (
            {
                "submission": {
                    "mode": "Observe",
                    "maxFeePerGas": "1ether",
                    "maxPriorityFeePerGas": "1.000000000000000001ether",
                }
            },
            "spec.submission.maxPriorityFeePerGas: ",
        ),
        (chain(pollInterval="0s"), "spec.chain.pollInterval: must be longer than 0s; "),
        (chain(requestTimeout="0.0h0ms"), "spec.chain.requestTimeout: "),
        (
            {"submission": {"mode": "Observe", "resubmitAfter": "0s"}},
            "spec.submission.resubmitAfter: ",
        ),
        ({"aggregation": {"window": "60m", "expiry": "1h"}}, "spec.aggregation.window: "),
        *(
            (chain(url), "spec.chain.endpoints[0].url: needs a host")
            for url in ("http://a:99999", "http://a:0", "http:///x", "http://[zz]", "http://a:b")
        ),
        (
            {
                "signer": {
                    "type": "Web3Signer",
                    "web3Signer": {"url": "https://a:65536", "address": RIGHT},
                }
            },
            "spec.signer.web3Signer.url: needs a host",
        ),
        (
            {"redis": external(sentinels=["a:1", "a:99999"], masterName="m")},
            "spec.redis.external.sentinels[1]: needs a port up to 65535",
        ),
        *(
            ({"redis": external(url=url)}, "spec.redis.external.url: needs a host")
            for url in ("redis://a:99999", "rediss:///1", "redis://[zz]", "redis://a/abc")
        ),
    ],
)
def test_what_cannot_be_is_told_with_its_path(spec: dict[str, Any], path: str) -> None:
    (problem,) = problems(**spec)
    assert problem.startswith(path)


@pytest.mark.parametrize("wrap", [lambda below: {"a": below}, lambda below: [below]])
def test_a_template_that_is_nested_beyond_reason_is_refused(
    wrap: Callable[[object], object],
) -> None:
    nested: object = "x"
    for _ in range(400):
        nested = wrap(nested)
    [told] = problems(template={"spec": {"a": nested}})
    assert told.startswith("spec.template: nested deeper than")
    [told] = problems(redis={"managed": {"template": {"spec": nested}}})
    assert told.startswith("spec.redis.managed.template: nested deeper than")
