"""The configuration file: sections, defaults and rules.

One YAML file with snake_case keys. Secrets are always paths of files. ``aggregator.configure``
reads it; stages and pure code get plain values, edges their section. The text below each field
is what ``docs/configuration.md`` says.
"""

from __future__ import annotations

from enum import StrEnum
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from aggregator.replicas import Backend, Election, Redis
from aggregator.sections import ListenAddress, Misfits, PlainUrl, SecretUrl, Section
from aggregator.units import AddressBytes, Fee, Seconds
from aligned.telemetry.logs import LogFormat


class Contracts(Section):
    """Addresses of a deployment; the others are asked for from these."""

    service_manager: AddressBytes
    """``AlignedLayerServiceManager``."""
    registry_coordinator: AddressBytes
    """``RegistryCoordinator``."""
    operator_state_retriever: AddressBytes
    """``OperatorStateRetriever``."""


class Network(Section):
    """Which Aligned deployment this aggregator serves."""

    chain_id: int = Field(gt=0)
    """1 for Ethereum mainnet, 17000 for Holesky, 31337 for a local devnet. An endpoint of another
    chain is never used."""
    contracts: Contracts


class Endpoint(Section):
    """One Ethereum JSON-RPC endpoint over HTTP. URLs carry keys: only the host is ever shown."""

    name: str = Field(min_length=1, max_length=63)
    """In logs, metrics and ``/status``; unique."""
    url: SecretUrl | None = Field(default=None, repr=False)
    """Either this or ``url_file``."""
    url_file: Path | None = None
    """A file with the URL as its only line, for URLs that carry a key."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.url is None and self.url_file is None:
            raise Misfits({"url": "required, or url_file"})
        if self.url is not None and self.url_file is not None:
            raise Misfits({"url_file": "must not be set together with url; keep one of them"})
        return self


class Chain(Section):
    """How the chain is read."""

    endpoints: tuple[Endpoint, ...] = Field(min_length=1, max_length=16)
    """In order of preference. Two of different providers are recommended."""
    deployment_block: int = Field(default=0, ge=0)
    """Where scans begin; the block that holds the service manager's deployment."""
    poll_interval: Seconds = Field(default=2.0, gt=0)
    """Between looks at the head."""
    request_timeout: Seconds = Field(default=3.0, gt=0)
    """Per call and endpoint."""
    max_head_age: Seconds = Field(default=60.0, gt=0)
    """An endpoint whose head is older while another one's is not is passed over."""

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        first: dict[str, int] = {}
        problems = {
            f"endpoints[{index}].name": f"{endpoint.name!r} is taken by endpoints[{earlier}]"
            for index, endpoint in enumerate(self.endpoints)
            if (earlier := first.setdefault(endpoint.name, index)) != index
        }
        if problems:
            raise Misfits(problems)
        return self


class KeystoreSigner(Section):
    """An Ethereum keystore V3."""

    type: Literal["keystore"]
    """What signs: the key in this file."""
    file: Path
    """The keystore, JSON as geth and the Go aggregator have it."""
    password_file: Path | None = None
    """A file with the password as its only line. Absent: the empty password, which the Go
    aggregator allows too."""


class Web3Signer(Section):
    """A remote signer that speaks ``eth_signTransaction``."""

    type: Literal["web3signer"]
    """What signs: web3signer, in front of a KMS, an HSM or a vault."""
    url: PlainUrl = Field(repr=False)
    """Credentials belong in ``token_file`` or in the client certificate."""
    address: AddressBytes
    """The account that signs: the aggregator address of the service manager."""
    ca_file: Path | None = None
    """Certificates that the signer's is checked against. Absent: those of the system."""
    client_certificate_file: Path | None = None
    """Shown to the signer; needs ``client_key_file``."""
    client_key_file: Path | None = None
    """Key of the client certificate."""
    token_file: Path | None = None
    """Sent as a bearer token."""
    timeout: Seconds = Field(default=5.0, gt=0)
    """Per signature."""

    @model_validator(mode="after")
    def _certificate_and_key(self) -> Self:
        certificate, key = self.client_certificate_file, self.client_key_file
        if certificate is not None and key is None:
            raise Misfits({"client_key_file": "required with client_certificate_file"})
        if key is not None and certificate is None:
            raise Misfits({"client_certificate_file": "required with client_key_file"})
        if self.url.startswith("http://"):
            tls = ("ca_file", "client_certificate_file")
            problems = {key: "needs a url with https://" for key in tls if getattr(self, key)}
            if problems:
                raise Misfits(problems)
        return self


Signer = Annotated[KeystoreSigner | Web3Signer, Field(discriminator="type")]


class Aggregation(Section):
    """When a batch is answered, and for how long it is tried."""

    window: Seconds = 15.0
    """Wait for late signatures once the threshold is reached. All of the stake fires at once."""
    expiry: Seconds = Field(default=168 * 3600.0, gt=0)
    """Older batches are given up."""

    @model_validator(mode="after")
    def _window_fits(self) -> Self:
        if self.window >= self.expiry:
            raise Misfits({"window": "must be shorter than expiry"})
        return self


class Mode(StrEnum):
    """Whether answers are sent."""

    ACTIVE = "active"
    OBSERVE = "observe"


class Submission(Section):
    """How answers are sent."""

    mode: Mode = Mode.ACTIVE
    """``observe`` does everything but sign and send: to run beside another aggregator."""
    max_fee_per_gas: Fee | None = None
    """Never pay more. Absent: the batch's own limit alone decides."""
    max_priority_fee_per_gas: Fee | None = None
    """Absent: what the endpoint suggests."""
    bump_percent: int = Field(default=13, ge=13, le=100)
    """Raise of both fees at a replacement; nodes want 10, some 12.5."""
    resubmit_after: Seconds = Field(default=36.0, gt=0)
    """A transaction un-mined for this long is replaced."""
    max_in_flight: int = Field(default=4, ge=1, le=16)
    """Un-mined transactions at once."""

    @model_validator(mode="after")
    def _tip_within_fee(self) -> Self:
        tip, fee = self.max_priority_fee_per_gas, self.max_fee_per_gas
        if tip is not None and fee is not None and tip > fee:
            raise Misfits({"max_priority_fee_per_gas": "must not exceed max_fee_per_gas"})
        return self


class ProxyProtocol(StrEnum):
    """PROXY protocol of the load balancer in front."""

    OFF = "off"
    V1 = "v1"
    V2 = "v2"


class Listen(Section):
    """Where operators connect."""

    address: ListenAddress = "0.0.0.0:8090"
    """host:port; an IPv6 host in brackets, and then the whole in quotes. ``"[::]:8090"`` is every
    address of the machine, IPv4 included; ``0.0.0.0`` those of IPv4."""
    max_connections: int = Field(default=1024, ge=1)
    """At the limit the connection that was idle for longest makes room."""
    max_calls_per_connection: int = Field(default=64, ge=1)
    """Unanswered calls of one connection; more are not read until some are answered."""
    max_connections_per_source: int | None = Field(default=None, ge=1)
    """Only where peer addresses are real: behind a NAT everybody has the same. Absent: no limit."""
    idle_timeout: Seconds = Field(default=60.0, gt=0)
    """Connections with nothing pending are closed; Go clients dial again at the next call."""
    drain_delay: Seconds = 1.0
    """At shutdown, how long calls are still taken after ``/readyz`` has turned, for load balancers
    to notice."""
    drain_timeout: Seconds = 5.0
    """At shutdown, for calls in flight after that."""
    proxy_protocol: ProxyProtocol = ProxyProtocol.OFF
    """Version of the header that the load balancer puts in front of a connection."""
    trusted_cidrs: tuple[str, ...] = ()
    """Peers whose PROXY header is believed, e.g. ``["10.0.0.0/8"]``; required with
    ``proxy_protocol``."""

    @field_validator("trusted_cidrs")
    @classmethod
    def _are_networks(cls, cidrs: tuple[str, ...]) -> tuple[str, ...]:
        for cidr in cidrs:
            try:
                ip_network(cidr)
            except ValueError as error:
                msg = f"{cidr!r} is not a network: {error}"
                raise ValueError(msg) from error
        return cidrs

    @model_validator(mode="after")
    def _somebody_is_trusted(self) -> Self:
        if self.proxy_protocol is not ProxyProtocol.OFF and not self.trusted_cidrs:
            raise Misfits({"trusted_cidrs": "required with proxy_protocol: whose header counts?"})
        return self


class Journal(Section):
    """The file that makes an acknowledgement a promise."""

    path: Path = Path("aggregator.db")
    """SQLite database on a local disk; its folder must be writable."""


class Bls(Section):
    """Signature arithmetic."""

    backend: Literal["auto", "arkworks", "zksnake", "py_ecc"] = "auto"
    """``auto`` takes the fastest one that works on this machine."""


class Telemetry(Section):
    """What the daemon shows."""

    address: ListenAddress | None = "0.0.0.0:9091"
    """host:port of /healthz, /readyz, /metrics and /status, as in ``listen.address``; null: none
    of them."""
    upstream_url: PlainUrl | None = None
    """Base URL of Aligned's telemetry service, e.g. http://localhost:4001. Absent: not told."""
    log_format: LogFormat = LogFormat.JSON
    """``text`` is for people."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Lines below it are not written."""


class Settings(Section):
    """The whole file."""

    rendered_by: Literal["controller"] | None = None
    """Set in files that the controller wrote: unknown keys are then a warning instead of an error,
    because versions differ during an upgrade."""
    network: Network
    chain: Chain
    signer: Signer | None = None
    """May be absent in ``submission.mode: observe`` only."""
    aggregation: Aggregation = Aggregation()
    submission: Submission = Submission()
    listen: Listen = Listen()
    journal: Journal = Journal()
    redis: Redis | None = None
    """Absent: this process is the only one, and its journal is the whole store."""
    election: Election = Election()
    bls: Bls = Bls()
    telemetry: Telemetry = Telemetry()

    @model_validator(mode="after")
    def _sections_fit(self) -> Self:
        problems = {}
        if self.submission.mode is Mode.ACTIVE and self.signer is None:
            problems["signer"] = "required unless submission.mode is 'observe'"
        shown = self.telemetry.address
        if shown == self.listen.address and not shown.endswith(":0"):
            problems["telemetry.address"] = "must differ from listen.address"
        if self.redis is None and self.election.backend not in {None, Backend.SINGLE}:
            problems["redis"] = "required with election.backend: terms are fenced in what is shared"
        if problems:
            raise Misfits(problems)
        return self
