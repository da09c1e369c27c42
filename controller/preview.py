"""What a resource would become, for people who have no cluster at hand."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import yaml

from aligned.errors import BadConfiguration
from controller import names
from controller.api.spec import RedisMode
from controller.desired import access, redis, render
from controller.desired.known import Known, Release
from controller.resource import parse

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from controller.ports import Manifest

_UID = "00000000-0000-0000-0000-000000000000"
_PASSWORD = "made-up-once-in-the-cluster"  # noqa: S105 - it says that it is none


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Stand-ins for what only a release and a cluster know."""

    image: str
    redis_image: str
    addresses: tuple[str, ...]

    def but(self, *, image: str, redis_image: str, addresses: Sequence[str]) -> Places:
        """Return these with others.

        Raises:
            BadConfiguration: There are addresses, but not one for each Redis pod.
        """
        if addresses and len(addresses) != names.REDIS_PODS:
            problem = f"--redis-address: give {names.REDIS_PODS}, one for each Redis pod"
            raise BadConfiguration((problem,))
        return replace(
            self,
            image=image,
            redis_image=redis_image,
            addresses=tuple(addresses) or self.addresses,
        )


PLACES = Places(
    image="aligned-aggregator:release",
    redis_image="valkey:release",
    addresses=tuple(f"192.0.2.{ordinal + 10}" for ordinal in range(names.REDIS_PODS)),
)


def objects(text: str, places: Places, namespace: str) -> list[Manifest]:
    """Return all objects of the resources in a file, in the order in which they are applied.

    Args:
        text: YAML, one resource or several; other kinds are left out.
        places: Stand-ins.
        namespace: Of resources that name none.

    Raises:
        BadConfiguration: There is no resource in it.
        InvalidSpec: A resource cannot be run as it is.
    """
    try:
        documents = [each for each in yaml.safe_load_all(text) if isinstance(each, dict)]
    except yaml.YAMLError as error:
        problem = f"this is no YAML: {error}"
        raise BadConfiguration((problem,)) from error
    found = [each for each in documents if each.get("kind") == names.KIND]
    if not found:
        problem = f"there is no {names.KIND} in it"
        raise BadConfiguration((problem,))
    return [manifest for each in found for manifest in _objects(each, places, namespace)]


def _objects(document: dict[str, Any], places: Places, namespace: str) -> Iterator[Manifest]:
    metadata = document.get("metadata") or {}
    if not metadata.get("name"):
        problem = "metadata.name: required"
        raise BadConfiguration((problem,))
    known_metadata = {"namespace": namespace, "uid": _UID, **metadata}
    resource = parse({**document, "metadata": known_metadata})
    known = Known(
        release=Release(image=places.image, redis_image=places.redis_image),
        redis_addresses=places.addresses,
    )
    if (lease := access.lease(resource, known)) is not None:
        yield lease
    if resource.spec.redis.mode is RedisMode.MANAGED:
        yield redis.redis_secret(resource, redis.new_passwords(lambda: _PASSWORD))
    yield from render(resource, known)
