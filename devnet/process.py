"""Child processes that never outlive us.

A child is started by a few lines of Python that ask the kernel to kill it when its parent is gone
(Linux), then become the program: the held pid is the program's own.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_LAUNCHER = """
import os, sys
parent = int(sys.argv[1])
if sys.platform == "linux":
    import ctypes
    PR_SET_PDEATHSIG, SIGKILL = 1, 9
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
if os.getppid() != parent:
    os._exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""
_TERM_SECONDS = 30.0


class Process:
    """A running program.

    Start it from a thread that lives as long as the program shall: the kernel counts the death of
    the starting thread as the parent's.

    Resource handling: ``end`` it; it also ends when this process dies, however.
    """

    def __init__(
        self, command: Sequence[str], *, log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        """Start ``command``.

        Args:
            command: The program's full path, then its arguments.
            log: Output and errors are appended to this file.
            environment: None: ours.
        """
        launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid())]
        with log.open("ab") as output:
            self._child = subprocess.Popen(  # noqa: S603 - a program the caller names
                [*launcher, *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=None if environment is None else dict(environment),
                start_new_session=True,  # Ctrl-C is for us: we end children in order
            )

    @property
    def pid(self) -> int:
        """The program's process id."""
        return self._child.pid

    @property
    def code(self) -> int | None:
        """How it ended; None while it runs."""
        return self._child.poll()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens to a program that has ended."""
        with suppress(ProcessLookupError):
            self._child.send_signal(number)

    def end(self) -> int:
        """Ask it to stop, kill it after 30 s; return how it ended. Repeats are free."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            return self._child.wait(_TERM_SECONDS)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        """Kill it at once; return how it ended."""
        self.signal(signal.SIGKILL)
        return self._child.wait()
