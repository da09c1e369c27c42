"""Pure: what runs, as one pass saw it. ``observe`` fills it, ``rollout`` and ``status`` read it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST = 2**31 - 1
"""Of a number that a replica says: a Lease has no room for a higher term."""


@dataclass(frozen=True, slots=True)
class Note:
    """One thing to tell a person."""

    reason: str
    """CamelCase and stable, for programs."""
    message: str
    """What is so, and what to do. Nothing in it moves while nothing changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodView:
    """One pod of ours."""

    name: str
    uid: str
    ordinal: int
    ready: bool
    terminating: bool = False
    settings_hash: str = ""
    """Of what the user had set when it was made."""
    revision: str = ""
    """Of the set's template that it was made from."""
    resource_uid: str = ""
    """Of the resource that it was made for; empty: it does not say."""
    node: str = ""
    """That it runs on; empty: none yet."""
    address: str = ""
    """Its IP; empty: none yet."""
    trouble: str = ""
    """Why a container does not run, e.g. ``ImagePullBackOff``; empty: nothing is known."""
    trouble_message: str = ""
    seconds: float = 0.0
    """For which it has been ready, or has not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetView:
    """One StatefulSet of ours."""

    uid: str
    """Empty: it is not there, but pods of it are."""
    replicas: int
    """Asked for."""
    settings_hash: str
    """Of its template."""
    image: str
    """Of its template's main container."""
    revision: str = ""
    """Of its template; empty: not told yet, as the template was just changed."""
    restarted_at: str | None = None
    pods: tuple[PodView, ...] = ()
    """By ordinal; also those beyond ``replicas`` that are about to go."""

    @property
    def missing(self) -> tuple[int, ...]:
        """Ordinals without a pod."""
        return tuple(sorted(set(range(self.replicas)) - {pod.ordinal for pod in self.pods}))

    @property
    def outdated(self) -> tuple[PodView, ...]:
        """Pods that were made from other settings."""
        return tuple(pod for pod in self.pods if pod.settings_hash != self.settings_hash)

    @property
    def serving(self) -> tuple[PodView, ...]:
        """Pods that are ready and not about to go."""
        return tuple(pod for pod in self.pods if pod.ready and not pod.terminating)

    @property
    def proven_image(self) -> str | None:
        """Of the template, once all pods that are asked for serve with it.

        None: they do not, or there are none, and it may be one that cannot run.
        """
        if not self.uid or not self.replicas or self.outdated:
            return None
        return self.image or None if len(self.serving) >= self.replicas else None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseView:
    """Who leads, as the Lease says."""

    holder: str
    """Pod and boot; empty: nobody."""
    pod: str
    """That the holder is; empty: nobody."""
    term: int
    acquired: str = ""
    """RFC 3339; empty: never."""
    silent_seconds: float = 0.0
    """Since it was last renewed, by our clock: a hint only."""
    lease_seconds: float = 0.0
    """That a silent holder is waited for."""
    handover_to: str = ""
    """Pod that shall lead; empty: any."""
    fenced: frozenset[str] = frozenset()
    """Pods that shall not lead."""
    renewed: str = ""
    """When it was last renewed by the holder's clock, RFC 3339; empty: never."""
    resource_version: str = ""

    @property
    def heir(self) -> str:
        """Pod that is to take over from another; empty: none."""
        return "" if self.handover_to == self.pod else self.handover_to


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaView:
    """What one replica says of itself."""

    said: Mapping[str, Any] | None
    """Its ``/status``; None: it did not answer."""
    why: str = ""
    """Why it did not."""

    def find(self, *path: str) -> Any:
        """Return what it says at a path of keys; None: nothing."""
        at: Any = self.said
        for key in path:
            at = at.get(key) if isinstance(at, dict) else None
        return at

    def number(self, *path: str) -> int | None:
        """Return a count or a term that it says; None: nothing that could be one."""
        found = self.find(*path)
        is_one = isinstance(found, int) and not isinstance(found, bool)
        return found if is_one and 0 <= found <= MOST else None

    def items(self, *path: str) -> list[Mapping[str, Any]]:
        """Return the mappings of a list that it says; what else is there counts as not said."""
        found = self.find(*path)
        return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []

    @property
    def in_sync(self) -> bool | None:
        """Whether it holds everything that the shared store holds; None: it does not say."""
        found = self.find("replicas", "store", "in_sync")
        return found if isinstance(found, bool) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Everything that one pass saw."""

    aggregator: SetView | None = None
    redis: SetView | None = None
    lease: LeaseView | None = None
    replicas: Mapping[str, ReplicaView] = field(default_factory=dict)
    """By pod; only of pods that have an address."""
    redis_addresses: tuple[str, ...] = ()
    """ClusterIPs of the Redis pods' Services by ordinal; empty until all have one."""
    same_signer: tuple[tuple[str, str], ...] = ()
    """Namespace and name of others that sign with the same account on the same chain."""
