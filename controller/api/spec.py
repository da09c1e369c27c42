"""Pure: what a person asks for, ``.spec`` of an ``AlignedAggregator``.

Field docstrings become descriptions of the CRD and of the reference page. Rules that the API
server checks beyond types and bounds are in ``rules``.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field

from controller.api.fields import (
    HOST_PORT,
    HTTP_URL,
    REDIS_URL,
    Address,
    Duration,
    Fee,
    LocalRef,
    Name,
    Part,
    Path,
    Quantity,
    SecretKeyRef,
)

Overlay = Annotated[dict[str, Any], Field(json_schema_extra={"overlay": True})]
"""A partial pod template (``metadata.labels``, ``metadata.annotations``, ``spec``), merged over
ours by strategic merge: maps by key, containers, volumes and the like by name. Not validated."""

Url = Annotated[str, Field(pattern=HTTP_URL, max_length=2048)]


class Preset(StrEnum):
    """A known deployment of Aligned."""

    MAINNET = "Mainnet"
    DEVNET = "Devnet"


class Contracts(Part):
    """Addresses of a deployment; the others are asked for from these."""

    service_manager: Address
    """AlignedLayerServiceManager."""
    registry_coordinator: Address
    """RegistryCoordinator."""
    operator_state_retriever: Address
    """OperatorStateRetriever."""


class Network(Part):
    """Which deployment of Aligned is served. Cannot be changed."""

    preset: Preset | None = None
    """A known deployment. Either this, or chainId and contracts."""
    chain_id: Annotated[int, Field(ge=1, le=2**53 - 1)] | None = None
    """1 for Ethereum mainnet, 17000 for Holesky, 31337 for a local devnet."""
    contracts: Contracts | None = None
    """Addresses of the deployment."""


class Endpoint(Part):
    """One Ethereum JSON-RPC endpoint over HTTP."""

    name: Name
    """In logs, metrics and status; unique."""
    url: Url | None = None
    """Without credentials; either this or urlSecretRef."""
    url_secret_ref: SecretKeyRef | None = None
    """For URLs that carry a key."""


class Chain(Part):
    """How the chain is read."""

    deployment_block: Annotated[int, Field(ge=0, le=2**53 - 1)] | None = None
    """Where scans begin: the block of the service manager's deployment. Absent: the preset's,
    or 0."""
    poll_interval: Duration = "2s"
    """Between looks at the head."""
    request_timeout: Duration = "3s"
    """Per call and endpoint."""
    endpoints: Annotated[
        tuple[Endpoint, ...],
        Field(
            min_length=1,
            max_length=16,
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
            },
        ),
    ]
    """In order of preference; two of different providers are recommended."""


class SignerType(StrEnum):
    """What signs the answers."""

    KEYSTORE = "Keystore"
    WEB3SIGNER = "Web3Signer"


class Keystore(Part):
    """An Ethereum keystore V3, from a Secret or from files that a pod template brings."""

    keystore_secret_ref: SecretKeyRef | None = None
    """The keystore, JSON. Either this or file."""
    password_secret_ref: SecretKeyRef | None = None
    """Its password. Absent, with no passwordFile: the empty one."""
    file: Path | None = None
    """Path in the container, e.g. of a volume that ``template`` mounts."""
    password_file: Path | None = None
    """Path in the container."""


class Web3Signer(Part):
    """A remote signer that speaks eth_signTransaction: in front of a KMS, an HSM or a vault."""

    url: Url
    """Where it is."""
    address: Address
    """The account that signs: the aggregator address of the service manager."""
    ca_secret_ref: SecretKeyRef | None = None
    """Certificates that the signer's is checked against. Absent: those of the system."""
    client_certificate_secret_ref: SecretKeyRef | None = None
    """Shown to the signer; needs clientKeySecretRef."""
    client_key_secret_ref: SecretKeyRef | None = None
    """Key of the client certificate."""
    token_secret_ref: SecretKeyRef | None = None
    """Sent as a bearer token."""


class Signer(Part):
    """What signs the answers on chain."""

    type: SignerType
    """Keystore or Web3Signer; the section of that name is then required."""
    keystore: Keystore | None = None
    """With type Keystore."""
    web3signer: Web3Signer | None = None
    """With type Web3Signer."""


class Aggregation(Part):
    """When a batch is answered, and for how long it is tried."""

    window: Duration = "15s"
    """Wait for late signatures once two thirds of the stake have signed; all of it fires at
    once."""
    expiry: Duration = "168h"
    """Older batches are given up."""


class SubmissionMode(StrEnum):
    """Whether answers are sent."""

    ACTIVE = "Active"
    OBSERVE = "Observe"


class Submission(Part):
    """How answers are sent."""

    mode: SubmissionMode = SubmissionMode.ACTIVE
    """Observe does everything but sign and send: to run beside another aggregator."""
    max_fee_per_gas: Fee | None = None
    """Never pay more. Absent: the batch's own limit alone decides."""
    max_priority_fee_per_gas: Fee | None = None
    """Absent: what the endpoint suggests."""
    bump_percent: Annotated[int, Field(ge=13, le=100)] = 13
    """Raise of both fees at a replacement."""
    resubmit_after: Duration = "36s"
    """A transaction un-mined for this long is replaced."""
    max_in_flight: Annotated[int, Field(ge=1, le=16)] = 4
    """Un-mined transactions at once."""


class Profile(StrEnum):
    """How long a silent leader is waited for."""

    FAST = "Fast"
    NORMAL = "Normal"
    SAFE = "Safe"


class Failover(Part):
    """How soon another replica leads."""

    profile: Profile = Profile.NORMAL
    """Fast 1.5 s, Normal 5 s, Safe 15 s without a sign of the leader."""


class RedisMode(StrEnum):
    """Where replicas share what they collect."""

    MANAGED = "Managed"
    EXTERNAL = "External"
    NONE = "None"


class Resources(Part):
    """Requests and limits of a container."""

    requests: dict[str, Quantity] = Field(default={}, max_length=8)
    """By resource name."""
    limits: dict[str, Quantity] = Field(default={}, max_length=8)
    """By resource name."""


class ManagedRedis(Part):
    """Three pods of ours in memory, each with a Sentinel."""

    image: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    """A Valkey 8 or Redis 7 image or later. Absent: the release's own pinned Valkey 9."""
    resources: Resources | None = None
    """Of the server's container. Absent: 50m CPU and 128Mi, limit 256Mi memory."""
    template: Overlay | None = None
    """Partial pod template, merged over ours in the same way as the aggregator's; OpenShift wants
    the same in it."""


class RedisTls(Part):
    """Speak TLS to servers and Sentinels."""

    ca_secret_ref: SecretKeyRef | None = None
    """Certificates that theirs are checked against. Absent: those of the system."""
    certificate_secret_ref: SecretKeyRef | None = None
    """Shown to them; needs keySecretRef."""
    key_secret_ref: SecretKeyRef | None = None
    """Key of the certificate."""
    check_hostname: bool = True
    """Their certificates must name the host they are reached by."""


class ExternalRedis(Part):
    """A Redis 7 or Valkey 8 group, or later, that somebody else runs."""

    sentinels: Annotated[
        tuple[Annotated[str, Field(pattern=HOST_PORT, max_length=262)], ...], Field(max_length=9)
    ] = ()
    """host:port of every Sentinel, each by itself. Either these or url."""
    master_name: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """The name that Sentinels know the primary by; required with sentinels."""
    url: Annotated[str, Field(pattern=REDIS_URL, max_length=512)] | None = None
    """redis://host:port/database of a primary that keeps its address; rediss means TLS."""
    copies: Annotated[int, Field(ge=0, le=5)] = 1
    """Replicas of the primary that must have a signature before it is acknowledged."""
    username: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """ACL user of the servers. Absent: the default user."""
    password_secret_ref: SecretKeyRef | None = None
    """Of that user."""
    sentinel_username: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """ACL user of the Sentinels, who know nothing of the servers' users."""
    sentinel_password_secret_ref: SecretKeyRef | None = None
    """Of that user."""
    tls: RedisTls | None = None
    """Absent: no TLS, but where url says rediss."""


class Redis(Part):
    """Where replicas share what they collect. mode and external change only while suspended."""

    mode: RedisMode = RedisMode.MANAGED
    """Managed: three pods in memory beside the aggregator. External: somebody else's. None: one
    replica whose journal is the whole store."""
    managed: ManagedRedis | None = None
    """With mode Managed; may be absent."""
    external: ExternalRedis | None = None
    """With mode External."""


class JournalMode(StrEnum):
    """Where journals are kept."""

    PERSISTENT = "Persistent"
    EPHEMERAL = "Ephemeral"


class RetentionPolicy(StrEnum):
    """What becomes of volumes."""

    RETAIN = "Retain"
    DELETE = "Delete"


class Retention(Part):
    """What becomes of the journals' volumes."""

    when_deleted: RetentionPolicy = RetentionPolicy.RETAIN
    """Of all, with the resource. Delete goes by the StatefulSet: who deletes that by hand deletes
    the journals, too, unless with ``--cascade=orphan``."""
    when_scaled: RetentionPolicy = RetentionPolicy.RETAIN
    """Of a replica that is scaled away; suspend deletes none. What is scaled away while suspended
    stays."""


class Journal(Part):
    """Each replica's own file; a signature is in it before it is acknowledged."""

    mode: JournalMode = JournalMode.PERSISTENT
    """Ephemeral lives as long as the pod; needs Redis."""
    size: Quantity = "1Gi"
    """Of each volume. May grow, not shrink."""
    storage_class_name: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    """Absent: the cluster's default. Cannot be changed."""
    retention: Retention = Retention()


class ServiceType(StrEnum):
    """How operators reach the aggregator."""

    CLUSTER_IP = "ClusterIP"
    NODE_PORT = "NodePort"
    LOAD_BALANCER = "LoadBalancer"


class TrafficPolicy(StrEnum):
    """Which nodes take connections from outside."""

    CLUSTER = "Cluster"
    LOCAL = "Local"


class IpFamilyPolicy(StrEnum):
    """Address families of the Service."""

    SINGLE_STACK = "SingleStack"
    PREFER_DUAL_STACK = "PreferDualStack"
    REQUIRE_DUAL_STACK = "RequireDualStack"


class ProxyProtocolVersion(StrEnum):
    """PROXY protocol of the load balancer in front."""

    DISABLED = "Disabled"
    V1 = "V1"
    V2 = "V2"


class ProxyProtocol(Part):
    """Real source addresses behind a load balancer."""

    version: ProxyProtocolVersion = ProxyProtocolVersion.DISABLED
    """Disabled, V1 or V2."""
    trusted_cidrs: Annotated[
        tuple[Annotated[str, Field(max_length=49)], ...], Field(max_length=16)
    ] = ()
    """Peers whose header is believed, e.g. ``["10.0.0.0/8"]``; required unless Disabled."""


class Service(Part):
    """Where operators connect."""

    type: ServiceType = ServiceType.CLUSTER_IP
    """ClusterIP, NodePort or LoadBalancer."""
    port: Annotated[int, Field(ge=1, le=65535)] = 8090
    """That operators dial."""
    node_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Absent: chosen by Kubernetes. Not with ClusterIP."""
    load_balancer_class: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    """Only with LoadBalancer."""
    annotations: dict[str, Annotated[str, Field(max_length=4096)]] = Field(
        default={}, max_length=64
    )
    """For the load balancer's controller."""
    source_ranges: Annotated[
        tuple[Annotated[str, Field(max_length=49)], ...], Field(max_length=64)
    ] = ()
    """Sources that a load balancer lets in. Empty: all."""
    external_traffic_policy: TrafficPolicy | None = None
    """Absent: Local for LoadBalancer, so that limits per source see real addresses; else
    Cluster."""
    ip_family_policy: IpFamilyPolicy = IpFamilyPolicy.SINGLE_STACK
    """SingleStack, PreferDualStack or RequireDualStack."""
    proxy_protocol: ProxyProtocol = ProxyProtocol()


class Limits(Part):
    """What one replica takes."""

    connections: Annotated[int, Field(ge=1, le=100_000)] = 1024
    """At once; at the limit the connection that was idle for longest makes room."""
    connections_per_source: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Only where source addresses are real. Absent: no limit."""
    calls_per_connection: Annotated[int, Field(ge=1, le=10_000)] = 64
    """Unanswered at once."""


class NetworkPolicyMode(StrEnum):
    """How closed the pods are."""

    INGRESS = "Ingress"
    STRICT = "Strict"
    DISABLED = "Disabled"


class NetworkPolicy(Part):
    """Who may talk to the pods."""

    mode: NetworkPolicyMode = NetworkPolicyMode.INGRESS
    """Ingress: only the ports that are meant, from whom they are meant. Strict: what pods may
    reach is limited as well: Redis, DNS, the API server's and the endpoints' ports; where
    urlSecretRef hides the port of an endpoint, 80, 443 and 8545. Disabled: none."""


class Rollout(Part):
    """How changes reach the pods."""

    paused: bool = False
    """No pod is replaced while true."""


class AggregatorSpec(Part):
    """What is asked for."""

    replicas: Annotated[int, Field(ge=1, le=9)] = 3
    """All take signatures, one of them answers on chain."""
    image: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    """Of the aggregator. Absent: the release's own when first created, and then what runs, until
    another one is set."""
    image_pull_secrets: Annotated[tuple[LocalRef, ...], Field(max_length=16)] = ()
    """For private registries."""
    suspend: bool = False
    """No pods; all data is kept."""
    rollout: Rollout = Rollout()
    network: Network
    chain: Chain
    signer: Signer | None = None
    """May be absent with submission.mode Observe only."""
    aggregation: Aggregation = Aggregation()
    submission: Submission = Submission()
    failover: Failover = Failover()
    redis: Redis = Redis()
    journal: Journal = Journal()
    service: Service = Service()
    limits: Limits = Limits()
    network_policy: NetworkPolicy = NetworkPolicy()
    resources: Resources | None = None
    """Of the aggregator's container. Absent: 250m CPU and 256Mi, limit 512Mi memory."""
    template: Overlay | None = None
    """Partial pod template, merged over ours: maps by key, containers, volumes, env and the like by
    name, other lists as a whole. ``$patch: delete`` in an item removes it, ``$patch: replace`` in
    an item or a map puts it in the place of ours. OpenShift assigns users and groups itself and
    wants ``{spec: {securityContext: {$patch: replace, runAsNonRoot: true}}}``."""
