"""A disk that takes writes and never finishes one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from devnet.network import Network
from tests.integration.daemons import world

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>
static void hang(void) {
    const char *file = getenv("HANG_FILE");
    while (file && access(file, F_OK) == 0) usleep(20000);
}
int fsync(int fd) { hang(); return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd); }
int fdatasync(int fd) { hang(); return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd); }
"""
"""Put before the C library: both calls wait for as long as a file is there."""


class Disk:
    """Of daemons that are started from now on."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def hang(self) -> None:
        self._file.touch()

    def recover(self) -> None:
        self._file.unlink()


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    source, library, file = (tmp_path / name for name in ("hang.c", "hang.so", "hang"))
    source.write_text(SHIM)
    command = [compiler, "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True)
    monkeypatch.setenv("LD_PRELOAD", str(library))
    monkeypatch.setenv("HANG_FILE", str(file))
    return Disk(file)


async def test_told_to_stop_while_the_disk_hangs_it_stops_and_says_so(
    chain: Network, tmp_path: Path, disk: Disk
) -> None:
    async with world(chain, tmp_path) as here:
        await here.start()
        disk.hang()
        assert await here.daemon.terminate() == 0
        (line,) = [each for each in here.lines() if each["level"] == "error"]
        assert "the disk hangs" in line["event"]
        disk.recover()
        await here.start()
        assert await here.daemon.terminate() == 0
