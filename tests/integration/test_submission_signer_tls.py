from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from aggregator.chain.signer import SignerUnavailable
from aggregator.chain.web3signer import RemoteSigner
from aggregator.settings import Web3Signer
from tests.fakes.signer import KEY, address_of, sign
from tests.unit.aggregator.test_signer_transactions import TRANSACTION

OPENSSL = shutil.which("openssl")
pytestmark = pytest.mark.skipif(OPENSSL is None, reason="openssl is not on this machine")


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """Make a self-signed certificate for this machine, and its key."""
    made, key = folder / f"{name}.pem", folder / f"{name}.key"
    what = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
    whose = ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"]
    where = ["-keyout", str(key), "-out", str(made)]
    command = [str(OPENSSL), *what.split(), *whose, *where]
    subprocess.run(command, check=True, capture_output=True)
    return made, key


@pytest.fixture
async def url(tmp_path: Path) -> AsyncIterator[str]:
    """A signer that asks its clients for a certificate."""
    server, client = certificate(tmp_path, "server"), certificate(tmp_path, "client")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=client[0])
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(*server)

    async def handle(request: web.Request) -> web.Response:
        del request
        return web.json_response({"result": "0x" + sign(KEY, TRANSACTION).hex()})

    application = web.Application()
    application.router.add_post("/", handle)
    runner = web.AppRunner(application, shutdown_timeout=0.01)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    yield f"https://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


def settings(url: str, **more: Any) -> Web3Signer:
    return Web3Signer(type="web3signer", url=url, address="0x" + address_of(KEY).hex(), **more)


async def test_both_sides_show_their_certificates(url: str, tmp_path: Path) -> None:
    own = settings(
        url,
        ca_file=tmp_path / "server.pem",
        client_certificate_file=tmp_path / "client.pem",
        client_key_file=tmp_path / "client.key",
    )
    async with RemoteSigner(own) as signer:
        assert await signer.sign(TRANSACTION, address_of(KEY)) == sign(KEY, TRANSACTION)


@pytest.mark.parametrize("known", [True, False], ids=["we-have-none", "we-do-not-trust-theirs"])
async def test_without_either_nothing_is_signed(url: str, tmp_path: Path, known: bool) -> None:
    more = {"ca_file": tmp_path / "server.pem"} if known else {}
    async with RemoteSigner(settings(url, **more)) as signer:
        with pytest.raises(SignerUnavailable, match=r"127\.0\.0\.1 cannot be reached"):
            await signer.sign(TRANSACTION, address_of(KEY))


async def test_a_renewed_certificate_is_taken_up(url: str, tmp_path: Path) -> None:
    copies = {name: tmp_path / f"copy-{name}" for name in ("client.pem", "client.key")}
    stranger = certificate(tmp_path, "stranger")
    for source, copy in zip(stranger, copies.values(), strict=True):
        shutil.copy(source, copy)
    own = settings(
        url,
        ca_file=tmp_path / "server.pem",
        client_certificate_file=copies["client.pem"],
        client_key_file=copies["client.key"],
    )
    async with RemoteSigner(own) as signer:
        with pytest.raises(SignerUnavailable):
            await signer.sign(TRANSACTION, address_of(KEY))
        for name, copy in copies.items():
            shutil.copy(tmp_path / name, copy)
        assert await signer.sign(TRANSACTION, address_of(KEY)) == sign(KEY, TRANSACTION)
