"""What becomes of each key of the Go aggregator's configuration. Reads files, writes none.

Source: ``core/config/*.go`` of aligned_layer, v0.10.1 and later.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aggregator import configure
from aggregator.goconfig import deployment as deployments
from aggregator.goconfig.gofile import GoFile
from aggregator.sections import host_of
from aggregator.units import format_duration
from aligned.errors import BadConfiguration

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from aggregator.goconfig.deployment import Deployment

_BUMP_LEAST, _BUMP_MOST = 13, 100

_DEPLOYMENT_KEY = "aligned_layer_deployment_config_file_path"

_NOT_NEEDED = {
    "eth_ws_url": "blocks are polled over HTTP",
    "eth_ws_url_fallback": "blocks are polled over HTTP",
    "eigen_layer_deployment_config_file_path": "an aggregator never used it",
    "eigen_metrics_ip_port_address": "nothing ever listened there",
    "bls.private_key_store_path": "an aggregator only verifies BLS signatures",
    "bls.private_key_store_password": "an aggregator only verifies BLS signatures",
    "aggregator.bls_public_key_compendium_address": "an aggregator never used it",
    "aggregator.avs_service_manager_address": "the deployment file has it",
    "aggregator.garbage_collector_period": "batches go when the chain has finalized them",
    "aggregator.garbage_collector_tasks_age": "batches go when the chain has finalized them",
    "aggregator.garbage_collector_tasks_interval": "batches go when the chain has finalized them",
    "aggregator.gas_base_bump_percentage": "fees follow the market up to the batch's limit",
    "aggregator.gas_bump_percentage_limit": "fees follow the market up to the batch's limit",
    "aggregator.poll_latest_batch_interval": "every block is looked at, not only the newest batch",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """The result."""

    text: str
    """Our file."""
    password: str
    """Of the keystore; "" where the Go file has the empty one, and no file is needed."""
    notes: tuple[str, ...]
    """What a person should know, one line each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to convert, and where the result will be."""

    config: Path
    """The Go aggregator's YAML file."""
    deployment: Path | None
    """Instead of the one that the YAML file names."""
    chain_id: int | None
    """Given by the person: asks nobody."""
    folder: Path
    """Of the output; absolute."""
    current: Path
    """Where the Go aggregator is started: its relative paths count from here. Absolute."""
    password_file: str
    """Path of the password file as it will stand in the output."""
    shared: Shared | None = None
    """For several replicas."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """The Redis that replicas share, which the Go aggregator has not. As in our file."""

    sentinels: tuple[str, ...] = ()
    master_name: str | None = None
    url: str | None = None


def convert(request: Request, ask: Callable[[Sequence[str]], int | None]) -> Imported:
    """Return our configuration for a Go aggregator's.

    Args:
        request: See there.
        ask: Returns the chain id that one of some endpoints gives, None when none answers.

    Raises:
        BadConfiguration: With every problem found, by the Go file's keys.
    """
    go = GoFile(request.config)
    work = _Conversion(go, request)
    work.network(ask)
    work.signer()
    work.timing()
    work.addresses()
    if request.shared is not None:
        work.redis(request.shared)
    work.leftovers()
    if go.problems:
        raise BadConfiguration(tuple(go.problems))
    _check(work.text(with_password=False), request.folder)
    return Imported(
        text=work.text(with_password=True), password=work.password, notes=tuple(work.notes)
    )


def _check(text: str, folder: Path) -> None:
    """Read the result as ``run`` will.

    Raises:
        BadConfiguration: It would not run.
    """
    configure.read(text, {}, folder=folder, name="the result")


class _Conversion:
    """Collects lines of the output, section by section."""

    def __init__(self, go: GoFile, request: Request) -> None:
        self.go = go
        self.request = request
        self.notes: list[str] = []
        self.password = ""
        self._lines: list[tuple[int, str, str]] = []
        """Depth, ``key: value``, where it came from."""

    def text(self, *, with_password: bool) -> str:
        lines = [
            "# Made by `aggregator config import` from the Go aggregator's",
            f"# {self.request.config.name}. After each value: the key it came from.",
            "# Every key: docs/configuration.md. Relative paths count from this file's folder.",
        ]
        for depth, line, origin in self._lines:
            if line.startswith("password_file:") and not with_password:
                continue
            if depth == 0:
                lines.append("")
            lines.append(f"{'  ' * depth}{line}{f'  # {origin}' if origin else ''}")
        return "\n".join(lines) + "\n"

    def network(self, ask: Callable[[Sequence[str]], int | None]) -> None:
        """Which deployment, and the endpoints."""
        deployment = self._deployment()
        endpoints = self._endpoints()
        if self.go.problems:
            return
        chain_id, origin = self._chain_id(deployment, [url for _, url, _ in endpoints], ask)
        self._add(0, "network:")
        self._add(1, f"chain_id: {chain_id}", origin)
        self._add(1, "contracts:")
        for key, address in deployment.contracts.items():
            self._add(2, f"{key}: {_quoted(address)}", "deployment file")
        self._add(0, "chain:")
        block = deployment.deployment_block
        if block is None:
            self.notes.append("the deployment file names no block: scans begin at block 0")
        self._add(1, f"deployment_block: {block or 0}", "deployment file")
        self._add(1, "endpoints:")
        for name, url, key in endpoints:
            self._add(2, f"- name: {name}")
            self._add(3, f"url: {_quoted(url)}", key)

    def signer(self) -> None:
        """The key that answers."""
        store = self.go.require("ecdsa.private_key_store_path")
        self.password = self.go.take("ecdsa.private_key_store_password") or ""
        self._add(0, "signer:")
        self._add(1, "type: keystore")
        path = str(self.request.current / store)
        self._add(1, f"file: {_quoted(path)}", "ecdsa.private_key_store_path")
        if self.password:
            line = f"password_file: {_quoted(self.request.password_file)}"
            self._add(1, line, "ecdsa.private_key_store_password")
        else:
            self._add(1, "# no password_file: the password is empty")

    def timing(self) -> None:
        """Expiry and replacement."""
        self._add(0, "aggregation:")
        self._add(1, "window: 15s", "built into the Go aggregator")
        key = "aggregator.bls_service_task_timeout"
        expiry = self.go.duration(key)
        if expiry is not None and expiry <= 15.0:  # noqa: PLR2004 - the window above
            self.notes.append(f"{key}: {format_duration(expiry)} is below the window; now 168h")
            expiry = None
        if expiry is None:
            self._add(1, "expiry: 168h", "as Aligned recommends")
        else:
            self._add(1, f"expiry: {format_duration(expiry)}", key)
        self._add(0, "submission:")
        self._add(1, "mode: active")
        key = "aggregator.gas_bump_incremental_percentage"
        percent = self._bump(key)
        if percent is not None:
            self._add(1, f"bump_percent: {percent}", key)
        key = "aggregator.time_to_wait_before_bump"
        wait = self.go.duration(key)
        if wait:
            self._add(1, f"resubmit_after: {format_duration(max(wait, 0.001))}", key)

    def addresses(self) -> None:
        """Where we listen and what we tell."""
        self._add(0, "listen:")
        key = "aggregator.server_ip_port_address"
        self._add(1, f"address: {_quoted(self._every(self.go.require(key)))}", key)
        self._add(0, "journal:")
        self._add(1, "path: aggregator.db", "new: what was acknowledged survives in it")
        self._add(0, "telemetry:")
        self._metrics()
        key = "aggregator.telemetry_ip_port_address"
        telemetry = self.go.take(key)
        if telemetry:
            self._add(1, f"upstream_url: {_quoted('http://' + telemetry)}", key)
        environment = self.go.take("environment")
        if environment == "development":
            self._add(1, "log_format: text", "environment")
            self._add(1, "log_level: debug", "environment")
        else:
            self._add(1, "log_format: json", "environment")
            self._add(1, "log_level: info", "environment")

    def redis(self, shared: Shared) -> None:
        """What replicas share; the election is by it too."""
        self._add(0, "redis:")
        if shared.sentinels:
            self._add(1, f"sentinels: {json.dumps(shared.sentinels)}", "--redis-sentinel")
        if shared.master_name is not None:
            self._add(1, f"master_name: {_quoted(shared.master_name)}", "--redis-master")
        if shared.url is not None:
            self._add(1, f"url: {_quoted(shared.url)}", "--redis-url")
        self.notes.append(
            "redis: start a replica on each of several machines with this file; each needs the "
            "signer's key, a journal of its own, and a host name unlike the others'"
        )
        if shared.url is not None:
            self.notes.append("redis: for a server without replicas of its own add copies: 0")

    def leftovers(self) -> None:
        """Tell what has no counterpart here."""
        reasons: dict[str, list[str]] = {}
        for key in self.go.unused():
            reasons.setdefault(_NOT_NEEDED.get(key, ""), []).append(key)
        unknown = reasons.pop("", [])
        self.notes += [f"not needed ({why}): {', '.join(keys)}" for why, keys in reasons.items()]
        if unknown:
            self.notes.append(f"ignored, not known: {', '.join(unknown)}")

    def _deployment(self) -> Deployment:
        named = self.go.take(_DEPLOYMENT_KEY)
        key, path = _DEPLOYMENT_KEY, named and self.request.current / named
        if self.request.deployment is not None:
            key, path = "--aligned-deployment", self.request.current / self.request.deployment
        if not path:
            self.go.problems.append(f"{key}: required, or pass --aligned-deployment FILE")
            path = self.request.current / "none"
            return deployments.read(path, key)[0]
        deployment, problems = deployments.read(path, key)
        self.go.problems += problems
        return deployment

    def _endpoints(self) -> list[tuple[str, str, str]]:
        """Return name, URL and key of each endpoint."""
        endpoints: list[tuple[str, str, str]] = []
        for name, key in (("main", "eth_rpc_url"), ("fallback", "eth_rpc_url_fallback")):
            url = self.go.require(key) if name == "main" else self.go.take(key)
            if not url:
                continue
            if not url.startswith(("http://", "https://")):
                problem = "must begin with http:// or https://: a provider has one beside ws://"
                self.go.problems.append(f"{key}: {problem}")
            elif any(url == other for _, other, _ in endpoints):
                self.notes.append(f"{key} is the same endpoint as eth_rpc_url; it is listed once")
            else:
                endpoints.append((name, url, key))
        if len(endpoints) == 1:
            host = host_of(endpoints[0][1])
            self.notes.append(f"{host} is the only endpoint; a second provider is recommended")
        return endpoints

    def _chain_id(
        self, deployment: Deployment, urls: list[str], ask: Callable[[Sequence[str]], int | None]
    ) -> tuple[int, str]:
        if self.request.chain_id is not None:
            return self.request.chain_id, "--chain-id"
        answered, written = ask(urls), deployment.chain_id
        if answered is not None and written is not None and answered != written:
            self.go.problems.append(
                f"eth_rpc_url: the endpoint serves chain {answered}, the deployment is on"
                f" {written}; correct one of them, or decide by --chain-id"
            )
        if answered is not None:
            return answered, "asked from the endpoint"
        if written is not None:
            name = f"known: {deployment.known.name}" if deployment.known else "deployment file"
            self.notes.append(f"no endpoint answered; chain id {written} is from: {name}")
            return written, name
        self.go.problems.append(
            "eth_rpc_url: no endpoint answered, and the deployment file does not name its chain;"
            " pass --chain-id NUMBER"
        )
        return 1, ""

    def _bump(self, key: str) -> int | None:
        percent = self.go.number(key)
        if percent is None:
            return None
        fitting = min(max(percent, _BUMP_LEAST), _BUMP_MOST)
        if fitting != percent:
            why = "nodes refuse replacements that pay less" if percent < fitting else "the most"
            self.notes.append(f"{key}: {percent} became {fitting}: {why}")
        return fitting

    def _metrics(self) -> None:
        key = "aggregator.metrics_ip_port_address"
        address = self.go.take(key)
        if self.go.take("aggregator.enable_metrics") in {"true", "True", "TRUE"} and address:
            self._add(1, f"address: {_quoted(self._every(address))}", key)
            return
        self._add(1, "address: null", "aggregator.enable_metrics")
        self.notes.append(
            "metrics were off, so /metrics and the probes are; telemetry.address turns them on"
        )

    def _every(self, address: str) -> str:
        """Go listens everywhere at ``:8090``."""
        everywhere = "0.0.0.0"  # noqa: S104 - what the Go file says
        return f"{everywhere}{address}" if address.startswith(":") else address

    def _add(self, depth: int, line: str, origin: str = "") -> None:
        self._lines.append((depth, line, origin))


def _quoted(text: str) -> str:
    """Return ``text`` as YAML between double quotes; JSON's escapes are YAML's too."""
    return json.dumps(text, ensure_ascii=False)
