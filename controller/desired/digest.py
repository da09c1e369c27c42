"""Pure: short digests that say whether two things are the same."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from controller import names
from controller.api.spec import JournalMode, RedisMode, Service
from controller.desired import overlay

if TYPE_CHECKING:
    from controller.desired.known import Known
    from controller.resource import Resource

_SETTINGS_CHARACTERS = 16
_CONTENT_CHARACTERS = 10

_UNSEEN: dict[str, Any] = {
    "image": True,  # what runs counts, whether it was asked for or kept
    "journal": {"retention", "size", "storage_class_name"},  # volumes grow under running pods
    "network_policy": True,
    "redis": {"managed"},  # of pods of its own, which have a digest of their own
    "replicas": True,
    "rollout": True,
    "service": set(Service.model_fields) - {"proxy_protocol"},
    "suspend": True,
}
"""What no pod of the aggregator sees. Whatever else there will be counts."""


def settings(resource: Resource, known: Known) -> str:
    """Return the digest of everything a person set that reaches a pod of the aggregator.

    A pod that was made with another one is to be replaced. So that a new release of the controller
    replaces none, only what was asked for counts, not how it is rendered, and a field that equals
    the schema's default counts as not set: the API server stores the defaults of its time, and one
    that the schema gets later would else look like a change. For the same reason the default of a
    field never changes between releases.
    """
    spec, unseen = resource.spec, _UNSEEN
    if spec.journal.mode is JournalMode.EPHEMERAL:
        unseen = unseen | {"journal": {"retention", "storage_class_name"}}
    asked = spec.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude=unseen)
    for section in ("journal", "redis", "service"):
        if not asked.get(section):
            asked.pop(section, None)
    managed = spec.redis.mode is RedisMode.MANAGED
    facts = {
        "image": image(resource, known),
        "redisAddresses": known.redis_addresses if managed else (),
        "restartedAt": known.restarted_at,
        "spec": asked,
    }
    return of({key: fact for key, fact in facts.items() if fact})


def image(resource: Resource, known: Known) -> str:
    """Return the image that the aggregator's pods get in the end, by template or otherwise."""
    asked = overlay.image(resource.spec.template, names.AGGREGATOR)
    return known.image(asked or resource.spec.image)


def of(facts: Any) -> str:
    """Return 16 hexadecimal digits of the digest of something that JSON can say."""
    canonical = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:_SETTINGS_CHARACTERS]


def content(text: str) -> str:
    """Return 10 hexadecimal digits of the digest of a file, for the name of what holds it."""
    return hashlib.sha256(text.encode()).hexdigest()[:_CONTENT_CHARACTERS]
