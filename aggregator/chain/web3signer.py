"""Edge: a remote signer that speaks ``eth_signTransaction``; the way to KMS, HSM and Vault.

It is not trusted: what it returns must be the transaction that was asked for, signed by our
account.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import aiohttp

from aggregator.chain import signer
from aggregator.chain.signer import SignerUnavailable
from aligned.chain import transport
from aligned.chain.transport import TransportFailed
from aligned.errors import BadConfiguration
from aligned.model import Address

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

    from aggregator.chain.signer import Transaction
    from aggregator.settings import Web3Signer

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_ANSWER_LIMIT = 1 << 20


class RemoteSigner:
    """Signs over HTTP(S). Certificates and token are read again when their files change.

    Resource handling: an asynchronous context manager; leaving it closes the connections.

    Raises:
        BadConfiguration: A token would be sent in the clear.
    """

    def __init__(self, settings: Web3Signer) -> None:
        self._settings = settings
        self._account = Address(settings.address)
        self._session: aiohttp.ClientSession | None = None
        self._stamp: tuple[int, ...] = ()
        self._opening = asyncio.Lock()
        url = urlsplit(settings.url)
        if settings.token_file and url.scheme == "http" and url.hostname not in _LOOPBACK:
            raise BadConfiguration(("signer.url: a token needs https:// (or this machine)",))
        self._host = url.hostname or "signer"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def account(self) -> Address:
        """Return the configured account: whether the signer has its key shows when it signs."""
        return self._account

    async def sign(self, transaction: Transaction, account: Address) -> bytes:
        if account != self._account:
            msg = f"{self._host} signs for another account"
            raise SignerUnavailable(msg)
        raw = await self._ask(_request(transaction, account))
        signer.check(raw, transaction)
        try:
            by = await asyncio.to_thread(signer.sender, raw)
        except ValueError as broken:
            msg = f"{self._host} returned a broken signature: {broken}"
            raise SignerUnavailable(msg) from broken
        if by != account:
            msg = f"{self._host} signed with the key of 0x{by.hex()}, not with 0x{account.hex()}"
            raise SignerUnavailable(msg)
        return raw

    async def _ask(self, body: bytes) -> bytes:
        try:
            session = await self._open()
            async with asyncio.timeout(self._settings.timeout):
                headers = {"Content-Type": "application/json"} | await self._authorization()
                async with session.post(self._settings.url, data=body, headers=headers) as answer:
                    content = await transport.read(answer, _ANSWER_LIMIT)
                    status = answer.status
        except TimeoutError as late:
            msg = f"{self._host} did not sign within {self._settings.timeout:g} s"
            raise SignerUnavailable(msg) from late
        except TransportFailed as long:
            msg = f"{self._host} answered with no signed transaction: {long}"
            raise SignerUnavailable(msg) from long
        except (aiohttp.ClientError, OSError) as problem:
            msg = f"{self._host} cannot be reached: {type(problem).__name__}: {problem}"
            raise SignerUnavailable(msg) from problem
        return self._result(status, content)

    def _result(self, status: int, content: bytes) -> bytes:
        try:
            answer = json.loads(content)
            if error := answer.get("error"):
                words = error.get("message", error) if isinstance(error, dict) else error
                msg = f"{self._host} refuses to sign: {words}"
                raise SignerUnavailable(msg)
            text = answer["result"]
            text = text["raw"] if isinstance(text, dict) else text  # clef wraps the bytes
            return bytes.fromhex(text.removeprefix("0x"))
        except (ValueError, KeyError, TypeError, AttributeError) as broken:
            msg = f"{self._host} answered with status {status} and no signed transaction"
            raise SignerUnavailable(msg) from broken

    async def _authorization(self) -> dict[str, str]:
        if self._settings.token_file is None:
            return {}
        token = await asyncio.to_thread(self._settings.token_file.read_text, encoding="utf-8")
        return {"Authorization": f"Bearer {token.strip()}"}

    async def _open(self) -> aiohttp.ClientSession:
        async with self._opening:
            stamp = self._look()
            if self._session is not None and stamp == self._stamp:
                return self._session
            context = await asyncio.to_thread(_tls, self._settings)
            if self._session is not None:
                await self._session.close()
            connector = aiohttp.TCPConnector(ssl=context)
            self._session = aiohttp.ClientSession(connector=connector)
            self._stamp = stamp
            return self._session

    def _look(self) -> tuple[int, ...]:
        files: tuple[Path | None, ...] = (
            self._settings.ca_file,
            self._settings.client_certificate_file,
            self._settings.client_key_file,
        )
        return tuple(file.stat().st_mtime_ns for file in files if file is not None)


def _tls(settings: Web3Signer) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=settings.ca_file)
    if settings.client_certificate_file is not None:
        context.load_cert_chain(settings.client_certificate_file, settings.client_key_file)
    return context


def _request(transaction: Transaction, account: Address) -> bytes:
    parameters = {
        "from": "0x" + account.hex(),
        "to": "0x" + transaction.to.hex(),
        "gas": hex(transaction.gas),
        "maxFeePerGas": hex(transaction.max_fee),
        "maxPriorityFeePerGas": hex(transaction.tip),
        "nonce": hex(transaction.nonce),
        "value": hex(transaction.value),
        "data": "0x" + transaction.data.hex(),
        "chainId": hex(transaction.chain_id),
    }
    call = {"jsonrpc": "2.0", "id": 1, "method": "eth_signTransaction", "params": [parameters]}
    return json.dumps(call).encode()
