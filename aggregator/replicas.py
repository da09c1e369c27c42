"""Sections of the configuration for several replicas: what they share, and how one leads."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from aggregator.sections import Misfits, PlainUrl, Section, split_address, split_redis_url


def _redis_url(url: str) -> str:
    split_redis_url(url)
    return url


RedisUrl = Annotated[str, AfterValidator(_redis_url)]


class Redis(Section):
    """What replicas share.

    Redis 7 or Valkey, behind Sentinel or at one address. It needs no disk: the replicas' journals
    fill it again.
    """

    sentinels: tuple[str, ...] = ()
    """host:port of every Sentinel, each by itself, e.g. ``["redis-0:26379", "redis-1:26379"]``.
    Either these or ``url``."""
    master_name: str | None = Field(default=None, min_length=1)
    """The name that Sentinels know the primary by; required with ``sentinels``."""
    url: RedisUrl | None = None
    """``redis://host:port/database`` of a primary that keeps its address; ``rediss`` means TLS.
    Passwords belong in ``password_file``."""
    database: int = Field(default=0, ge=0, le=1024)
    """Of a primary behind Sentinels; ``url`` names its own."""
    copies: int = Field(default=1, ge=0, le=5)
    """Replicas of the primary that must have a signature before it is acknowledged. 0 is for a
    server that has none: then the journal of one replica is all that survives its loss."""
    username: str | None = Field(default=None, min_length=1)
    """ACL user. Absent: the default user."""
    password_file: Path | None = None
    """A file with the password as its only line."""
    sentinel_username: str | None = Field(default=None, min_length=1)
    """ACL user of the Sentinels, who know nothing of the servers' users."""
    sentinel_password_file: Path | None = None
    """A file with the Sentinels' password as its only line."""
    tls: bool = False
    """Servers and Sentinels are spoken to over TLS 1.2 or later."""
    ca_file: Path | None = None
    """Certificates that theirs are checked against. Absent: those of the system."""
    certificate_file: Path | None = None
    """Shown to them; needs ``key_file``."""
    key_file: Path | None = None
    """Key of the certificate."""
    check_hostname: bool = True
    """Their certificates must name the host they are reached by; Sentinels often name addresses."""

    @field_validator("sentinels")
    @classmethod
    def _are_addresses(cls, sentinels: tuple[str, ...]) -> tuple[str, ...]:
        for sentinel in sentinels:
            split_address(sentinel)
        return sentinels

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        problems = {}
        if not self.sentinels and self.url is None:
            problems["sentinels"] = "required, or url"
        if self.sentinels and self.url is not None:
            problems["url"] = "must not be set together with sentinels; keep one of them"
        if self.sentinels and self.master_name is None:
            problems["master_name"] = "required with sentinels"
        if self.url is not None:
            for key in ("master_name", "sentinel_username", "sentinel_password_file"):
                if getattr(self, key) is not None:
                    problems[key] = "is for sentinels, not for url"
        problems |= self._misused_files()
        if problems:
            raise Misfits(problems)
        return self

    def _misused_files(self) -> dict[str, str]:
        problems = {}
        if not self.tls and not (self.url or "").startswith("rediss:"):
            files = ("ca_file", "certificate_file", "key_file")
            problems = {key: "needs tls: true" for key in files if getattr(self, key) is not None}
        if self.certificate_file is not None and self.key_file is None:
            problems["key_file"] = "required with certificate_file"
        if self.key_file is not None and self.certificate_file is None:
            problems["certificate_file"] = "required with key_file"
        return problems


class Backend(StrEnum):
    """How a leader is elected."""

    SINGLE = "single"
    REDIS = "redis"
    KUBERNETES = "kubernetes"


class Election(Section):
    """Who of several replicas answers on chain. All of them take signatures."""

    backend: Backend | None = None
    """``single``: this process always leads, so it must be the only one. ``redis``: by a record in
    Redis. ``kubernetes``: by a Lease. Absent: ``redis`` with a ``redis`` section, ``single``
    without one."""
    profile: Literal["fast", "normal", "safe"] = "normal"
    """How long a silent leader is waited for: ``fast`` 1.5 s, ``normal`` 5 s, ``safe`` 15 s."""
    replica: str | None = Field(default=None, min_length=1, max_length=253)
    """What this replica is called, unlike any other; pods have their own names. Absent: the host's
    name."""
    lease_name: str | None = Field(default=None, min_length=1)
    """The Lease; whoever deploys us creates it. Required with ``kubernetes``."""
    lease_namespace: str | None = Field(default=None, min_length=1)
    """Absent: the pod's own."""
    api_server: PlainUrl | None = None
    """URL of the API server. Absent: as pods find it."""
    token_file: Path | None = None
    """Of the account that may get, watch and update the Lease. Absent: the pod's own."""
    api_ca_file: Path | None = None
    """Certificates that the API server's is checked against. Absent: the pod's own."""

    @model_validator(mode="after")
    def _lease_fits(self) -> Self:
        names = ("lease_name", "lease_namespace", "api_server", "token_file", "api_ca_file")
        problems = {}
        if self.backend is not Backend.KUBERNETES:
            problems = {
                key: "is for backend kubernetes" for key in names if getattr(self, key) is not None
            }
        elif self.lease_name is None:
            problems["lease_name"] = "required with backend kubernetes"
        if problems:
            raise Misfits(problems)
        return self
