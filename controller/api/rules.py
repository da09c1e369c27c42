"""Pure: what the API server checks beyond types and bounds, as CEL, with what to write instead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from controller.api.fields import MOST_PORT

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Rule:
    """One ``x-kubernetes-validations`` entry."""

    rule: str
    """CEL; with ``oldSelf`` it is about changes only."""
    message: str
    """What to write instead."""
    field: str = ""
    """Path below the object that the message is shown at."""


def _pair(one: str, other: str) -> Rule:
    return Rule(f"has(self.{one}) == has(self.{other})", f"{one} and {other} belong together")


def _section(kind: str, key: str) -> Rule:
    return Rule(
        f"(self.type == '{kind}') == has(self.{key})",
        f"with type {kind}, and only then, {key} is required",
        f".{key}",
    )


def _lasting(key: str, example: str) -> Rule:
    return Rule(
        f"duration(self.{key}) > duration('0s')",
        f"{key} must be longer than 0s: write for example {example}",
        f".{key}",
    )


_PORT = "([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
_HOST = r"([^:/?#\[\]]+|\[[0-9a-fA-F:.]+\])"
"""Brackets are around an IPv6 address."""


def _url(rest: str, what: str, example: str) -> Rule:
    # CEL can take URLs apart, but what it finds there has no bound, so more would cost too much.
    return Rule(
        f"!has(self.url) || self.url.matches(r'^[a-z]+://{_HOST}(:{_PORT})?{rest}$')",
        f"url needs a host, if any a port from 1 to {MOST_PORT}{what}: write for example {example}",
        ".url",
    )


def _http_url(example: str) -> Rule:
    return _url("([/?#].*)?", "", example)


ROOT = (
    Rule(
        "size(self.metadata.name) <= 40 && "
        "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        "metadata.name must begin with a letter, have at most 40 characters, and only lower case "
        "letters, digits and hyphens: objects are called after it",
    ),
    Rule(
        "quantity(self.spec.journal.size).compareTo(quantity(oldSelf.spec.journal.size)) >= 0"
        " || (has(oldSelf.status) && has(oldSelf.status.conditions)"
        " && oldSelf.status.conditions.exists(each, each.reason == 'VolumeCannotGrow'))",
        "journal.size can only grow, as volumes do not shrink; it can be set back where it turned"
        " out that they cannot grow",
        ".spec.journal.size",
    ),
)
"""Of the whole object."""

RULES: Mapping[str, tuple[Rule, ...]] = {
    "AggregatorSpec": (
        Rule(
            "has(self.signer) || self.submission.mode == 'Observe'",
            "signer is required unless submission.mode is Observe",
            ".signer",
        ),
        Rule(
            "self.redis.mode != 'None' || self.replicas == 1",
            "redis.mode None runs one replica only: write replicas: 1, or choose another mode",
            ".replicas",
        ),
        Rule(
            "self.journal.mode != 'Ephemeral' || self.redis.mode != 'None'",
            "journal.mode Ephemeral needs Redis: without it the journal is the whole store",
            ".journal.mode",
        ),
        Rule(
            "(self.suspend && oldSelf.suspend) || (self.redis.mode == oldSelf.redis.mode"
            " && has(self.redis.external) == has(oldSelf.redis.external)"
            " && (!has(self.redis.external) || self.redis.external == oldSelf.redis.external))",
            "redis.mode and redis.external can be changed only while suspended: apply suspend: "
            "true first, wait until no pod is left, change them, then write suspend: false",
            ".redis",
        ),
        Rule(
            "self.network == oldSelf.network",
            "network cannot be changed: create another resource for another deployment",
            ".network",
        ),
    ),
    "Network": (
        Rule(
            "has(self.preset) != (has(self.chainId) || has(self.contracts))",
            "write either preset, or chainId and contracts",
        ),
        _pair("chainId", "contracts"),
    ),
    "Endpoint": (
        Rule(
            "has(self.url) != has(self.urlSecretRef)",
            "write either url, or urlSecretRef for a URL that carries a key",
        ),
        _http_url("https://ethereum.example.org:8545"),
    ),
    "Chain": (_lasting("pollInterval", "2s"), _lasting("requestTimeout", "3s")),
    "Signer": (_section("Keystore", "keystore"), _section("Web3Signer", "web3Signer")),
    "Keystore": (
        Rule(
            "has(self.keystoreSecretRef) != has(self.file)",
            "write either keystoreSecretRef, or file for one that the pod template mounts",
        ),
        Rule(
            "!(has(self.passwordSecretRef) && has(self.passwordFile))",
            "write passwordSecretRef or passwordFile, not both",
            ".passwordFile",
        ),
    ),
    "Web3Signer": (
        _pair("clientCertificateSecretRef", "clientKeySecretRef"),
        Rule(
            "self.url.startsWith('https://')"
            " || !(has(self.caSecretRef) || has(self.clientCertificateSecretRef))",
            "certificates need a url with https://",
            ".url",
        ),
        _http_url("https://signer.example.org:9000"),
    ),
    "Aggregation": (
        Rule(
            "duration(self.window) < duration(self.expiry)",
            "window must be shorter than expiry",
            ".window",
        ),
    ),
    "Submission": (_lasting("resubmitAfter", "36s"),),
    "Redis": (
        Rule(
            "(self.mode == 'External') == has(self.external)",
            "with mode External, and only then, external is required",
            ".external",
        ),
        Rule(
            "self.mode == 'Managed' || !has(self.managed)",
            "managed is for mode Managed",
            ".managed",
        ),
    ),
    "ExternalRedis": (
        Rule(
            "(has(self.sentinels) && size(self.sentinels) > 0) != has(self.url)",
            "write either sentinels, or url of a primary that keeps its address",
        ),
        Rule(
            "has(self.url) != has(self.masterName)",
            "masterName is required with sentinels, and not allowed with url",
            ".masterName",
        ),
        Rule(
            "!has(self.url)"
            " || !(has(self.sentinelUsername) || has(self.sentinelPasswordSecretRef))",
            "sentinelUsername and sentinelPasswordSecretRef are for sentinels, not for url",
        ),
        Rule(
            f"!has(self.sentinels) || self.sentinels.all(each, each.matches(':{_PORT}$'))",
            f"sentinels need ports from 1 to {MOST_PORT}: write for example redis-0:26379",
            ".sentinels",
        ),
        _url(
            "(/[0-9]*/?)?",
            ", and nothing behind but the number of a database",
            "redis://cache:6379/0",
        ),
    ),
    "RedisTls": (_pair("certificateSecretRef", "keySecretRef"),),
    "Journal": (
        Rule("self.mode == oldSelf.mode", "journal.mode cannot be changed", ".mode"),
        Rule(
            "has(self.storageClassName) == has(oldSelf.storageClassName)"
            " && (!has(self.storageClassName)"
            " || self.storageClassName == oldSelf.storageClassName)",
            "journal.storageClassName cannot be changed",
        ),
    ),
    "Service": (
        Rule(
            "self.type != 'ClusterIP' || !has(self.nodePort)",
            "nodePort needs type NodePort or LoadBalancer",
            ".nodePort",
        ),
        Rule(
            "self.type != 'ClusterIP' || !has(self.externalTrafficPolicy)",
            "externalTrafficPolicy needs type NodePort or LoadBalancer",
            ".externalTrafficPolicy",
        ),
        Rule(
            "self.type == 'LoadBalancer' || !has(self.loadBalancerClass)",
            "loadBalancerClass needs type LoadBalancer",
            ".loadBalancerClass",
        ),
    ),
    "ProxyProtocol": (
        Rule(
            "self.version == 'Disabled' || (has(self.trustedCidrs) && size(self.trustedCidrs) > 0)",
            "trustedCidrs is required: name the load balancer's addresses, else everybody could "
            "claim any source",
            ".trustedCidrs",
        ),
    ),
}
"""By name of the model that the rule is of."""
