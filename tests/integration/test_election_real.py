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
from devnet.network import Network
from devnet.sentinel import SentinelGroup
from tests.fakes.candidates import FenceInMemory, Replica
from tests.fakes.redis import until
from tests.integration.trio import three

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
        self.server = cluster["server"]
        self.url = f"{self.server}/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases"
        self.authorities = folder / "authorities.pem"
        self.authorities.write_text(self._data(cluster, "certificate-authority"))

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

    async def account(self, folder: Path) -> Path:
        """Make a service account that may do what a replica may; return the file of its token."""
        core = f"{self.server}/api/v1/namespaces/{NAMESPACE}/serviceaccounts"
        access = f"{self.server}/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}"
        named = {"metadata": {"name": self.name}}
        await self.call("POST", core, named)
        rule = {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "resourceNames": [self.name],
            "verbs": ["get", "watch", "update"],
        }
        await self.call("POST", f"{access}/roles", named | {"rules": [rule]})
        group = "rbac.authorization.k8s.io"
        binding = named | {
            "roleRef": {"apiGroup": group, "kind": "Role", "name": self.name},
            "subjects": [{"kind": "ServiceAccount", "name": self.name, "namespace": NAMESPACE}],
        }
        await self.call("POST", f"{access}/rolebindings", binding)
        token = folder / "replica.token"
        answer = await self.call("POST", f"{core}/{self.name}/token", {"spec": {}})
        token.write_text(answer["status"]["token"])
        return token

    async def forget(self) -> None:
        """Delete what ``account`` made."""
        access = f"{self.server}/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}"
        core = f"{self.server}/api/v1/namespaces/{NAMESPACE}/serviceaccounts"
        for url in (f"{access}/rolebindings", f"{access}/roles", core):
            await self.call("DELETE", f"{url}/{self.name}")

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


async def test_daemons_with_no_more_rights_than_they_need_lead_by_turns(
    chain: Network, group: SentinelGroup, cluster: Cluster, tmp_path: Path
) -> None:
    election = {
        "backend": "kubernetes",
        "lease_name": cluster.name,
        "lease_namespace": NAMESPACE,
        "api_server": cluster.server,
        "token_file": str(await cluster.account(tmp_path)),
        "api_ca_file": str(cluster.authorities),
    }
    async with three(chain, group, tmp_path, election=election) as trio:
        leader = await trio.replicas.start()
        first, second = [await trio.batcher.post() for _ in range(2)]
        await trio.signed_at(first, trio.replicas.all)
        await trio.answered_once(first)
        await trio.signed(second, 0, leader)
        leader.daemon.kill()
        successor = await trio.replicas.leader(other_than=leader)
        await cluster.delete()
        await trio.signed_by_the_others(second, leader)
        await trio.answered_once(first, second)  # by the store's word
        before = (await successor.daemon.status())["role"]["term"]
        await cluster.create(term=0)
        await trio.told(successor, "another replica leads", reason="held by nobody in term 0")
        await trio.replicas.leader(other_than=leader, after=before)  # terms go on
        await trio.nothing_is_lost(of=trio.standbys(leader))
        for replica in trio.standbys(leader):
            assert await replica.daemon.terminate() == 0
    assert not (await cluster.spec()).get("holderIdentity")
    await cluster.forget()


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
