"""Edge: the key in an Ethereum keystore V3 file.

Decrypting takes 256 MB and a second, so a child process does it and hands the key back through a
pipe; key and password are in nobody's arguments or environment.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eth_account import Account

from aggregator.chain import signer
from aggregator.chain.signer import SignerChanged, SignerUnavailable
from aligned.model import Address

if TYPE_CHECKING:
    from pathlib import Path

    from eth_account.signers.local import LocalAccount
    from eth_account.types import TransactionDictType

    from aggregator.chain.signer import Transaction

logger = logging.getLogger(__name__)

DECRYPT_SECONDS = 60.0
"""A slow machine takes ten; more is a hang."""

_KILLED = -9


@dataclass(frozen=True, slots=True)
class _Stamp:
    """Tells one content of the files from another without reading them."""

    parts: tuple[tuple[int, int, int], ...]


class KeystoreSigner:
    """Signs with the key of a keystore file, which it reads again when it changes.

    A new file that cannot be used is reported and the former key kept.

    Args:
        file: The keystore, JSON.
        password_file: Its password, one line; None: the empty password.
    """

    def __init__(self, file: Path, password_file: Path | None) -> None:
        self._file = file
        self._password_file = password_file
        self._stamp: _Stamp | None = None
        self._key: LocalAccount | None = None
        self._reading = asyncio.Lock()

    async def account(self) -> Address:
        return _address(await self._current())

    async def sign(self, transaction: Transaction, account: Address) -> bytes:
        key = await self._current()
        if _address(key) != account:
            msg = f"the keystore holds the key of {key.address} now"
            raise SignerChanged(msg)
        fields = _fields(transaction)
        signed = await asyncio.to_thread(key.sign_transaction, fields)  # some 10 ms of computing
        raw = bytes(signed.raw_transaction)
        signer.check(raw, transaction)
        return raw

    async def _current(self) -> LocalAccount:
        async with self._reading:
            stamp = self._look()
            if self._key is not None and stamp in {self._stamp, None}:
                return self._key
            try:
                key = await self._read()
            except SignerUnavailable as unusable:
                if self._key is None:
                    raise
                logger.error(  # noqa: TRY400  # the message says all; a trace adds nothing
                    "the changed keystore cannot be used: the former key stays in use until "
                    "restart. Correct the files",
                    extra={"reason": str(unusable)},
                )
                key = self._key
            self._key, self._stamp = key, stamp
            return key

    def _look(self) -> _Stamp | None:
        """Return None when a file is away: an atomic replacement is under way, or it is missing."""
        parts = []
        for path in (self._file, self._password_file):
            if path is None:
                continue
            try:
                stat = path.stat()
            except OSError:
                return None
            parts.append((stat.st_mtime_ns, stat.st_size, stat.st_ino))
        return _Stamp(tuple(parts))

    async def _read(self) -> LocalAccount:
        keystore = await asyncio.to_thread(_text, self._file, "keystore")
        password = ""
        if self._password_file is not None:
            text = await asyncio.to_thread(_text, self._password_file, "password file")
            password = text.removesuffix("\n").removesuffix("\r")
        key: LocalAccount = Account.from_key(await _decrypt(keystore, password, self._file))
        logger.info("keystore opened", extra={"account": key.address})
        return key


def _address(key: LocalAccount) -> Address:
    return Address(bytes.fromhex(key.address[2:]))


def _text(path: Path, what: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        msg = f"cannot read the {what} {path}: {problem}"
        raise SignerUnavailable(msg) from problem


def _fields(transaction: Transaction) -> TransactionDictType:
    return {
        "type": 2,
        "chainId": transaction.chain_id,
        "nonce": transaction.nonce,
        "to": transaction.to,
        "value": transaction.value,
        "data": transaction.data,
        "gas": transaction.gas,
        "maxFeePerGas": transaction.max_fee,
        "maxPriorityFeePerGas": transaction.tip,
    }


async def _decrypt(keystore: str, password: str, path: Path) -> bytes:
    """Return the 32-byte key. The child is gone when this returns, however it returns.

    Raises:
        SignerUnavailable: It cannot be decrypted; says why.
    """
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "aggregator.chain.decrypt",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    request = json.dumps({"keystore": keystore, "password": password}).encode()
    try:
        async with asyncio.timeout(DECRYPT_SECONDS):
            output, _ = await child.communicate(request)
    except TimeoutError as late:
        msg = f"decrypting {path} took longer than {DECRYPT_SECONDS:.0f} s"
        raise SignerUnavailable(msg) from late
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    return _answer(output, child.returncode, path)


def _answer(output: bytes, status: int | None, path: Path) -> bytes:
    if status == _KILLED:
        msg = f"decrypting {path} was killed: it needs 256 MB of memory for a second"
        raise SignerUnavailable(msg)
    try:
        answer = json.loads(output)
    except ValueError as broken:
        msg = f"decrypting {path} ended with status {status} and no answer"
        raise SignerUnavailable(msg) from broken
    if "error" in answer:
        msg = f"keystore {path}: {answer['error']}"
        raise SignerUnavailable(msg)
    return bytes.fromhex(answer["key"])
