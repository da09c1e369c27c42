from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from aggregator.chain.signer import SignerUnavailable, Transaction
from aggregator.chain.web3signer import RemoteSigner
from aggregator.settings import Web3Signer
from aligned.errors import BadConfiguration
from aligned.model import Address, Wei
from tests.fakes.signer import KEY, address_of, sign
from tests.unit.aggregator.test_signer_transactions import TRANSACTION

ACCOUNT = address_of(KEY)


def parsed(request: dict[str, str]) -> Transaction:
    def number(name: str) -> int:
        return int(request[name], 16)

    return Transaction(
        chain_id=number("chainId"),
        nonce=number("nonce"),
        to=Address(bytes.fromhex(request["to"][2:])),
        value=Wei(number("value")),
        data=bytes.fromhex(request["data"][2:]),
        gas=number("gas"),
        max_fee=Wei(number("maxFeePerGas")),
        tip=Wei(number("maxPriorityFeePerGas")),
    )


class Remote:
    """Signs what it is asked to, unless told otherwise."""

    def __init__(self) -> None:
        self.key = KEY
        self.change: dict[str, Any] = {}
        self.answer: Any = None
        self.hang = False
        self.padding = 0
        """Bytes of white space before the answer, which then comes in many pieces."""
        self.asked: list[dict[str, Any]] = []
        self.tokens: list[str | None] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        call = await request.json()
        self.asked.append(call)
        self.tokens.append(request.headers.get("Authorization"))
        if self.hang:
            await asyncio.Event().wait()
        if self.answer is not None:
            return web.json_response(self.answer)
        transaction = dataclasses.replace(parsed(call["params"][0]), **self.change)
        raw = "0x" + sign(self.key, transaction).hex()
        answer = {"jsonrpc": "2.0", "id": call["id"], "result": raw}
        if self.padding:
            return await self._in_pieces(request, b" " * self.padding + json.dumps(answer).encode())
        return web.json_response(answer)

    async def _in_pieces(self, request: web.Request, body: bytes) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        with suppress(ConnectionError):  # the client need not read all of it
            for start in range(0, len(body), 1400):
                await response.write(body[start : start + 1400])
        return response


@asynccontextmanager
async def served(remote: Remote) -> AsyncIterator[str]:
    application = web.Application()
    application.router.add_post("/", remote.handle)
    runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.01)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def settings(url: str, **more: Any) -> Web3Signer:
    return Web3Signer(type="web3signer", url=url, address="0x" + ACCOUNT.hex(), **more)


async def signed_by(remote: Remote, **more: Any) -> bytes:
    async with served(remote) as url, RemoteSigner(settings(url, **more)) as signer:
        return await signer.sign(TRANSACTION, await signer.account())


async def test_it_returns_what_the_remote_signed() -> None:
    remote = Remote()
    assert await signed_by(remote) == sign(KEY, TRANSACTION)
    assert remote.asked[0]["method"] == "eth_signTransaction"
    assert remote.asked[0]["params"][0]["from"] == "0x" + ACCOUNT.hex()


async def test_an_answer_in_many_pieces_is_read_to_its_end() -> None:
    remote = Remote()
    remote.padding = 900_000  # more than one read of a socket brings
    assert await signed_by(remote) == sign(KEY, TRANSACTION)


async def test_an_endless_answer_is_cut() -> None:
    remote = Remote()
    remote.padding = 1 << 20
    with pytest.raises(SignerUnavailable, match=r"no signed transaction: .* longer than 1048576"):
        await signed_by(remote)


async def test_the_token_is_sent_and_read_again(tmp_path: Path) -> None:
    token = tmp_path / "token"
    remote = Remote()
    for text in ("first", "second"):
        token.write_text(text + "\n")
        await signed_by(remote, token_file=token)
    assert remote.tokens == ["Bearer first", "Bearer second"]


@pytest.mark.parametrize("name", ["nonce", "gas", "chain_id"])
async def test_a_changed_transaction_is_refused(name: str) -> None:
    remote = Remote()
    remote.change = {name: 99}
    with pytest.raises(SignerUnavailable, match=name):
        await signed_by(remote)


async def test_another_accounts_signature_is_refused() -> None:
    remote = Remote()
    remote.key = b"\x09" * 32
    with pytest.raises(SignerUnavailable, match=address_of(remote.key).hex()):
        await signed_by(remote)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        pytest.param({"error": {"code": -32000, "message": "no key"}}, "no key", id="refused"),
        pytest.param({"result": None}, "no signed transaction", id="null"),
        pytest.param({"result": "0xzz"}, "no signed transaction", id="not-hex"),
        pytest.param({"result": "0x1234"}, "something else", id="no-transaction"),
        pytest.param([], "no signed transaction", id="another-document"),
        pytest.param({"error": "plain words"}, "plain words", id="an-error-in-words"),
    ],
)
async def test_what_is_no_signature_says_so(answer: object, words: str) -> None:
    remote = Remote()
    remote.answer = answer
    with pytest.raises(SignerUnavailable, match=words):
        await signed_by(remote)


async def test_clefs_wrapping_is_understood() -> None:
    remote = Remote()
    remote.answer = {"result": {"raw": "0x" + sign(KEY, TRANSACTION).hex(), "tx": {}}}
    assert await signed_by(remote) == sign(KEY, TRANSACTION)


async def test_a_remote_that_hangs_is_given_up() -> None:
    remote = Remote()
    remote.hang = True
    with pytest.raises(SignerUnavailable, match="did not sign within"):
        await signed_by(remote, timeout=0.05)


async def test_a_remote_that_is_not_there_is_named() -> None:
    async with served(Remote()) as url:
        pass
    async with RemoteSigner(settings(url)) as signer:
        with pytest.raises(SignerUnavailable, match=r"127\.0\.0\.1 cannot be reached"):
            await signer.sign(TRANSACTION, ACCOUNT)


async def test_a_missing_certificate_file_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "ca.pem"
    async with RemoteSigner(settings("https://127.0.0.1:1", ca_file=missing)) as signer:
        with pytest.raises(SignerUnavailable, match=r"ca\.pem"):
            await signer.sign(TRANSACTION, ACCOUNT)


def test_a_token_is_not_sent_in_the_clear(tmp_path: Path) -> None:
    with pytest.raises(BadConfiguration, match="https"):
        RemoteSigner(settings("http://signer.example:9000", token_file=tmp_path / "token"))
