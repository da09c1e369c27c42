"""Edge: where the API server is, and who we are to it.

Three clients need it: ours, kopf's, and the election's. All get files, because tokens are renewed
in files.
"""

from __future__ import annotations

import base64
import binascii
import ssl
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import yaml

from aligned.errors import BadConfiguration

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds its service account: token, ca.crt, namespace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiServer:
    """Where it is and how to get in."""

    url: str
    """Without a path."""
    namespace: str
    """That is ours where nobody says another one."""
    ca_file: Path | None = None
    """None: the system's authorities."""
    certificate_file: Path | None = None
    key_file: Path | None = None
    token_file: Path | None = None
    """To be read again and again: it is renewed."""
    insecure: bool = False
    """Its certificate is not checked."""

    def token(self) -> str | None:
        """Return the bearer token as it is now, None where there is none.

        Raises:
            OSError: It cannot be read.
        """
        return None if self.token_file is None else self.token_file.read_text("utf-8").strip()

    def ssl_context(self) -> ssl.SSLContext | None:
        """Return a new TLS configuration, None for plain HTTP.

        Raises:
            BadConfiguration: A file is not what it should be.
        """
        if not self.url.startswith("https:"):
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            if self.insecure:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            if self.certificate_file is not None:
                context.load_cert_chain(self.certificate_file, self.key_file)
        except (OSError, ssl.SSLError) as error:
            problem = f"certificates for {self.url} cannot be used: {error}"
            raise BadConfiguration((problem,)) from error
        return context


@contextmanager
def api_server(
    environment: Mapping[str, str], kubeconfig: Path | None = None, account: Path = ACCOUNT
) -> Iterator[ApiServer]:
    """Give the API server: of the kubeconfig if there is one, else of the pod that we are in.

    Without ``kubeconfig`` that is what ``KUBECONFIG`` says; ``~/.kube/config`` is not looked for
    inside of a pod.

    Resource handling: secrets of a kubeconfig are in private files while the context lasts.

    Raises:
        BadConfiguration: Neither can be used.
    """
    path = kubeconfig or _named(environment)
    if path is None and environment.get("KUBERNETES_SERVICE_HOST"):
        yield _in_pod(environment, account)
        return
    path = path or Path(environment.get("HOME", "/"), ".kube", "config")
    with TemporaryDirectory(prefix="controller-") as folder:
        yield _of_kubeconfig(path, Path(folder))


def _named(environment: Mapping[str, str]) -> Path | None:
    value = environment.get("KUBECONFIG", "")
    if ":" in value:
        problem = "KUBECONFIG: several files are not merged here; name one of them"
        raise BadConfiguration((problem,))
    return Path(value) if value else None


def _in_pod(environment: Mapping[str, str], account: Path) -> ApiServer:
    host, port = (environment.get(f"KUBERNETES_SERVICE_{what}") or "" for what in ("HOST", "PORT"))
    try:
        namespace = (account / "namespace").read_text("utf-8").strip()
        (account / "token").read_text("utf-8")
    except OSError as error:
        problem = (
            f"this pod has no service account token ({error}): set automountServiceAccountToken, "
            "or give a --kubeconfig"
        )
        raise BadConfiguration((problem,)) from error
    return ApiServer(
        url=f"https://{f'[{host}]' if ':' in host else host}:{port or 443}",
        namespace=namespace,
        ca_file=account / "ca.crt",
        token_file=account / "token",
    )


def _of_kubeconfig(path: Path, folder: Path) -> ApiServer:
    try:
        config = yaml.safe_load(path.read_text("utf-8"))
        contexts, clusters, users = (_by_name(config, kind) for kind in _KINDS)
        context = contexts[config["current-context"]]
        cluster, user = clusters[context["cluster"]], users.get(context.get("user", ""), {})
        return ApiServer(
            url=str(cluster["server"]).rstrip("/"),
            namespace=context.get("namespace") or "default",
            ca_file=_file(path, cluster, "certificate-authority", folder),
            certificate_file=_file(path, user, "client-certificate", folder),
            key_file=_file(path, user, "client-key", folder),
            token_file=_token(path, user, folder),
            insecure=bool(cluster.get("insecure-skip-tls-verify")),
        )
    except OSError as error:
        problem = (
            f"no way to an API server: this is no pod, and the kubeconfig {path} cannot be read "
            f"({error.strerror or error}); set KUBECONFIG, or give --kubeconfig"
        )
        raise BadConfiguration((problem,)) from error
    except (yaml.YAMLError, LookupError, TypeError, AttributeError, binascii.Error) as error:
        problem = f"the kubeconfig {path} cannot be understood: {error!r}"
        raise BadConfiguration((problem,)) from error


_KINDS = ("context", "cluster", "user")


def _by_name(config: Any, kind: str) -> dict[str, dict[str, Any]]:
    return {one["name"]: one.get(kind) or {} for one in config.get(f"{kind}s") or ()}


def _file(path: Path, section: Mapping[str, Any], key: str, folder: Path) -> Path | None:
    """Return the file that ``key`` names, or one with the data that it has."""
    if data := section.get(f"{key}-data"):
        file = folder / key
        file.write_bytes(base64.b64decode(data))
        return file
    return path.parent / section[key] if section.get(key) else None


def _token(path: Path, user: Mapping[str, Any], folder: Path) -> Path | None:
    if user.get("tokenFile"):
        return path.parent / str(user["tokenFile"])
    if user.get("token"):
        file = folder / "token"
        file.write_text(user["token"], "utf-8")
        return file
    if user.get("exec") or user.get("auth-provider"):
        problem = (
            f"the kubeconfig {path} gets its credentials from a program, which is not run here; "
            "make one with a token: kubectl create token SERVICEACCOUNT"
        )
        raise BadConfiguration((problem,))
    return None
