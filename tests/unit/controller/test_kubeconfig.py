from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml

from aligned.errors import BadConfiguration
from controller.kubeconfig import ApiServer, api_server


def a_kubeconfig(folder: Path, user: dict[str, Any], **cluster: Any) -> Path:
    path = folder / "config"
    config = {
        "current-context": "here",
        "contexts": [
            {"name": "there", "context": {"cluster": "none"}},
            {"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "aligned"}},
        ],
        "clusters": [{"name": "c", "cluster": {"server": "https://there:6443/", **cluster}}],
        "users": [{"name": "u", "user": user}],
    }
    path.write_text(yaml.safe_dump(config))
    return path


def data(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def read(path: Path | None) -> str:
    assert path is not None
    return path.read_text()


def an_account(folder: Path) -> Path:
    (folder / "token").write_text("first\n")
    (folder / "namespace").write_text("aligned")
    (folder / "ca.crt").write_text("authorities")
    return folder


IN_POD = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}


def test_data_of_a_kubeconfig_is_in_files_while_it_is_used(tmp_path: Path) -> None:
    user = {"client-certificate-data": data("certificate"), "client-key-data": data("key")}
    path = a_kubeconfig(tmp_path, user, **{"certificate-authority-data": data("authorities")})
    with api_server({}, path) as server:
        assert (server.url, server.namespace) == ("https://there:6443", "aligned")
        assert read(server.ca_file) == "authorities"
        assert (read(server.certificate_file), read(server.key_file)) == ("certificate", "key")
        assert server.token() is None
        assert server.key_file is not None
        folder = server.key_file.parent
        assert folder.stat().st_mode & 0o077 == 0
    assert not folder.exists()


def test_files_that_a_kubeconfig_names_are_relative_to_it(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("authorities")
    (tmp_path / "my-token").write_text("one")
    path = a_kubeconfig(tmp_path, {"tokenFile": "my-token"}, **{"certificate-authority": "ca.pem"})
    with api_server({"KUBECONFIG": str(path)}) as server:
        assert read(server.ca_file) == "authorities"
        assert server.token() == "one"
        (tmp_path / "my-token").write_text("two")
        assert server.token() == "two"


def test_a_token_of_a_kubeconfig_is_used(tmp_path: Path) -> None:
    path = a_kubeconfig(tmp_path, {"token": "secret"}, **{"insecure-skip-tls-verify": True})
    with api_server({}, path) as server:
        assert server.token() == "secret"
        assert server.insecure
        assert "secret" not in repr(server)


def test_a_pod_uses_its_account_and_reads_its_token_again(tmp_path: Path) -> None:
    account = an_account(tmp_path)
    with api_server({**IN_POD, "HOME": str(tmp_path)}, account=account) as server:
        assert (server.url, server.namespace) == ("https://10.96.0.1:443", "aligned")
        assert server.token() == "first"
        (account / "token").write_text("second")
        assert server.token() == "second"


def test_a_pod_with_ipv6_has_brackets(tmp_path: Path) -> None:
    environment = {**IN_POD, "KUBERNETES_SERVICE_HOST": "fd00::1"}
    with api_server(environment, account=an_account(tmp_path)) as server:
        assert server.url == "https://[fd00::1]:443"


def test_a_kubeconfig_wins_over_the_account(tmp_path: Path) -> None:
    path = a_kubeconfig(tmp_path, {"token": "theirs"})
    with api_server({**IN_POD, "KUBECONFIG": str(path)}, account=an_account(tmp_path)) as server:
        assert server.token() == "theirs"


def test_at_home_the_usual_file_is_used(tmp_path: Path) -> None:
    (tmp_path / ".kube").mkdir()
    a_kubeconfig(tmp_path / ".kube", {"token": "mine"})
    with api_server({"HOME": str(tmp_path)}) as server:
        assert server.token() == "mine"


def refused(environment: dict[str, str], path: Path | None = None, **parts: Path) -> str:
    with pytest.raises(BadConfiguration) as error, api_server(environment, path, **parts):
        pass
    [problem] = error.value.problems
    return problem


def test_what_cannot_be_used_is_said_with_what_to_do(tmp_path: Path) -> None:
    assert "set KUBECONFIG" in refused({"HOME": str(tmp_path)})
    assert "automountServiceAccountToken" in refused(IN_POD, account=tmp_path / "none")
    assert "name one of them" in refused({"KUBECONFIG": "/one:/two"})
    program = {"exec": {"command": "aws"}}
    assert "kubectl create token" in refused({}, a_kubeconfig(tmp_path, program))
    assert "cannot be understood" in refused({}, a_kubeconfig(tmp_path, {"client-key-data": "x"}))
    (tmp_path / "config").write_text("current-context: none")
    assert "cannot be understood" in refused({}, tmp_path / "config")


def test_certificates_that_are_none_are_said(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text("nonsense")
    server = ApiServer(url="https://there", namespace="a", ca_file=tmp_path / "ca.crt")
    with pytest.raises(BadConfiguration, match="cannot be used"):
        server.ssl_context()
    assert ApiServer(url="http://there", namespace="a").ssl_context() is None
