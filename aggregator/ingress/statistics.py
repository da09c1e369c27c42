"""What ingress counts; telemetry reads it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum


class Ending(StrEnum):
    """Why a connection ended."""

    PEER = "peer"
    """The other side closed or reset it."""
    IDLE = "idle"
    """Nothing was pending for the idle timeout."""
    EVICTED = "evicted"
    """Least recently used when another one came over the limit."""
    FULL = "full"
    """Every connection in its limit had calls pending when it came."""
    SLOW_HEAD = "slow head"
    """Its CONNECT did not arrive in time."""
    SLOW_MESSAGE = "slow message"
    """The rest of a message did not arrive in time."""
    SLOW_READER = "slow reader"
    """It did not take its replies."""
    MALFORMED = "malformed"
    """It does not speak the protocol."""
    NOT_RPC = "not rpc"
    """Plain HTTP, answered with 404 or 405."""
    HUNG_UP = "hung up"
    """The stages gave up on its open calls."""
    DRAINED = "drained"
    """The process stops."""


@dataclass(slots=True)
class Statistics:
    """Counters since the start; only ``connections_open`` and ``calls_open`` go down."""

    calls: int = 0
    """Responses handed to the stages."""
    calls_open: int = 0
    """Those of them that were not answered yet."""
    probes: int = 0
    """Calls of ServerRunning."""
    errors: int = 0
    """RPC errors for arguments of another type."""
    refused: Counter[str] = field(default_factory=Counter)
    """Responses that will never be right, by reason; the stages never saw them."""
    malformed: Counter[str] = field(default_factory=Counter)
    """Connections that broke the protocol, by what they did."""
    connections_open: int = 0
    connections_opened: int = 0
    connections_ended: Counter[Ending] = field(default_factory=Counter)
    bytes_in: int = 0
    bytes_out: int = 0
