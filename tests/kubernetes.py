"""A real API server to test against: whichever ``KUBECONFIG`` names."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import aiohttp
import pytest

from controller import names
from controller.api.crd import crd
from controller.kubeconfig import ApiServer
from controller.ports import Kind, Manifest
from tests.waiting import until

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
DEFINITION = f"{DEFINITIONS}/{names.PLURAL}.{names.DOMAIN}"
RESOURCES = f"/apis/{names.API_VERSION}/{names.PLURAL}"


def environment(name: str) -> str:
    """What the environment says; it chooses which tests run."""
    return os.environ.get(name, "")  # noqa: TID251 - no product reads it here


def kubeconfig() -> Path:
    """The file, or a skipped test."""
    path = environment("KUBECONFIG")
    if not path or not Path(path).is_file():
        pytest.skip("KUBECONFIG names no file: set it to that of a cluster to test against")
    return Path(path)


class Admin:
    """An administrator who speaks HTTP; nothing of the product is between."""

    def __init__(self, server: ApiServer) -> None:
        self.server = server
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        context = self.server.ssl_context()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=True if context is None else context)
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._session is not None
        await self._session.close()

    async def try_call(
        self, method: str, path: str, body: object = None, content: str = "application/json"
    ) -> tuple[int, Any]:
        """Status and answer."""
        assert self._session is not None
        token = self.server.token()
        headers = {"Content-Type": content}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        async with self._session.request(
            method, self.server.url + path, json=body, headers=headers
        ) as response:
            if response.content_type != "application/json":
                return response.status, {"message": await response.text()}
            return response.status, await response.json()

    async def call(
        self, method: str, path: str, body: object = None, content: str = "application/json"
    ) -> Any:
        """The answer, which must be a good one."""
        status, answer = await self.try_call(method, path, body, content)
        assert status < 300, (method, path, answer)
        return answer

    async def merge(self, path: str, body: object) -> Any:
        return await self.call("PATCH", path, body, "application/merge-patch+json")

    async def apply_crd(self) -> None:
        """Install the definition, and wait until it is served."""
        path = f"{DEFINITION}?fieldManager=tests&force=true"
        await self.call("PATCH", path, crd(), "application/apply-patch+yaml")
        await self.crd_is_served()

    async def crd_is_served(self) -> None:
        """Wait until the definition, which somebody has installed, is served."""
        await until(self._is_served, "the definition is served")

    async def _is_served(self) -> bool:
        status = (await self.call("GET", DEFINITION)).get("status") or {}
        listing, _ = await self.try_call("GET", RESOURCES)
        established = {"type": "Established", "status": "True"}
        return listing == 200 and any(
            established.items() <= one.items() for one in status.get("conditions") or ()
        )

    async def needs_to_be_alone(self) -> None:
        """Skip a test that deletes all resources, or serves them, where others have any."""
        status, found = await self.try_call("GET", RESOURCES)
        spaces = (await self.call("GET", "/api/v1/namespaces"))["items"]
        lasting = {
            each["metadata"]["name"] for each in spaces if each["status"]["phase"] != "Terminating"
        }
        items = found["items"] if status == 200 else ()
        if any(each["metadata"]["namespace"] in lasting for each in items):
            pytest.skip("there are resources of others, which would be deleted or changed")

    async def delete_crd(self) -> None:
        """Delete the definition, and wait until it and all resources are gone."""
        await self.try_call("DELETE", DEFINITION)
        await until(self.crd_is_gone, "the definition is gone")

    async def crd_is_gone(self) -> bool:
        return (await self.try_call("GET", DEFINITION))[0] == 404

    @asynccontextmanager
    async def namespace(self, prefix: str = "controller") -> AsyncIterator[str]:
        """One of our own, deleted again."""
        name = f"{prefix}-{secrets.token_hex(4)}"
        await self.call("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        try:
            yield name
        finally:
            await self.call("DELETE", f"/api/v1/namespaces/{name}")


def path_of(kind: Kind, namespace: str, name: str = "", subresource: str = "") -> str:
    root = "/apis" if "/" in kind.api_version else "/api"
    parts = [root, kind.api_version, "namespaces", namespace, kind.plural, name, subresource]
    return "/".join(part for part in parts if part)


def an_aggregator(namespace: str, name: str = "demo", **spec: object) -> Manifest:
    """The least that the API server takes, changed by ``spec``."""
    least: Mapping[str, object] = {
        "network": {"preset": "Mainnet"},
        "chain": {"endpoints": [{"name": "main", "url": "https://ethereum.example.org"}]},
        "submission": {"mode": "Observe"},
    }
    return {
        "apiVersion": "aligned-aggregator.io/v1alpha1",
        "kind": "AlignedAggregator",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {**least, **spec},
    }
