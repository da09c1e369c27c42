"""The aggregator as a child process: start, watch, kill, start again."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import aiohttp

if TYPE_CHECKING:
    from types import TracebackType

_PR_SET_PDEATHSIG = 1
_POLL_SECONDS = 0.02
_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
_TAIL_BYTES = 4000


class DaemonFailed(RuntimeError):
    """The process ended, or did not get ready in time; carries the end of its log."""


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Daemon:
    """One aggregator process.

    Args:
        config: Its configuration file.
        telemetry: host:port of its probes, as configured.
        log: Where its output goes; appended to over restarts.

    Resource handling:
        As an async context manager it kills the process at the end, whatever happened. On Linux
        the process dies with this one too.
    """

    def __init__(self, config: Path, *, telemetry: str, log: Path) -> None:
        self._config = config
        self._base = f"http://{telemetry}"
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self.starts = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        """Process id of the latest start."""
        return self._started.pid

    @property
    def is_running(self) -> bool:
        """Whether the process was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            msg = "the daemon was never started"
            raise DaemonFailed(msg)
        return self._process

    def start(self) -> None:
        """Start the process and return at once."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603  # our own program and paths
                [sys.executable, "-m", "aggregator", "run", "--config", str(self._config)],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509  # no threads yet
            )
        self.starts += 1

    async def ready(self, seconds: float = 120.0) -> None:
        """Wait until ``/readyz`` says so.

        Raises:
            DaemonFailed: It ended, or ``seconds`` went by.
        """
        try:
            async with asyncio.timeout(seconds), aiohttp.ClientSession() as session:
                while not await self._is_ready(session):
                    if self._started.poll() is not None:
                        msg = f"the daemon ended with {self._started.returncode}:\n{self.tail()}"
                        raise DaemonFailed(msg)
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError as late:
            msg = f"the daemon is not ready after {seconds} s:\n{self.tail()}"
            raise DaemonFailed(msg) from late

    async def _is_ready(self, session: aiohttp.ClientSession) -> bool:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            timeout = aiohttp.ClientTimeout(total=10)
            async with session.get(f"{self._base}/readyz", timeout=timeout) as answer:
                return answer.status == 200  # noqa: PLR2004  # HTTP OK
        return False

    async def status(self) -> dict[str, Any]:
        """Return ``/status``.

        Raises:
            aiohttp.ClientError: It does not answer.
        """
        timeout = aiohttp.ClientTimeout(total=30)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"{self._base}/status") as answer,
        ):
            status: dict[str, Any] = await answer.json()
            return status

    async def metrics(self) -> str:
        """Return ``/metrics`` as text.

        Raises:
            aiohttp.ClientError: It does not answer.
        """
        timeout = aiohttp.ClientTimeout(total=30)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"{self._base}/metrics") as answer,
        ):
            return await answer.text()

    def kill(self) -> None:
        """SIGKILL, and wait for the end. Does nothing when it is not running."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, e.g. SIGSTOP."""
        self._started.send_signal(number)

    async def terminate(self, seconds: float = 60.0) -> int:
        """SIGTERM; return the exit status.

        Raises:
            DaemonFailed: It is still there after ``seconds``.
        """
        self._started.terminate()
        return await self.ended(seconds)

    async def ended(self, seconds: float = 120.0) -> int:
        """Wait for the end by itself; return the exit status.

        Raises:
            DaemonFailed: It is still there after ``seconds``.
        """
        process = self._started
        try:
            return await asyncio.to_thread(process.wait, seconds)
        except subprocess.TimeoutExpired as late:
            msg = f"the daemon runs on after {seconds} s:\n{self.tail()}"
            raise DaemonFailed(msg) from late

    def tail(self) -> str:
        """Return the end of the log."""
        if not self._log.exists():
            return ""
        return self._log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace")

    def log_text(self) -> str:
        """Return the whole log, all starts."""
        return self._log.read_text(errors="replace")

    def cpu_seconds(self) -> float:
        """Return the CPU time of the process so far, user and system (Linux)."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _CLOCK_TICKS

    def memory_bytes(self) -> tuple[int, int]:
        """Return resident and peak resident memory (Linux)."""
        sizes = {}
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in {"VmRSS", "VmHWM"}:
                sizes[name] = int(value.split()[0]) * 1024
        return sizes["VmRSS"], sizes["VmHWM"]
