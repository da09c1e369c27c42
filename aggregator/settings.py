"""The configuration file: sections, defaults and rules.

One YAML file with snake_case keys. Secrets are always paths of files. ``aggregator.configure``
reads it; stages and pure code get plain values, edges their section.
"""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_FEE = re.compile(r"(\d+(?:\.\d+)?)\s*(wei|gwei|ether)")
_WEI = {"wei": 0, "gwei": 9, "ether": 18}


def parse_duration(value: object) -> object:
    """Return ``"1m30s"`` as 90.0 seconds; other values pass for the type to judge."""
    if not isinstance(value, str):
        return value
    if not _DURATION.fullmatch(value):
        msg = f"{value!r} is not a duration; write for example '15s', '250ms', '1m30s' or '168h'"
        raise ValueError(msg)
    return sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(value))


def parse_fee(value: object) -> object:
    """Return ``"30gwei"`` as 30000000000 wei, exactly; integers are wei already."""
    if not isinstance(value, str):
        return value
    match = _FEE.fullmatch(value.strip())
    if match is None:
        msg = f"{value!r} is not a fee; write for example '30gwei', '1.5gwei' or '1000000000wei'"
        raise ValueError(msg)
    whole, _, fraction = match[1].partition(".")
    places = _WEI[match[2]]
    if len(fraction) > places:
        msg = f"{value!r} is finer than one wei"
        raise ValueError(msg)
    return int(whole + fraction.ljust(places, "0"))


def parse_address(value: object) -> object:
    """Return ``"0x…"`` as 20 bytes."""
    if not isinstance(value, str) or not re.fullmatch(r"0x[0-9a-fA-F]{40}", value):
        msg = f"{value!r} is not an address; write 0x and 40 hexadecimal digits, in quotes"
        raise ValueError(msg)
    return bytes.fromhex(value[2:])


Seconds = Annotated[float, BeforeValidator(parse_duration), Field(ge=0)]
Fee = Annotated[int, BeforeValidator(parse_fee), Field(ge=0)]
AddressBytes = Annotated[bytes, BeforeValidator(parse_address)]


class Section(BaseModel):
    """A part of the file; unknown keys are errors, and nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Contracts(Section):
    """Addresses of a deployment; the others are asked for from these."""

    service_manager: AddressBytes
    registry_coordinator: AddressBytes
    operator_state_retriever: AddressBytes


class Network(Section):
    """Which Aligned deployment this aggregator serves."""

    chain_id: int = Field(gt=0)
    contracts: Contracts


class Endpoint(Section):
    """One Ethereum JSON-RPC endpoint over HTTP. URLs carry keys: only the host is ever shown."""

    name: str = Field(min_length=1, max_length=63)
    url: str | None = Field(default=None, repr=False)
    url_file: Path | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.url is None) == (self.url_file is None):
            msg = "set exactly one of url and url_file"
            raise ValueError(msg)
        if self.url is not None and not self.url.startswith(("http://", "https://")):
            msg = "url must begin with http:// or https://"
            raise ValueError(msg)
        return self


class Chain(Section):
    """How the chain is read."""

    endpoints: tuple[Endpoint, ...] = Field(min_length=1, max_length=16)
    """In order of preference."""
    deployment_block: int = Field(default=0, ge=0)
    """Where scans begin; the block that holds the service manager's deployment."""
    poll_interval: Seconds = Field(default=2.0, gt=0)
    """Between looks at the head."""
    request_timeout: Seconds = Field(default=3.0, gt=0)
    """Per call and endpoint."""
    max_head_age: Seconds = Field(default=60.0, gt=0)
    """An endpoint whose head is older while another one's is not is passed over."""


class KeystoreSigner(Section):
    """An Ethereum keystore V3."""

    type: Literal["keystore"]
    file: Path
    password_file: Path | None = None
    """None: the empty password, which the Go aggregator allows too."""


class Web3Signer(Section):
    """A remote signer that speaks ``eth_signTransaction``."""

    type: Literal["web3signer"]
    url: str
    address: AddressBytes
    ca_file: Path | None = None
    client_certificate_file: Path | None = None
    client_key_file: Path | None = None
    token_file: Path | None = None
    """Sent as a bearer token."""
    timeout: Seconds = Field(default=5.0, gt=0)


Signer = Annotated[KeystoreSigner | Web3Signer, Field(discriminator="type")]


class Aggregation(Section):
    """When a batch is answered, and for how long it is tried."""

    window: Seconds = 15.0
    """Wait for late signatures once the threshold is reached."""
    expiry: Seconds = Field(default=168 * 3600.0, gt=0)
    """Older batches are given up."""


class Mode(StrEnum):
    """Whether answers are sent."""

    ACTIVE = "active"
    OBSERVE = "observe"


class Submission(Section):
    """How answers are sent."""

    mode: Mode = Mode.ACTIVE
    max_fee_per_gas: Fee | None = None
    """Never pay more; None: the batch's own limit alone decides."""
    max_priority_fee_per_gas: Fee | None = None
    """None: what the endpoint suggests."""
    bump_percent: int = Field(default=13, ge=13, le=100)
    """Raise of both fees at a replacement; nodes want 10, some 12.5."""
    resubmit_after: Seconds = Field(default=36.0, gt=0)
    """A transaction un-mined for this long is replaced."""
    max_in_flight: int = Field(default=4, ge=1, le=16)
    """Un-mined transactions at once."""


class ProxyProtocol(StrEnum):
    """PROXY protocol of the load balancer in front."""

    OFF = "off"
    V1 = "v1"
    V2 = "v2"


class Listen(Section):
    """Where operators connect."""

    address: str = "0.0.0.0:8090"
    """host:port; an IPv6 host in brackets."""
    max_connections: int = Field(default=1024, ge=1)
    max_calls_per_connection: int = Field(default=64, ge=1)
    max_connections_per_source: int | None = Field(default=None, ge=1)
    """Only where peer addresses are real: behind a NAT everybody has the same."""
    idle_timeout: Seconds = Field(default=60.0, gt=0)
    """Connections with nothing pending are closed; Go clients dial again at the next call."""
    drain_timeout: Seconds = 5.0
    """At shutdown, for calls in flight."""
    proxy_protocol: ProxyProtocol = ProxyProtocol.OFF
    trusted_cidrs: tuple[str, ...] = ()
    """Peers whose PROXY header is believed."""


class Journal(Section):
    """The file that makes an acknowledgement a promise."""

    path: Path = Path("aggregator.db")


class Bls(Section):
    """Signature arithmetic."""

    backend: Literal["auto", "arkworks", "zksnake", "py_ecc"] = "auto"


class LogFormat(StrEnum):
    """How log lines look."""

    JSON = "json"
    TEXT = "text"


class Telemetry(Section):
    """What the daemon shows."""

    address: str | None = "0.0.0.0:9091"
    """/healthz, /readyz, /metrics and /status; null: none of them."""
    upstream_url: str | None = None
    """Base URL of Aligned's telemetry service, e.g. http://localhost:4001."""
    log_format: LogFormat = LogFormat.JSON
    log_level: Literal["debug", "info", "warning", "error"] = "info"


class Settings(Section):
    """The whole file."""

    network: Network
    chain: Chain
    signer: Signer | None = None
    """May be absent in ``submission.mode: observe`` only."""
    aggregation: Aggregation = Aggregation()
    submission: Submission = Submission()
    listen: Listen = Listen()
    journal: Journal = Journal()
    bls: Bls = Bls()
    telemetry: Telemetry = Telemetry()

    @model_validator(mode="after")
    def _signer_when_active(self) -> Self:
        if self.submission.mode is Mode.ACTIVE and self.signer is None:
            msg = "signer is required unless submission.mode is 'observe'"
            raise ValueError(msg)
        return self
