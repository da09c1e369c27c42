from __future__ import annotations

import json
from pathlib import Path

import pytest
from eth_account import Account

from aggregator.chain import signer
from aggregator.chain.keystore import KeystoreSigner
from aggregator.chain.signer import SignerChanged, SignerUnavailable
from tests.fakes.signer import KEY, address_of
from tests.unit.aggregator.test_signer_transactions import TRANSACTION

OTHER = b"\x08" * 32
PASSWORD = "correct horse"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, KEY)
    return tmp_path


def write(folder: Path, key: bytes, password: str = PASSWORD) -> None:
    # two rounds: how hard it is to guess the password is not what is tested
    keystore = Account.encrypt(key, password, kdf="scrypt", iterations=2)
    (folder / "keystore.json").write_text(json.dumps(keystore))
    (folder / "password").write_text(password + "\n")


def opened(folder: Path) -> KeystoreSigner:
    return KeystoreSigner(folder / "keystore.json", folder / "password")


async def test_it_signs_with_the_key_in_the_file(folder: Path) -> None:
    keystore = opened(folder)
    account = await keystore.account()
    raw = await keystore.sign(TRANSACTION, account)
    assert account == address_of(KEY)
    assert signer.decode(raw) == TRANSACTION
    assert signer.sender(raw) == account


async def test_no_password_file_is_the_empty_password(folder: Path) -> None:
    write(folder, KEY, password="")
    keystore = KeystoreSigner(folder / "keystore.json", None)
    assert await keystore.account() == address_of(KEY)


async def test_a_changed_file_is_read_again(folder: Path) -> None:
    keystore = opened(folder)
    before = await keystore.account()
    write(folder, OTHER)
    assert await keystore.account() == address_of(OTHER)
    with pytest.raises(SignerChanged, match="the key of 0x"):
        await keystore.sign(TRANSACTION, before)


async def test_a_changed_file_that_cannot_be_used_leaves_the_former_key(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keystore = opened(folder)
    account = await keystore.account()
    (folder / "keystore.json").write_text("half a fi")
    assert signer.sender(await keystore.sign(TRANSACTION, account)) == account
    assert "former key" in caplog.text


async def test_files_away_for_a_moment_leave_the_former_key(folder: Path) -> None:
    keystore = opened(folder)
    account = await keystore.account()
    (folder / "keystore.json").unlink()
    assert await keystore.account() == account


def spoil(folder: Path, name: str, text: str | None) -> None:
    path = folder / name
    if text is None:
        path.unlink()
    else:
        path.write_text(text)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        pytest.param("keystore.json", None, "cannot read the keystore", id="no-keystore"),
        pytest.param("password", None, "cannot read the password file", id="no-password"),
        pytest.param("password", "wrong", "the password is wrong", id="wrong-password"),
        pytest.param("keystore.json", "0xdeadbeef", "not JSON", id="a-plain-key"),
        pytest.param("keystore.json", "[]", "not a keystore V3", id="another-document"),
        pytest.param("keystore.json", '{"version": 1}', "not a keystore V3", id="version-1"),
        pytest.param(
            "keystore.json", '{"version": 3, "crypto": {}}', "not a complete", id="incomplete"
        ),
        pytest.param("keystore.json", '{"version": 3}', "not a complete", id="empty"),
    ],
)
async def test_what_cannot_be_used_says_why(
    folder: Path, name: str, text: str | None, words: str
) -> None:
    spoil(folder, name, text)
    with pytest.raises(SignerUnavailable, match=words) as unusable:
        await opened(folder).account()
    assert PASSWORD not in str(unusable.value)


async def test_a_key_is_shown_nowhere(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    keystore = opened(folder)
    await keystore.account()
    shown = caplog.text + repr(vars(keystore)) + str([vars(record) for record in caplog.records])
    assert KEY.hex() not in shown
    assert PASSWORD not in shown
