"""Worker processes that answer questions, one at a time each, and never outlive their owner."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import signal
import threading
from typing import TYPE_CHECKING, NamedTuple

from aligned.errors import Unavailable

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess


class _Worker(NamedTuple):
    process: BaseProcess
    connection: Connection


class Workers:
    """A pool of processes with the functions of one module. Thread-safe.

    Resource handling:
        Processes are spawned when a question finds none idle. ``close`` ends them at once. When
        the owner dies without it, their pipe breaks and they end too, after the question at hand.
    """

    def __init__(self, module: str, *, limit: int) -> None:
        self._module = module
        self._context = multiprocessing.get_context("spawn")
        self._free = threading.BoundedSemaphore(limit)
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._all: set[_Worker] = set()
        self._closed = False

    def ask(self, function: str, *arguments: object, patience: float) -> object:
        """Return what ``function`` of the module answers; blocks until then.

        A worker that dies over it is replaced once.

        Args:
            function: Its name.
            arguments: Anything that pickles.
            patience: Seconds for a worker to answer.

        Raises:
            Unavailable: Two workers died over it or were too slow, or ``close`` was called.
        """
        with self._free:
            for _ in range(2):
                worker = self._take()
                try:
                    worker.connection.send((function, arguments))
                    if worker.connection.poll(patience):
                        answer: object = worker.connection.recv()
                        self._put_back(worker)
                        return answer
                except (EOFError, OSError):
                    pass
                self._end(worker)
        msg = f"the worker processes of {self._module} gave no answer to {function}"
        raise Unavailable(msg)

    def close(self) -> None:
        """End all workers, busy ones too; questions that wait fail."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            busy = self._all.difference(idle)
        for worker in busy:
            worker.process.kill()  # whoever waits for it sees that and clears up
        for worker in idle:
            self._end(worker)

    def _take(self) -> _Worker:
        with self._lock:
            if self._closed:
                msg = f"the worker processes of {self._module} were closed"
                raise Unavailable(msg)
            if self._idle:
                return self._idle.pop()
            ours, theirs = self._context.Pipe()
            process = self._context.Process(
                target=_serve, args=(self._module, theirs), name=self._module, daemon=True
            )
            process.start()
            theirs.close()  # or the end of the worker would go unnoticed here
            worker = _Worker(process, ours)
            self._all.add(worker)
            return worker

    def _put_back(self, worker: _Worker) -> None:
        with self._lock:
            self._idle.append(worker)

    def _end(self, worker: _Worker) -> None:
        with self._lock:
            self._all.discard(worker)
        worker.process.kill()
        worker.process.join()
        worker.connection.close()


def _serve(module: str, connection: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the owner, who ends us
    functions = importlib.import_module(module)
    with contextlib.suppress(EOFError, OSError):  # the owner is gone
        while True:
            function, arguments = connection.recv()
            connection.send(getattr(functions, function)(*arguments))
