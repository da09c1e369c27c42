"""Pure: what the objects of a resource should be. The same input gives the same bytes.

* ``config``: the daemon's file; ``digest``: whether a pod is to be replaced; ``deployments``
* ``workload``: the StatefulSet and its budget; ``overlay``: a person's template over ours
* ``network``, ``policies``: Services, NetworkPolicies; ``access``: account, rights, Lease
* ``redis``: a managed Redis; ``known``: facts of the cluster that objects depend on
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from controller import names
from controller.api.spec import RedisMode
from controller.desired import access, config, network, policies, redis, workload

if TYPE_CHECKING:
    from controller.desired.known import Known
    from controller.ports import Manifest
    from controller.resource import Resource


def render(resource: Resource, known: Known) -> tuple[Manifest, ...]:
    """Return every object to apply, in the order to apply them.

    Two objects are not among them. They are to be there before the sets are, are created where
    there is none, and never applied: the Lease (``access.lease``), whose spec is the replicas', and
    the Secret of a managed Redis (``redis.redis_secret``), whose passwords are made up once.

    While ``is_waiting``, objects that may exist are missing from the result: prune nothing then.

    Raises:
        InvalidSpec: The spec cannot be run as it is, with the path of the field.
    """
    is_managed = resource.spec.redis.mode is RedisMode.MANAGED
    manifests = [*access.access(resource), *network.services(resource)]
    if is_managed:
        manifests += [*redis.redis_services(resource), redis.redis_headless(resource)]
    manifests += [*workload.budget(resource), *policies.policies(resource)]
    if is_waiting(resource, known):
        return tuple(manifests)
    manifests.append(config.config_map(resource, known))
    if is_managed:
        manifests += redis.redis_group(resource, known)
    manifests.append(workload.stateful_set(resource, known))
    return tuple(manifests)


def is_waiting(resource: Resource, known: Known) -> bool:
    """Tell whether both sets have to wait for the addresses of the Redis pods' Services."""
    is_managed = resource.spec.redis.mode is RedisMode.MANAGED
    return is_managed and len(known.redis_addresses) != names.REDIS_PODS
