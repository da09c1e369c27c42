"""Pure: the aggregator's StatefulSet and its disruption budget."""

from __future__ import annotations

from typing import TYPE_CHECKING

from controller import names, ports
from controller.api.spec import JournalMode, RedisMode, RetentionPolicy
from controller.desired import access, config, digest, overlay
from controller.desired.manifest import apart, manifest
from controller.desired.network import RPC, TELEMETRY

if TYPE_CHECKING:
    from controller.desired.known import Known
    from controller.ports import Manifest
    from controller.resource import Resource

CONTAINER = names.AGGREGATOR
"""The main container, for templates to name."""

JOURNAL = "journal"
"""The journals' volume."""

_USER = 65532
"""Of the image. Any other one works; what it mounts belongs to this group."""

_SECRET_MODE = 0o440

_START_SECONDS = 600
"""For a cold start: the journal is replayed and the chain asked which deployment it is. The scan
of the registry comes after that, while the pod lives and is not ready."""

_LEADER_SECONDS = 10
"""That a leader takes at most to end its term in order."""

_MARGIN_SECONDS = 20

GRACE_SECONDS = (
    _LEADER_SECONDS + config.DRAIN_DELAY_SECONDS + config.DRAIN_TIMEOUT_SECONDS + _MARGIN_SECONDS
)
"""For a stop: the term ends, endpoints forget the pod, calls are answered, the journal is closed.
There is no preStop hook, as the daemon itself takes connections on after it was told to stop."""

_RESOURCES: Manifest = {
    "requests": {"cpu": "250m", "memory": "256Mi"},
    "limits": {"memory": "512Mi"},
}


def replicas(resource: Resource) -> int:
    """Return how many pods there are to be."""
    spec = resource.spec
    if spec.suspend:
        return 0
    return spec.replicas if spec.redis.mode is not RedisMode.NONE else 1


def budget(resource: Resource) -> list[Manifest]:
    """Return the disruption budget; none for a single replica, which could never be evicted.

    A pod that is not ready holds up no drain.
    """
    spec = resource.spec
    if spec.replicas == 1 or spec.redis.mode is RedisMode.NONE:
        return []
    limits = {
        "maxUnavailable": 1,
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": {"matchLabels": names.selector(resource.name, names.AGGREGATOR)},
    }
    return [
        manifest(ports.DISRUPTION_BUDGETS, resource, resource.name, names.AGGREGATOR, spec=limits)
    ]


def stateful_set(resource: Resource, known: Known) -> Manifest:
    """Return the set. It replaces no pod by itself: the controller evicts them in its order.

    Raises:
        InvalidSpec: The spec's template does not fit a pod template.
    """
    journal = resource.spec.journal
    spec: Manifest = {
        "serviceName": names.headless(resource.name),
        "replicas": replicas(resource),
        "podManagementPolicy": "Parallel",
        "revisionHistoryLimit": 3,
        "updateStrategy": {"type": "OnDelete"},
        "selector": {"matchLabels": names.selector(resource.name, names.AGGREGATOR)},
        "template": pod_template(resource, known),
    }
    if journal.mode is JournalMode.PERSISTENT:
        spec["volumeClaimTemplates"] = [_claim(resource)]
        spec["persistentVolumeClaimRetentionPolicy"] = _retention(resource)
    return manifest(ports.STATEFUL_SETS, resource, resource.name, names.AGGREGATOR, spec=spec)


def _retention(resource: Resource) -> dict[str, str]:
    """Return what becomes of journals; to a set, suspended is scaled to none, and to us it is not.

    Both change in one write, so the set's controller never sees the one without the other.
    """
    asked = resource.spec.journal.retention
    when_scaled = RetentionPolicy.RETAIN if resource.spec.suspend else asked.when_scaled
    return {"whenDeleted": asked.when_deleted.value, "whenScaled": when_scaled.value}


def pod_template(resource: Resource, known: Known) -> Manifest:
    """Return the pod template, what a person laid over it included.

    Raises:
        InvalidSpec: That does not fit a pod template.
    """
    ours: Manifest = {
        "metadata": {
            "labels": names.labels(resource, names.AGGREGATOR),
            "annotations": _annotations(resource, known),
        },
        "spec": _pod(resource, known),
    }
    return overlay.merge(ours, resource.spec.template, "spec.template")


def _annotations(resource: Resource, known: Known) -> dict[str, str]:
    annotations = {
        names.SETTINGS_HASH: digest.settings(resource, known),
        "kubectl.kubernetes.io/default-container": CONTAINER,
    }
    if known.restarted_at is not None:
        annotations[names.RESTARTED_AT] = known.restarted_at
    return annotations


def _pod(resource: Resource, known: Known) -> Manifest:
    spec = resource.spec
    pod: Manifest = {
        "serviceAccountName": resource.name,
        "automountServiceAccountToken": access.is_elected(resource),
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "fsGroup": _USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "affinity": {"podAntiAffinity": apart(resource, names.AGGREGATOR)},
        "containers": [_container(resource, known)],
        "volumes": _volumes(resource, known),
    }
    if spec.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": secret.name} for secret in spec.image_pull_secrets]
    return pod


def _container(resource: Resource, known: Known) -> Manifest:
    spec = resource.spec
    asked = spec.resources
    return {
        "name": CONTAINER,
        "image": digest.image(resource, known),
        "command": ["aggregator", "run", "--config", f"{config.FOLDER}/{config.FILE}"],
        "env": [
            {
                "name": "ALIGNED_ELECTION__REPLICA",
                "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}},
            }
        ],
        "ports": [
            {"name": RPC, "containerPort": names.RPC_PORT, "protocol": "TCP"},
            {"name": TELEMETRY, "containerPort": names.TELEMETRY_PORT, "protocol": "TCP"},
        ],
        "startupProbe": _probe("/healthz", period=1, timeout=5, failures=_START_SECONDS),
        "readinessProbe": _probe("/readyz", period=2, timeout=2, failures=2),
        "livenessProbe": _probe("/healthz", period=5, timeout=5, failures=6),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "resources": _RESOURCES if asked is None else asked.model_dump(exclude_defaults=True),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": _mounts(resource, known),
    }


def _probe(path: str, *, period: int, timeout: int, failures: int) -> Manifest:
    return {
        "httpGet": {"path": path, "port": TELEMETRY, "scheme": "HTTP"},
        "periodSeconds": period,
        "timeoutSeconds": timeout,
        "failureThreshold": failures,
    }


def _mounts(resource: Resource, known: Known) -> list[Manifest]:
    mounts: list[Manifest] = [
        {"name": "config", "mountPath": config.FOLDER, "readOnly": True},
        {"name": JOURNAL, "mountPath": config.STATE},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a volume of the pod's own
    ]
    if config.configuration(resource, known).files:
        mounts.append({"name": "secrets", "mountPath": config.SECRETS, "readOnly": True})
    return mounts


def _volumes(resource: Resource, known: Known) -> list[Manifest]:
    journal = resource.spec.journal
    settings = config.config_map(resource, known)["metadata"]["name"]
    volumes: list[Manifest] = [
        {"name": "config", "configMap": {"name": settings}},
        {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}},
    ]
    if journal.mode is JournalMode.EPHEMERAL:
        volumes.append({"name": JOURNAL, "emptyDir": {"sizeLimit": journal.size}})
    if files := config.configuration(resource, known).files:
        sources = [
            {"secret": {"name": file.ref.name, "items": [{"key": file.ref.key, "path": file.path}]}}
            for file in files
        ]
        volumes.append(
            {"name": "secrets", "projected": {"defaultMode": _SECRET_MODE, "sources": sources}}
        )
    return volumes


def _claim(resource: Resource) -> Manifest:
    journal = resource.spec.journal
    spec: Manifest = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": journal.size}},
    }
    if journal.storage_class_name is not None:
        spec["storageClassName"] = journal.storage_class_name
    return {"metadata": {"name": JOURNAL}, "spec": spec}
