"""Resources for the tests of rendering: one by hand, and any there may be."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings, strategies as st

from controller.api import fields
from controller.desired.known import Known, Release
from controller.resource import Resource, parse

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=50)
"""For a machine that does other things as well."""

UID = "11111111-2222-3333-4444-555555555555"
RELEASE = Release(image="aggregator:1", redis_image="valkey:1")
ADDRESSES = ("10.96.0.10", "10.96.0.11", "10.96.0.12")
KNOWN = Known(release=RELEASE, redis_addresses=ADDRESSES)

ADDRESS = "0x" + "ab" * 20
KEYSTORE = {"keystoreSecretRef": {"name": "key", "key": "keystore.json"}}
SMALLEST: dict[str, Any] = {
    "network": {"preset": "Mainnet"},
    "chain": {"endpoints": [{"name": "main", "url": "https://ethereum.example.org"}]},
    "signer": {"type": "Keystore", "keystore": KEYSTORE},
}
LONE: dict[str, Any] = {"replicas": 1, "redis": {"mode": "None"}}
SENTINELS: dict[str, Any] = {
    "redis": {
        "mode": "External",
        "external": {"sentinels": ["redis.example.org:26379"], "masterName": "aligned"},
    }
}


def resource(spec: dict[str, Any] | None = None, name: str = "aggregator") -> Resource:
    """The smallest one with ``spec`` in place of what it says there."""
    metadata = {"name": name, "namespace": "aligned", "uid": UID, "generation": 1}
    return parse({"metadata": metadata, "spec": SMALLEST | (spec or {})})


def _maybe(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


_secret = st.fixed_dictionaries(
    {"name": st.sampled_from(["one", "two"]), "key": st.sampled_from(["a", "b.c", "_d"])}
)
_duration = st.sampled_from(["1s", "2500ms", "1m30s", "0.5h"])
_labels = st.dictionaries(st.sampled_from(["a", "example.org/b"]), st.text("xy", max_size=3))
_resources = _maybe(
    requests=st.dictionaries(st.sampled_from(["cpu", "memory"]), st.sampled_from(["1", "250m"])),
    limits=st.dictionaries(st.sampled_from(["cpu", "memory"]), st.just("2")),
)
_network = st.one_of(
    st.fixed_dictionaries({"preset": st.sampled_from(["Mainnet", "Devnet"])}),
    st.just(
        {
            "chainId": 17000,
            "contracts": {
                "serviceManager": ADDRESS,
                "registryCoordinator": "0x" + "12" * 20,
                "operatorStateRetriever": "0x" + "00" * 19 + "1f",
            },
        }
    ),
)
_urls = st.one_of(
    st.fixed_dictionaries({"url": st.sampled_from(["http://a", "https://b:8/c?d=%20#e"])}),
    st.fixed_dictionaries({"urlSecretRef": _secret}),
)
_endpoints = st.lists(_urls, min_size=1, max_size=4).map(
    lambda urls: [url | {"name": f"e{index}"} for index, url in enumerate(urls)]
)
_chain = st.fixed_dictionaries(
    {"endpoints": _endpoints},
    optional={
        "deploymentBlock": st.integers(0, 2**53 - 1),
        "pollInterval": _duration,
        "requestTimeout": _duration,
    },
)
_pair = st.sampled_from([{}, {"name": "tls"}]).map(
    lambda secret: (
        {
            "clientCertificateSecretRef": secret | {"key": "tls.crt"},
            "clientKeySecretRef": secret | {"key": "tls.key"},
        }
        if secret
        else {}
    )
)
_web3signer = st.builds(
    lambda own, pair: {"url": "https://signer:9000", "address": ADDRESS} | own | pair,
    _maybe(caSecretRef=_secret, tokenSecretRef=_secret),
    _pair,
)
_keystore = st.one_of(
    st.fixed_dictionaries({"keystoreSecretRef": _secret}, optional={"passwordSecretRef": _secret})
)
_signer = st.one_of(
    st.fixed_dictionaries({"type": st.just("Keystore"), "keystore": _keystore}),
    st.fixed_dictionaries({"type": st.just("Web3Signer"), "web3Signer": _web3signer}),
)
_submission = _maybe(
    mode=st.sampled_from(["Active", "Observe"]),
    maxFeePerGas=st.sampled_from(["30gwei", "1.5gwei", "0.1ether"]),
    maxPriorityFeePerGas=st.sampled_from(["7wei", "1gwei"]),
    bumpPercent=st.integers(13, 100),
    resubmitAfter=_duration,
    maxInFlight=st.integers(1, 16),
)
_tls = st.builds(
    lambda own, has_pair: (
        own
        | (
            {
                "certificateSecretRef": {"name": "tls", "key": "tls.crt"},
                "keySecretRef": {"name": "tls", "key": "tls.key"},
            }
            if has_pair
            else {}
        )
    ),
    _maybe(caSecretRef=_secret, checkHostname=st.booleans()),
    st.booleans(),
)
_user = _maybe(username=st.just("u"), passwordSecretRef=_secret, copies=st.integers(0, 5), tls=_tls)
_external = st.one_of(
    st.builds(
        lambda own, user: own | user,
        st.fixed_dictionaries(
            {
                "sentinels": st.lists(
                    st.sampled_from(["a.b:26379", "[fd00::1]:1", "10.0.0.1:65535"]),
                    min_size=1,
                    max_size=9,
                ),
                "masterName": st.sampled_from(["m", "off", "1e3", "0x10", "null", "~", "ä: #"]),
            },
            optional={"sentinelUsername": st.just("s"), "sentinelPasswordSecretRef": _secret},
        ),
        _user,
    ),
    st.builds(
        lambda url, user: {"url": url} | user,
        st.sampled_from(["redis://r", "rediss://r:1/2", "redis://[fd00::1]:6379"]),
        _user,
    ),
)
_managed = _maybe(image=st.just("valkey:2"), resources=_resources)
_redis = st.one_of(
    st.fixed_dictionaries({"mode": st.just("Managed")}, optional={"managed": _managed}),
    st.fixed_dictionaries({"mode": st.just("External"), "external": _external}),
    st.just({"mode": "None"}),
)
_journal = _maybe(
    mode=st.sampled_from(["Persistent", "Ephemeral"]),
    size=st.sampled_from(["1Gi", "512Mi"]),
    storageClassName=st.just("fast"),
    retention=_maybe(
        whenDeleted=st.sampled_from(["Retain", "Delete"]),
        whenScaled=st.sampled_from(["Retain", "Delete"]),
    ),
)
_cidrs = st.lists(st.sampled_from(["10.0.0.0/8", "fd00::/8"]), min_size=1, max_size=2)
_proxy = st.fixed_dictionaries(
    {"version": st.sampled_from(["Disabled", "V1", "V2"]), "trustedCidrs": _cidrs}
)
_service = st.one_of(
    _maybe(
        type=st.just("ClusterIP"),
        port=st.integers(1, 65535),
        annotations=_labels,
        proxyProtocol=_proxy,
    ),
    st.fixed_dictionaries(
        {"type": st.sampled_from(["NodePort", "LoadBalancer"])},
        optional={
            "nodePort": st.integers(30000, 32767),
            "sourceRanges": _cidrs,
            "externalTrafficPolicy": st.sampled_from(["Local", "Cluster"]),
            "ipFamilyPolicy": st.sampled_from(["SingleStack", "RequireDualStack"]),
            "proxyProtocol": _proxy,
        },
    ),
)
_limits = _maybe(
    connections=st.integers(1, 100_000),
    connectionsPerSource=st.integers(1, 100_000),
    callsPerConnection=st.integers(1, 10_000),
)
MORE = "more"
"""A volume of templates, with or without its mount."""
_container = st.fixed_dictionaries(
    {"name": st.sampled_from(["aggregator", "sidecar"])},
    optional={
        "image": st.just("other:1"),
        "env": st.just([{"name": "A", "value": "b"}]),
        "volumeMounts": st.just([{"name": MORE, "mountPath": "/more"}]),
    },
)
_template = _maybe(
    metadata=_maybe(
        labels=st.dictionaries(
            st.sampled_from(["mine", "aligned-aggregator.io/name"]), st.just("x")
        ),
        annotations=st.dictionaries(
            st.sampled_from(["mine", "aligned-aggregator.io/settings-hash"]), st.just("x")
        ),
    ),
    spec=_maybe(
        containers=st.lists(_container, max_size=2, unique_by=lambda each: str(each["name"])),
        volumes=st.just([{"name": MORE, "emptyDir": {}}]),
        nodeSelector=_labels,
        terminationGracePeriodSeconds=st.integers(0, 300),
    ),
)


def _consistent(spec: dict[str, Any]) -> dict[str, Any]:
    """As the API server's rules want it."""
    if spec.get("redis", {}).get("mode") == "None":
        journal = {key: each for key, each in spec.get("journal", {}).items() if key != "mode"}
        spec = spec | {"replicas": 1, "journal": journal}
    return spec


SPECS = st.fixed_dictionaries(
    {"network": _network, "chain": _chain, "signer": _signer},
    optional={
        "replicas": st.integers(1, 9),
        "image": st.just("mine:1"),
        "imagePullSecrets": st.just([{"name": "registry"}]),
        "suspend": st.booleans(),
        "rollout": _maybe(paused=st.booleans()),
        "aggregation": _maybe(window=_duration, expiry=st.just("72h")),
        "submission": _submission,
        "failover": _maybe(profile=st.sampled_from(["Fast", "Normal", "Safe"])),
        "redis": _redis,
        "journal": _journal,
        "service": _service,
        "limits": _limits,
        "networkPolicy": _maybe(mode=st.sampled_from(["Ingress", "Strict", "Disabled"])),
        "resources": _resources,
        "template": _template,
    },
).map(_consistent)
"""Specs that the API server takes."""


def _odd(pattern: str, *known: str) -> st.SearchStrategy[str]:
    """Whatever a field's pattern takes, ``known`` among it."""
    return st.sampled_from(known) | st.from_regex(pattern, fullmatch=True)


def _odd_url(pattern: str, *schemes: str) -> st.SearchStrategy[str]:
    return st.from_regex(pattern, fullmatch=True) | st.builds(
        "{}://{}{}{}".format,
        st.sampled_from(schemes),
        st.sampled_from(["a", "", "[::1]", "[zz]", "[::::]", "[::1", "a:b", "a℀b", "%zz"]),
        st.sampled_from(["", ":", ":0", ":1", ":065535", ":65536", ":99999", ":x"]),
        st.sampled_from(["", "/", "/0", "/0/", "/abc", "/%zz", "?a", "#b", "//[c]"]),
    )


_odd_duration = _odd(fields.DURATION, "0s", "0ms", "0.0h", "1s", "0s1ms", "0.00000000000001ms")
_odd_fee = _odd(fields.FEE, "0gwei", "0.5wei", "1.0wei", "0.0000000001gwei", "1e9wei")
_odd_cidrs = st.lists(st.sampled_from(["10.0.0.0/8", "10.0.0.1/8", "::/129", "here"]), min_size=1)
_odd_http_url = _odd_url(fields.HTTP_URL, "http", "https")
_odd_external = st.one_of(
    st.fixed_dictionaries({"url": _odd_url(fields.REDIS_URL, "redis", "rediss")}),
    st.fixed_dictionaries(
        {
            "sentinels": st.lists(
                _odd(fields.HOST_PORT, "a:0", "a:65535", "a:65536", "[:]:99999"), min_size=1
            ),
            "masterName": st.just("m"),
        }
    ),
)

_odd_sections: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "chain": st.fixed_dictionaries(
        {"endpoints": _odd_http_url.map(lambda url: [{"name": "a", "url": url}])},
        optional={"pollInterval": _odd_duration, "requestTimeout": _odd_duration},
    ),
    "signer": _odd_http_url.map(
        lambda url: {"type": "Web3Signer", "web3Signer": {"url": url, "address": ADDRESS}}
    ),
    "aggregation": _maybe(
        window=_odd_duration | st.just("2599h59m59.999999999s"),
        expiry=_odd_duration | st.just("2600h"),
    ),
    "submission": _maybe(
        maxFeePerGas=_odd_fee | st.just("1ether"),
        maxPriorityFeePerGas=_odd_fee | st.just("1.000000000000000001ether"),
        resubmitAfter=_odd_duration,
    ),
    "redis": st.fixed_dictionaries({"mode": st.just("External"), "external": _odd_external}),
    "service": _odd_cidrs.map(
        lambda cidrs: {"proxyProtocol": {"version": "V2", "trustedCidrs": cidrs}}
    ),
}
ODD_SPECS = st.one_of(
    *(st.fixed_dictionaries({name: section}) for name, section in _odd_sections.items())
)
"""Changes of the smallest one by what the pattern of a field takes, and by what it should not."""

FACTS = st.builds(
    Known,
    release=st.just(RELEASE),
    running_image=st.none() | st.just("running:1"),
    redis_addresses=st.sampled_from([(), ADDRESSES, ("fd00::1", "fd00::2", "fd00::3")]),
    restarted_at=st.none() | st.just("2026-11-23T12:00:00Z"),
    term=st.integers(0, 2**31 - 1),
)
"""What may be known."""
