"""Edge: the init step of a pod of the group. The package's docstring says what it does and why."""

from __future__ import annotations

import asyncio
import logging
import secrets
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from controller.names import MASTER_NAME, REDIS_PORT, SENTINEL_PORT
from controller.redis_node import render, resp
from controller.redis_node.rule import Answer, Configuration, Ignorance, best, decide, translated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from controller.redis_node.render import Group

logger = logging.getLogger(__name__)

USER = "failover"
"""Whom Sentinels let ask."""

_STARTING = "STARTING"
_PAUSE_SECONDS = 0.25
_MOST_CALLERS = 64
_CALL_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where things are, and for how long is tried."""

    config: Path
    """The ConfigMap's files."""
    secrets: Path
    """The Secret's files: a password for each user."""
    data: Path
    """Written to; shared with the server and the Sentinel."""
    listen: str | None = None
    """Address to listen at; None: all of them."""
    hairpin_seconds: float = 30.0
    """For this pod to reach itself. A Service's way to a new pod takes seconds to appear."""
    ask_seconds: float = 10.0
    """For the other Sentinels to tell who is primary, from then on."""
    failover_seconds: float = 20.0
    """The same where they name this pod, which is empty: one with the data is to be promoted. Where
    their vote was split they try again after twice the failover timeout of ``sentinel.conf``."""


class NoHairpin(Exception):
    """This pod cannot reach itself at the address it is to announce."""


async def start(place: Place, pod: str) -> Configuration:
    """Find out who is primary, write the configuration, and return what the pod goes by.

    Raises:
        NoHairpin: What to do about it is in the message.
        Unusable: The same.
    """
    group = render.parse_group((place.config / "nodes").read_text(), pod)
    passwords = {
        file.name: file.read_text().strip()
        for file in sorted(place.secrets.iterdir())
        if file.is_file() and not file.name.startswith(".")
    }
    async with _listening(place.listen) as token:
        await _reach_self(group.me.address, token, place.hairpin_seconds)
        configuration = await _learn(group, passwords.get(USER, ""), place)
    _write(place, group, configuration, passwords)
    return configuration


@asynccontextmanager
async def _listening(host: str | None) -> AsyncIterator[str]:
    """Answer everybody that this pod is starting; gives what else the answer says."""
    token = secrets.token_hex(8)
    callers = asyncio.Semaphore(_MOST_CALLERS)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_CALL_SECONDS), callers:
                while True:
                    command = await resp.read(reader)
                    login = isinstance(command, list) and str(command[:1]).lower() == "['auth']"
                    writer.write(b"+OK\r\n" if login else f"-{_STARTING} {token}\r\n".encode())
                    await writer.drain()
        except (OSError, EOFError, asyncio.LimitOverrunError, TimeoutError, resp.Malformed):
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(answer, host, SENTINEL_PORT):
        yield token


async def _reach_self(address: str, token: str, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while True:
        reply = await _ask(address, None, ("PING",))
        if reply == f"{_STARTING} {token}":
            return
        if loop.time() >= until:
            break
        await asyncio.sleep(_PAUSE_SECONDS)
    met = "nobody answered" if reply is None else f"somebody else answered: {reply!r}"
    msg = (
        f"this pod cannot reach itself through its own Service {address}:{SENTINEL_PORT} "
        f"({met} for {seconds:.0f} s). Check that the Service selects this pod, that no "
        "NetworkPolicy keeps the pod from itself, and that the cluster's network supports "
        "hairpin traffic (for the bridge CNI plug-in: hairpinMode or promiscMode)"
    )
    raise NoHairpin(msg)


async def _learn(group: Group, password: str, place: Place) -> Configuration:
    loop = asyncio.get_running_loop()
    began = loop.time()
    while True:
        answers = await _answers(group, password)
        named = best(answers)
        awaits_failover = named is not None and named.primary == group.me.address
        patience = place.failover_seconds if awaits_failover else place.ask_seconds
        final = loop.time() - began >= patience
        decided = decide(answers, addresses=group.addresses, me=group.me.address, final=final)
        if decided is not None:
            _tell(group, decided, answers, final=final)
            return decided
        await asyncio.sleep(_PAUSE_SECONDS)


async def _answers(group: Group, password: str) -> list[Answer]:
    others = [node.address for node in group.others]
    async with asyncio.TaskGroup() as asking:
        asked = [asking.create_task(_configuration(other, password)) for other in others]
        roles = [asking.create_task(_claims(other, password)) for other in others]
    claiming = [other for other, role in zip(others, roles, strict=True) if role.result()]
    answers = [task.result() for task in asked]
    return translated(answers, addresses=group.addresses, claiming=claiming)


def _tell(group: Group, decided: Configuration, answers: list[Answer], *, final: bool) -> None:
    said = dict(zip((node.address for node in group.others), answers, strict=True))
    logger.info("primary %s at epoch %d; Sentinels: %s", decided.primary, decided.epoch, said)
    if Ignorance.REFUSING in answers:
        logger.warning(
            "a Sentinel refuses this pod's password. If passwords were changed, restart its pod too"
        )
    if (
        final
        and decided.primary == group.me.address
        and any(isinstance(answer, Configuration) for answer in answers)
    ):
        logger.warning(
            "the Sentinels still name this pod, which is empty: no replica is fit to be promoted. "
            "It starts as the primary and the aggregators' journals fill it again; if none of "
            "them runs, start them before deleting any of their volumes"
        )


async def _configuration(address: str, password: str) -> Answer:
    reply = await _ask(address, password, ("SENTINEL", "MASTER", MASTER_NAME))
    if isinstance(reply, list):
        fields = dict(zip(map(str, reply[::2]), map(str, reply[1::2]), strict=False))
        with suppress(KeyError, ValueError):
            return Configuration(fields["ip"], int(fields["config-epoch"]))
    if isinstance(reply, resp.Refusal) and reply.split(" ")[0] in {_STARTING, "ERR"}:
        return Ignorance.STARTING
    return Ignorance.SILENT if reply is None else Ignorance.REFUSING


async def _claims(address: str, password: str) -> bool:
    """Tell whether the server says that it is a primary."""
    reply = await _ask(address, password, ("INFO", "replication"), REDIS_PORT)
    return isinstance(reply, str) and "role:master" in reply.splitlines()


async def _ask(
    address: str, password: str | None, command: tuple[str, ...], port: int = SENTINEL_PORT
) -> resp.Reply:
    """Return the reply, or the refusal of the password; None: no answer in time."""
    commands = [command] if password is None else [("AUTH", USER, password), command]
    try:
        async with asyncio.timeout(_CALL_SECONDS):
            reader, writer = await asyncio.open_connection(address, port)
            try:
                writer.write(b"".join(map(resp.encode, commands)))
                for _ in commands[1:]:
                    if isinstance(login := await resp.read(reader), resp.Refusal):
                        return login
                return await resp.read(reader)
            finally:
                writer.close()
    except (OSError, EOFError, asyncio.LimitOverrunError, TimeoutError, resp.Malformed):
        return None


def _write(
    place: Place, group: Group, configuration: Configuration, passwords: dict[str, str]
) -> None:
    templates = {name: (place.config / name).read_text() for name in render.TEMPLATES}
    values = {"data": str(place.data), "listen": place.listen or "* -::*"}
    rendered = render.files(group, configuration, templates, passwords, values)
    variables = {
        "address": group.me.address,
        "local": place.listen or "127.0.0.1",
        "config": str(place.config),
        "secrets": str(place.secrets),
    }
    rendered["node.sh"] = render.shell(variables)
    for name in ("served", "stopped"):  # marks of server.sh and stop.sh
        (place.data / name).unlink(missing_ok=True)
    for name, text in rendered.items():
        file = place.data / name
        file.unlink(missing_ok=True)
        file.touch(mode=0o600)
        file.write_text(text)
