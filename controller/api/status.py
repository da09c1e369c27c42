"""Pure: what the controller reports, ``.status`` of an ``AlignedAggregator``."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from controller.api.fields import Part
from controller.api.spec import Contracts


class ConditionType(StrEnum):
    """What is told about a resource."""

    READY = "Ready"
    """Operators are served and a leader answers; the current generation is rolled out."""
    LEADER_ELECTED = "LeaderElected"
    STORE_HEALTHY = "StoreHealthy"
    STATE_DURABLE = "StateDurable"
    CHAIN_REACHABLE = "ChainReachable"
    SUBMISSION_HEALTHY = "SubmissionHealthy"
    FAULT_TOLERANT = "FaultTolerant"
    UP_TO_DATE = "UpToDate"
    RECONCILING = "Reconciling"
    """Abnormal: true while it works."""
    STALLED = "Stalled"
    """Abnormal: true when only a person can help."""


class Condition(Part):
    """As ``metav1.Condition``."""

    type: Annotated[str, Field(max_length=316)]
    """One of a closed set."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    observed_generation: int = 0
    """Of the spec that this was said of."""
    last_transition_time: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    """When ``status`` last changed."""
    reason: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z][A-Za-z0-9]*$")]
    """Stable, for programs."""
    message: Annotated[str, Field(max_length=4096)] = ""
    """For people: what is so, and what to do."""


class Leader(Part):
    """Who leads."""

    pod: Annotated[str, Field(max_length=253)]
    """Its name."""
    term: Annotated[int, Field(ge=0)]
    """Of its leadership; rises with every change."""
    since: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    """When the Lease was acquired."""


class ResolvedNetwork(Part):
    """The deployment that is served."""

    chain_id: int
    """Of the chain."""
    contracts: Contracts
    """Addresses."""


class RedisStatus(Part):
    """The managed Redis."""

    addresses: Annotated[tuple[Annotated[str, Field(max_length=45)], ...], Field(max_length=9)] = ()
    """ClusterIP of each pod's Service, by ordinal."""
    image: Annotated[str, Field(max_length=512)] = ""
    """That is rolled out."""


class FailoverRecord(Part):
    """One change of leader, as the new one recorded it."""

    at: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    """When the new leader began."""
    from_: Annotated[str, Field(alias="from", max_length=253)] = ""
    """Pod that led before; empty: nobody."""
    to: Annotated[str, Field(max_length=253)]
    """Pod that leads since."""
    term: Annotated[int, Field(ge=0)]
    """That began."""
    reason: Annotated[str, Field(max_length=128)]
    """Handover or LeaseExpired."""
    detect_ms: int
    """From the last sign of the old leader to the candidacy."""
    elect_ms: int
    """Until the Lease was won."""
    resume_ms: int
    """Until work went on with everything that had been collected."""
    planned: bool
    """Whether the old leader gave it up in order."""


class AggregatorStatus(Part):
    """What is so."""

    observed_generation: int = 0
    """Of the spec that everything here was said of."""
    replicas: int = 0
    """Pods there are."""
    ready_replicas: int = 0
    """Of them, ready to take signatures."""
    selector: Annotated[str, Field(max_length=512)] = ""
    """Of the pods, for the scale subresource."""
    leader: Leader | None = None
    network: ResolvedNetwork | None = None
    redis: RedisStatus | None = None
    image: Annotated[str, Field(max_length=512)] = ""
    """That is rolled out."""
    highest_term: Annotated[int, Field(ge=0)] = 0
    """Ever seen; a deleted Lease is made again with it."""
    failovers: Annotated[
        tuple[FailoverRecord, ...],
        Field(max_length=10, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
    ] = ()
    """Latest first."""
    conditions: Annotated[
        tuple[Condition, ...],
        Field(
            max_length=16,
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["type"],
            },
        ),
    ] = ()
    """Ready, LeaderElected, StoreHealthy, StateDurable, ChainReachable, SubmissionHealthy,
    FaultTolerant, UpToDate; Reconciling and Stalled."""
