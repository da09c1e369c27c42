"""The chain: one anvil process and the switches on it."""

from __future__ import annotations

import asyncio
import http
import http.client
import platform
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from devnet.node import install
from devnet.process import Process
from devnet.rpc import Node

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

CHAIN_ID = 31337
_START_SECONDS = 60.0
_LISTENING = re.compile(rb"Listening on [0-9.]+:(\d+)")
_MACHINES = {"x86_64": "amd64", "amd64": "amd64", "arm64": "arm64", "aarch64": "arm64"}
_POLL_SECONDS = 0.01
_BLOCK_GAS = 1_000_000_000
"""Of a block, so that hundreds of operators register in one."""


class ChainFailed(Exception):
    """Anvil did not start; has its last words."""


def find() -> Path | None:
    """Return the anvil program: from the locked npm packages, else from PATH; None: neither."""
    machine = _MACHINES.get(platform.machine().lower(), platform.machine())
    package = f"anvil-{sys.platform}-{machine}"
    program = install.FOLDER / "node_modules" / "@foundry-rs" / package / "bin" / "anvil"
    if program.is_file():
        return program
    return Path(found) if (found := shutil.which("anvil")) else None


class Anvil:
    """A chain of our own.

    The process is started and stopped by plain calls, so that one chain can serve several event
    loops; the switches are coroutines, and work on a chain that another process started as well.
    Its accounts 0 to 9 have 10,000 ether and are unlocked.

    Resource handling: a context manager of either kind, or ``start`` and ``close``. Start it from a
    thread that lives on (see ``devnet.process``).
    """

    def __init__(
        self,
        *,
        port: int = 0,
        block_seconds: float | None = None,
        epoch_slots: int = 32,
        host: str = "127.0.0.1",
    ) -> None:
        """Describe a chain.

        Args:
            port: 0: a free one, chosen at the first start.
            block_seconds: Time between blocks; None: a block at once for each transaction.
            epoch_slots: ``finalized`` is two epochs behind the head, ``safe`` one.
            host: IPv4 address of this machine; another one than loopback's lets others in.
        """
        self._host = host
        self._block_seconds = block_seconds
        self._epoch_slots = epoch_slots
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._process: Process | None = None
        self._base_fees: dict[str, int] = {}
        self.port = port
        """Kept over restarts."""

    @property
    def url(self) -> str:
        """HTTP and WebSocket address, as http URL."""
        return f"http://{self._host}:{self.port}"

    @property
    def node(self) -> Node:
        """Calls to the chain itself, past any fault proxy."""
        return Node(self.url)

    @property
    def pid(self) -> int:
        """The process id.

        Raises:
            ChainFailed: It does not run.
        """
        return self._running().pid

    @property
    def folder(self) -> Path:
        """What the chain keeps on disk while it is open.

        Raises:
            ChainFailed: It was not started.
        """
        if self._folder is None:
            raise ChainFailed("anvil was not started")
        return Path(self._folder.name)

    # ---- the process

    def start(self) -> None:
        """Start the chain, with the blocks and states it had at the last ``stop``.

        Returns when it answers.

        Raises:
            ChainFailed: There is no anvil, or it does not start.
        """
        pause = threading.Event()
        for _ in self._starting():
            pause.wait(_POLL_SECONDS)

    def stop(self) -> None:
        """End the process and keep the chain for ``start``; what waited in the pool is gone."""
        if self._process is not None:
            self._process.end()
        self._process = None

    def close(self) -> None:
        """End the process and forget the chain. Repeats are free."""
        if self._process is not None:
            self._process.kill()
        self._process = None
        if self._folder is not None:
            self._folder.cleanup()
        self._folder = None

    def freeze(self) -> None:
        """Stop answering without closing a connection, until ``thaw``."""
        self._running().signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Go on after ``freeze``."""
        self._running().signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        for _ in self._starting():
            await asyncio.sleep(_POLL_SECONDS)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _running(self) -> Process:
        if self._process is None:
            raise ChainFailed("anvil is not running")
        return self._process

    def _starting(self) -> Iterator[None]:
        """Start the process; yield while it does not answer yet.

        Raises:
            ChainFailed: See ``start``.
        """
        program = find()
        if program is None:
            raise ChainFailed("anvil is not installed; run: python -m devnet.node.install")
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="devnet-anvil-")
        folder = Path(self._folder.name)
        log = folder / "log"
        log.write_bytes(b"")
        process = Process([str(program), *self._arguments(folder)], log=log)
        self._process = process
        deadline = time.monotonic() + _START_SECONDS
        try:
            while not self._answers(log):
                _check(process, log, deadline)
                yield
        except BaseException:
            self.close()
            raise

    def _arguments(self, folder: Path) -> list[str]:
        arguments = ["--host", self._host, "--port", str(self.port), "--no-request-size-limit"]
        arguments += ["--chain-id", str(CHAIN_ID), "--gas-limit", str(_BLOCK_GAS)]
        arguments += ["--slots-in-an-epoch", str(self._epoch_slots)]
        arguments += ["--state", str(folder / "state"), "--preserve-historical-states"]
        # without it the states of old blocks go to the home folder, a megabyte a block, and stay
        arguments += ["--cache-path", str(folder / "cache")]
        if self._block_seconds is not None:
            arguments += ["--block-time", str(self._block_seconds)]
        return arguments

    def _answers(self, log: Path) -> bool:
        """Whether it serves. It chooses a free port itself and says which: no race for it."""
        found = _LISTENING.search(log.read_bytes())
        if found is None:
            return False
        self.port = int(found[1])
        connection = http.client.HTTPConnection(self._host, self.port, timeout=1.0)
        body = '{"jsonrpc":"2.0","id":0,"method":"eth_chainId","params":[]}'
        try:
            connection.request("POST", "/", body, {"Content-Type": "application/json"})
            return connection.getresponse().status == http.HTTPStatus.OK
        except OSError:
            return False
        finally:
            connection.close()

    # ---- switches

    async def head(self) -> int:
        """Return the newest block's number."""
        return int(await self.node.call("eth_blockNumber"), 16)

    async def mine(self, blocks: int = 1) -> None:
        """Mine ``blocks`` blocks now; the first takes what waits."""
        await self.node.call("anvil_mine", hex(blocks))

    async def automine(self, *, on: bool) -> None:
        """Mine a block at once for every transaction, or only when told."""
        await self.node.call("evm_setAutomine", on)

    async def interval(self, seconds: int) -> None:
        """Mine a block every ``seconds``; 0: no more."""
        await self.node.call("evm_setIntervalMining", seconds)

    async def reorg(self, depth: int, transactions: Sequence[tuple[str, int]] = ()) -> None:
        """Replace the newest ``depth`` blocks by as many others.

        Args:
            depth: Blocks.
            transactions: (raw transaction as hex, which of the new blocks counted from 0). Those of
                the old blocks are gone, not in the pool.
        """
        await self.node.call("anvil_reorg", depth, [list(item) for item in transactions])

    async def snapshot(self) -> str:
        """Remember the state of now; ``revert`` takes the returned id, once."""
        snapshot = str(await self.node.call("evm_snapshot"))
        self._base_fees[snapshot] = await self.base_fee()
        return snapshot

    async def revert(self, snapshot: str) -> None:
        """Return to ``snapshot``, and mine at once again if that was changed since.

        The base fee returns too: anvil itself would go on with that of the blocks that are gone.

        Raises:
            ChainFailed: There is no such snapshot: it was used, or an earlier one was.
        """
        calls: list[tuple[str, list[Any]]] = [
            ("anvil_dropAllTransactions", []),
            ("evm_revert", [snapshot]),
            ("evm_setIntervalMining", [0]),
            ("evm_setAutomine", [True]),
        ]
        results = [await self.node.call(method, *params) for method, params in calls]
        if results[1] is not True:
            raise ChainFailed(f"no snapshot {snapshot}")
        if (base_fee := self._base_fees.pop(snapshot, None)) is not None:
            await self.set_base_fee(base_fee)

    async def drop(self, transaction_hash: str) -> None:
        """Forget a transaction that waits."""
        await self.node.call("anvil_dropTransaction", transaction_hash)

    async def set_balance(self, address: str, wei: int) -> None:
        """Give an account exactly this balance."""
        await self.node.call("anvil_setBalance", address, hex(wei))

    async def base_fee(self) -> int:
        """Return the base fee of the next block, in wei."""
        whole = False
        block = await self.node.call("eth_getBlockByNumber", "pending", whole)
        return int(block["baseFeePerGas"], 16)

    async def set_base_fee(self, wei: int) -> None:
        """Set the base fee of the next block; later ones follow from it as usual."""
        await self.node.call("anvil_setNextBlockBaseFeePerGas", hex(wei))

    async def pool(self) -> list[dict[str, Any]]:
        """Return the transactions that wait, by sender and nonce."""
        content = await self.node.call("txpool_content")
        return [
            transaction
            for group in ("pending", "queued")
            for _, by_nonce in sorted(content[group].items())
            for _, transaction in sorted(by_nonce.items(), key=lambda item: int(item[0]))
        ]


def _check(process: Process, log: Path, deadline: float) -> None:
    if process.code is not None or time.monotonic() > deadline:
        words = log.read_text(errors="replace").strip()[-1000:]
        raise ChainFailed(f"anvil did not start: {words or 'it said nothing'}")
