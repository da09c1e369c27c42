"""Edge: what Kubernetes tells a pod about itself and about its API server."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING

from aggregator.leadership.kubernetes import LeaseAt
from aligned.errors import BadConfiguration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aggregator.replicas import Election

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds its service account: token, ca.crt, namespace."""


def lease_at(
    election: Election, environment: Mapping[str, str], account: Path = ACCOUNT
) -> LeaseAt:
    """Return where the configured Lease is; what is not configured is as pods find it.

    Raises:
        BadConfiguration: This is no pod, and something is not configured.
    """
    problems: list[str] = []
    server = election.api_server
    host, port = (environment.get(f"KUBERNETES_SERVICE_{what}") for what in ("HOST", "PORT"))
    if server is None and host:
        server = f"https://{f'[{host}]' if ':' in host else host}:{port or 443}"
    if server is None:
        problems.append("election.api_server: required outside of a pod")
    namespace = election.lease_namespace
    if namespace is None:
        try:
            namespace = (account / "namespace").read_text(encoding="utf-8").strip()
        except OSError:
            problems.append("election.lease_namespace: required outside of a pod")
    if problems or server is None or namespace is None or election.lease_name is None:
        raise BadConfiguration(tuple(problems))
    token = election.token_file or account / "token"
    return LeaseAt(
        server=server,
        namespace=namespace,
        name=election.lease_name,
        token_file=token if token.exists() else None,
        ssl=_context(election.api_ca_file or account / "ca.crt", server),
    )


def _context(authorities: Path, server: str) -> ssl.SSLContext | None:
    if not server.startswith("https:") or not authorities.exists():
        return None
    try:
        return ssl.create_default_context(cafile=str(authorities))
    except (OSError, ssl.SSLError) as error:
        problem = f"election.api_ca_file: {authorities} cannot be used: {error}"
        raise BadConfiguration((problem,)) from error
