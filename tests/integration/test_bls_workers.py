from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aligned.bls.workers import Workers
from aligned.errors import Unavailable

OWNER = """
import sys
from aligned.bls.workers import Workers

if __name__ == "__main__":
    workers = Workers("os", limit=1)
    print(workers.ask("getpid", patience=60), flush=True)
    sys.stdin.read()
"""


def is_alive(pid: int) -> bool:
    try:
        return not Path(f"/proc/{pid}/stat").read_text().split(") ")[1].startswith("Z")
    except FileNotFoundError:
        return False


def wait_for_the_end(pid: int) -> bool:
    deadline = time.monotonic() + 60
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)  # noqa: TID251 - another process ends, which tells nobody
    return not is_alive(pid)


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")


@needs_proc
def test_close_leaves_no_process_behind() -> None:
    workers = Workers("os", limit=1)
    pid = workers.ask("getpid", patience=60)
    assert isinstance(pid, int)
    assert is_alive(pid)
    workers.close()
    assert not is_alive(pid)
    with pytest.raises(Unavailable, match="closed"):
        workers.ask("getpid", patience=60)


def test_a_worker_is_kept_for_the_next_question() -> None:
    workers = Workers("os", limit=2)
    assert workers.ask("getpid", patience=60) == workers.ask("getpid", patience=60)
    assert workers.ask("getppid", patience=60) == os.getpid()
    workers.close()


def test_a_worker_that_was_killed_is_replaced() -> None:
    workers = Workers("os", limit=1)
    first = workers.ask("getpid", patience=60)
    assert isinstance(first, int)
    os.kill(first, signal.SIGKILL)
    assert workers.ask("getpid", patience=60) != first
    workers.close()


def test_a_question_that_kills_every_worker_is_given_up() -> None:
    workers = Workers("os", limit=1)
    with pytest.raises(Unavailable, match="no answer to _exit"):
        workers.ask("_exit", 1, patience=60)
    assert workers.ask("getppid", patience=60) == os.getpid()
    workers.close()


def test_a_worker_that_takes_too_long_is_given_up() -> None:
    workers = Workers("time", limit=1)
    with pytest.raises(Unavailable, match="no answer to sleep"):
        workers.ask("sleep", 3600, patience=0.01)
    workers.close()


@needs_proc
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_an_owner_that_dies(how: signal.Signals, tmp_path: Path) -> None:
    script = tmp_path / "owner.py"
    script.write_text(OWNER)
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(root)},  # noqa: TID251 - of the test's own process
    ) as owner:
        assert owner.stdout is not None
        worker = int(owner.stdout.readline())
        assert is_alive(worker)
        owner.send_signal(how)
        owner.wait()
    assert wait_for_the_end(worker)
