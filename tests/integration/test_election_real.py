"""The election at a real API server: whichever KUBECONFIG names."""

from __future__ import annotations

import base64
import os
import secrets
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from aggregator.leadership.kubernetes import KubernetesLock, LeaseAt
from aggregator.leadership.lease import FENCED, HANDOVER_TO
from tests.fakes.candidates import FenceInMemory, Replica
from tests.fakes.redis import until

NAMESPACE = "default"


class Cluster:
    """An administrator's way to one Lease."""

    def __init__(self, folder: Path) -> None:
        path = os.environ.get("KUBECONFIG")  # noqa: TID251 - chooses whether these tests run
        if not path or not Path(path).is_file():
            pytest.skip("KUBECONFIG names no file: set it to that of a cluster to test against")
        config = yaml.safe_load(Path(path).read_text())
        cluster = config["clusters"][0]["cluster"]
        user = config["users"][0]["user"]
        self.ssl = ssl.create_default_context(cadata=self._data(cluster, "certificate-authority"))
        if any(key.startswith("client-certificate") for key in user):
            certificate, key = folder / "certificate.pem", folder / "key.pem"
            certificate.write_text(self._data(user, "client-certificate"))
            key.write_text(self._data(user, "client-key"))
            self.ssl.load_cert_chain(certificate, key)
        token = folder / "token"
        token.write_text(user.get("token", ""))
        self.name = f"election-{secrets.token_hex(4)}"
        self.at = LeaseAt(
            server=cluster["server"],
            namespace=NAMESPACE,
            name=self.name,
            token_file=token if user.get("token") else None,
            ssl=self.ssl,
        )
        self._headers = {"Authorization": f"Bearer {user['token']}"} if user.get("token") else {}
        self.url = f"{cluster['server']}/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases"

    @staticmethod
    def _data(section: dict[str, str], key: str) -> str:
        if (data := section.get(f"{key}-data")) is not None:
            return base64.b64decode(data).decode()
        return Path(section[key]).read_text()

    async def call(self, method: str, url: str, body: object = None, kind: str = "") -> Any:
        headers = self._headers | ({"Content-Type": kind} if kind else {})
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, url, json=body, headers=headers, ssl=self.ssl) as response,
        ):
            assert response.status < 300, await response.text()
            return await response.json()

    async def create(self, term: int) -> None:
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self.name},
            "spec": {"leaseTransitions": term},
        }
        await self.call("POST", self.url, lease)

    async def delete(self) -> None:
        await self.call("DELETE", f"{self.url}/{self.name}")

    async def spec(self) -> dict[str, Any]:
        found: dict[str, Any] = (await self.call("GET", f"{self.url}/{self.name}"))["spec"]
        return found

    async def annotate(self, name: str, value: str | None) -> None:
        patch = {"metadata": {"annotations": {name: value}}}
        await self.call("PATCH", f"{self.url}/{self.name}", patch, "application/merge-patch+json")


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    """With a Lease of its own."""
    one = Cluster(tmp_path)
    await one.create(term=6)
    yield one
    await one.delete()


async def test_an_election_at_a_real_api_server(cluster: Cluster) -> None:
    shared = FenceInMemory()
    async with AsyncExitStack() as stack:
        replicas = [
            await stack.enter_async_context(
                Replica(pod, lambda: KubernetesLock(cluster.at), shared).running()
            )
            for pod in ("pod-0", "pod-1", "pod-2")
        ]

        def leading() -> list[str]:
            return [one.pod for one in replicas if one.leads]

        await until(lambda: len(leading()) == 1, "one leads")
        [first] = leading()
        assert shared.claims == [(7, f"{first} boot")]
        target = next(one.pod for one in replicas if one.pod != first)
        leader = next(one for one in replicas if one.pod == first)
        await until(lambda: len(leader.leadership._vitals.peers) == 2, "all know all as fit")
        await cluster.annotate(HANDOVER_TO, target)
        await until(lambda: leading() == [target], "the target leads")
        await cluster.annotate(FENCED, target)
        await until(lambda: len(leading()) == 1 and leading() != [target], "another leads")
        spec = await cluster.spec()
        assert (spec["holderIdentity"], spec["leaseTransitions"]) == (f"{leading()[0]} boot", 9)
        await cluster.delete()
        elector = replicas[0].leadership._elector
        assert elector is not None
        now = elector.beat
        await until(lambda: elector.beat > now + 2.0, "the lease has run out")
        assert shared.fence[0] == 9
        await cluster.create(term=0)
        await until(lambda: shared.fence[0] == 10, "terms go on above the fence")
    spec = await cluster.spec()
    assert not spec.get("holderIdentity")
    terms = [term for term, _ in shared.effects]
    assert terms == sorted(set(terms))
