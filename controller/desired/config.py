"""Pure: what a person asked for, as the configuration file of the daemon.

It carries what was set and what only we know: where files are mounted, how to reach Redis, which
Lease it is. Defaults are the daemon's own, so that there is one place for each and a file that one
release rendered suits the daemon of another.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from controller import names, ports
from controller.api.fields import SecretKeyRef
from controller.api.spec import ProxyProtocolVersion, RedisMode, SubmissionMode
from controller.desired import access, deployments, digest, redis
from controller.desired.manifest import manifest

if TYPE_CHECKING:
    from controller.api.fields import Part
    from controller.api.spec import AggregatorSpec, ExternalRedis, RedisTls, Signer
    from controller.desired.known import Known
    from controller.ports import Manifest
    from controller.resource import Resource

FOLDER = "/etc/aligned/config"
"""Where the configuration file is in the container."""

FILE = "aggregator.yaml"

SECRETS = "/etc/aligned/secrets"
"""Where all secrets are in the container."""

STATE = "/var/lib/aligned"
"""Where the journal's volume is in the container."""

DRAIN_DELAY_SECONDS = 5
"""At a stop, how long a replica still takes connections: endpoints need time to forget it."""

DRAIN_TIMEOUT_SECONDS = 5
"""For calls in flight after that; the daemon's default."""


@dataclass(frozen=True, slots=True)
class SecretFile:
    """One key of a Secret as a file."""

    path: str
    """Below ``SECRETS``."""
    ref: SecretKeyRef


@dataclass(frozen=True, slots=True)
class Configuration:
    """The file, and the secrets it names."""

    document: Manifest
    """The file's content."""
    files: tuple[SecretFile, ...]
    """Everything that must be mounted below ``SECRETS``."""

    @property
    def text(self) -> str:
        """The file, YAML; made anew each time."""
        return yaml.safe_dump(self.document, sort_keys=False, allow_unicode=True)


@dataclass(slots=True)
class _Files:
    """Gives secrets their places."""

    named: list[SecretFile] = field(default_factory=list)

    def at(self, path: str, ref: SecretKeyRef | None) -> str | None:
        if ref is None:
            return None
        self.named.append(SecretFile(path, ref))
        return f"{SECRETS}/{path}"


def config_map(resource: Resource, known: Known) -> Manifest:
    """Return the object with the file. It never changes: other content has another name."""
    text = configuration(resource, known).text
    return manifest(
        ports.CONFIG_MAPS,
        resource,
        names.config(resource.name, digest.content(text)),
        names.AGGREGATOR,
        immutable=True,
        data={FILE: text},
    )


def configuration(resource: Resource, known: Known) -> Configuration:
    """Return the daemon's configuration.

    Raises:
        InvalidSpec: The deployment is not named.
    """
    spec, files = resource.spec, _Files()
    document = {
        "rendered_by": "controller",
        "network": _network(spec),
        "chain": _chain(spec, files),
        "signer": _signer(spec.signer, files),
        "aggregation": _set(spec.aggregation),
        "submission": _submission(spec),
        "listen": _listen(spec),
        "journal": {"path": f"{STATE}/aggregator.db"},
        "redis": _redis(resource, known, files),
        "election": _election(resource),
        "telemetry": {"address": _everywhere(names.TELEMETRY_PORT)},
    }
    return Configuration(_without_nothing(document), tuple(files.named))


def _network(spec: AggregatorSpec) -> Manifest:
    deployment = deployments.resolve(spec)
    return {"chain_id": deployment.chain_id, "contracts": deployment.contracts.model_dump()}


def _chain(spec: AggregatorSpec, files: _Files) -> Manifest:
    return _set(spec.chain) | {
        "deployment_block": deployments.resolve(spec).deployment_block or None,
        "endpoints": [
            {
                "name": endpoint.name,
                "url": endpoint.url,
                "url_file": files.at(f"endpoints/{endpoint.name}", endpoint.url_secret_ref),
            }
            for endpoint in spec.chain.endpoints
        ],
    }


def _signer(signer: Signer | None, files: _Files) -> Manifest | None:
    if signer is None:
        return None
    if (local := signer.keystore) is not None:
        return {
            "type": "keystore",
            "file": files.at("signer/keystore.json", local.keystore_secret_ref) or local.file,
            "password_file": files.at("signer/password", local.password_secret_ref)
            or local.password_file,
        }
    if (remote := signer.web3signer) is not None:
        return {
            "type": "web3signer",
            "url": remote.url,
            "address": remote.address,
            "ca_file": files.at("signer/ca.crt", remote.ca_secret_ref),
            "client_certificate_file": files.at(
                "signer/tls.crt", remote.client_certificate_secret_ref
            ),
            "client_key_file": files.at("signer/tls.key", remote.client_key_secret_ref),
            "token_file": files.at("signer/token", remote.token_secret_ref),
        }
    return None


def _submission(spec: AggregatorSpec) -> Manifest:
    observes = spec.submission.mode is SubmissionMode.OBSERVE
    return _set(spec.submission) | {"mode": "observe" if observes else None}


def _listen(spec: AggregatorSpec) -> Manifest:
    limits, proxy = _set(spec.limits), spec.service.proxy_protocol
    is_proxied = proxy.version is not ProxyProtocolVersion.DISABLED
    return {
        "address": _everywhere(names.RPC_PORT),
        "max_connections": limits.get("connections"),
        "max_connections_per_source": limits.get("connections_per_source"),
        "max_calls_per_connection": limits.get("calls_per_connection"),
        "drain_delay": f"{DRAIN_DELAY_SECONDS}s",
        "proxy_protocol": proxy.version.lower() if is_proxied else None,
        "trusted_cidrs": list(proxy.trusted_cidrs) if is_proxied else None,
    }


def _redis(resource: Resource, known: Known, files: _Files) -> Manifest | None:
    section = resource.spec.redis
    if section.mode is RedisMode.MANAGED:
        password = SecretKeyRef(name=names.redis(resource.name), key=redis.AGGREGATOR_PASSWORD)
        return {
            "sentinels": [_at(host, names.SENTINEL_PORT) for host in known.redis_addresses],
            "master_name": names.MASTER_NAME,
            "username": redis.AGGREGATOR_USER,
            "password_file": files.at("redis/password", password),
            "sentinel_username": redis.AGGREGATOR_USER,
            "sentinel_password_file": f"{SECRETS}/redis/password",
        }
    if section.mode is RedisMode.EXTERNAL and section.external is not None:
        return _external(section.external, files)
    return None


def _external(external: ExternalRedis, files: _Files) -> Manifest:
    return {
        "sentinels": list(external.sentinels) or None,
        "master_name": external.master_name,
        "url": external.url,
        "copies": _set(external).get("copies"),
        "username": external.username,
        "password_file": files.at("redis/password", external.password_secret_ref),
        "sentinel_username": external.sentinel_username,
        "sentinel_password_file": files.at(
            "redis/sentinel-password", external.sentinel_password_secret_ref
        ),
        **_tls(external.tls, files),
    }


def _tls(tls: RedisTls | None, files: _Files) -> Manifest:
    if tls is None:
        return {}
    return {
        "tls": True,
        "ca_file": files.at("redis/ca.crt", tls.ca_secret_ref),
        "certificate_file": files.at("redis/tls.crt", tls.certificate_secret_ref),
        "key_file": files.at("redis/tls.key", tls.key_secret_ref),
        "check_hostname": _set(tls).get("check_hostname"),
    }


def _election(resource: Resource) -> Manifest | None:
    if not access.is_elected(resource):
        return None
    profile = _set(resource.spec.failover).get("profile")
    return {
        "backend": "kubernetes",
        "profile": profile and profile.lower(),
        "lease_name": resource.name,
    }


def _set(part: Part) -> dict[str, Any]:
    """Return what is not the default."""
    return part.model_dump(mode="json", exclude_defaults=True)


def _at(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _everywhere(port: int) -> str:
    """Return the address that stands for every address of the pod, of both families."""
    return f"[::]:{port}"


def _without_nothing(value: Any) -> Any:
    """Leave out what is None or an empty section."""
    if not isinstance(value, dict):
        return [_without_nothing(each) for each in value] if isinstance(value, list) else value
    kept = {key: _without_nothing(each) for key, each in value.items()}
    return {key: each for key, each in kept.items() if each is not None and each != {}}
