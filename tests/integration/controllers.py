"""The controller as processes."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from controller import ports
from tests.integration.daemons import free_port
from tests.kubernetes import Admin, path_of
from tests.waiting import SECONDS, until

STOP_SECONDS = 25.0
"""That a stop may take. The kubelet kills a pod of the chart 5 s later."""


def a_kubeconfig(folder: Path, server: str, token: str, **cluster: Any) -> Path:
    """One for an API server and the identity of a token."""
    path = folder / f"kubeconfig-{token[-12:]}"
    config = {
        "current-context": "it",
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        "clusters": [{"name": "it", "cluster": {"server": server, **cluster}}],
        "users": [{"name": "it", "user": {"token": token}}],
    }
    path.write_text(yaml.safe_dump(config))
    return path


async def of_account(admin: Admin, folder: Path, namespace: str, account: str) -> Path:
    """A kubeconfig with the rights of a service account."""
    path = path_of(ports.SERVICE_ACCOUNTS, namespace, account, "token")
    token = (await admin.call("POST", path, {"spec": {}}))["status"]["token"]
    server = admin.server
    authority: dict[str, Any] = {"insecure-skip-tls-verify": True}
    if server.ca_file is not None:
        data = base64.b64encode(server.ca_file.read_bytes()).decode()
        authority = {"certificate-authority-data": data}
    return a_kubeconfig(folder, server.url, token, **authority)


class Controller:
    """One process."""

    def __init__(self, process: asyncio.subprocess.Process, url: str, log: Path) -> None:
        self.process = process
        self.url = url
        self.log = log

    @property
    def code(self) -> int | None:
        """How it ended; None: it runs."""
        return self.process.returncode

    async def ask(self, path: str) -> tuple[int, str]:
        """Status and text; 0 if there was no answer."""
        timeout = aiohttp.ClientTimeout(total=10)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.get(f"{self.url}/{path}") as answer,
            ):
                return answer.status, await answer.text()
        except (aiohttp.ClientError, TimeoutError, OSError):
            return 0, ""

    async def metric(self, name: str) -> float:
        """The value of a metric with its labels; 0 if it is not there."""
        _, text = await self.ask("metrics")
        found = [line.split()[-1] for line in text.splitlines() if line.startswith(f"{name} ")]
        return float(found[0]) if found else 0.0

    async def is_ready(self) -> bool:
        return (await self.ask("readyz"))[0] == 200

    async def leads(self) -> bool:
        return await self.metric("controller_leads") == 1.0

    def send(self, number: signal.Signals) -> None:
        if self.code is None:
            self.process.send_signal(number)

    async def ended(self, seconds: float = SECONDS) -> int:
        async with asyncio.timeout(seconds):
            return await self.process.wait()

    async def stops(self) -> int:
        """Ask it to stop, and wait no longer than it may take."""
        self.send(signal.SIGTERM)
        return await self.ended(STOP_SECONDS)

    def memory(self) -> float:
        """Resident, in megabytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        [line] = [line for line in status.splitlines() if line.startswith("VmRSS")]
        return int(line.split()[1]) / 1024


@asynccontextmanager
async def controller(
    kubeconfig: Path, folder: Path, *options: str, pod: str = "controller-0"
) -> AsyncIterator[Controller]:
    """A controller that runs until the context ends."""
    port = free_port()
    log = folder / f"{pod}-{port}.log"
    with log.open("wb") as written:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "controller",
            "run",
            "--kubeconfig",
            str(kubeconfig),
            "--image",
            "aggregator:1",
            "--redis-image",
            "valkey:1",
            "--telemetry",
            f"127.0.0.1:{port}",
            "--log-format",
            "text",
            *options,
            stderr=written,
            stdout=written,
            env={"PATH": os.defpath, "POD_NAME": pod},
        )
    one = Controller(process, f"http://127.0.0.1:{port}", log)
    try:
        yield one
    except BaseException:
        print(log.read_text()[-20_000:])  # noqa: T201 - what a failed test has to show
        raise
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def started(*controllers: Controller) -> None:
    for one in controllers:
        await until(one.is_ready, "the controller is ready")
