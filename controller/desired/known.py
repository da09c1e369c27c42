"""Pure: what rendering needs to know besides the spec."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What a release of the controller brings along."""

    image: str
    """Of the aggregator, where a resource names none."""
    redis_image: str
    """Of a managed Redis, where a resource names none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """Facts of the cluster that objects depend on."""

    release: Release
    running_image: str | None = None
    """That was rolled out last; it stays where the resource names none."""
    running_redis_image: str | None = None
    """The same of the Redis set."""
    redis_addresses: tuple[str, ...] = ()
    """ClusterIPs of the Redis pods' Services by ordinal; empty until all of them exist. Without
    them neither the Redis set nor an aggregator that needs it is rendered."""
    restarted_at: str | None = None
    """The set's ``kubectl rollout restart`` annotation, carried on."""
    redis_restarted_at: str | None = None
    """The same of the Redis set."""
    term: int = 0
    """Highest ever seen; a Lease that is made again begins there."""

    def image(self, asked: str | None) -> str:
        """Return the aggregator's image: what is asked for, else what runs, else the release's."""
        return asked or self.running_image or self.release.image

    def redis_image(self, asked: str | None) -> str:
        """Return the image of a managed Redis by the same rule."""
        return asked or self.running_redis_image or self.release.redis_image
