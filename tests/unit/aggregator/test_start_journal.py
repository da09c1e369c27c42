from __future__ import annotations

import os
import sqlite3
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from aggregator import start
from aggregator.journal.journal import Journal
from aligned.chain.deployment import Contracts
from aligned.errors import DiskRefused, StateDamaged
from aligned.model import Address, BlockHash, Identity
from tests.fakes.builders import entry

if TYPE_CHECKING:
    from aggregator.settings import Settings
    from aligned.chain.rpc import Rpc

IDENTITY = Identity(
    chain_id=1,
    genesis_hash=BlockHash(b"g" * 32),
    service_manager=Address(b"s" * 20),
    deployment_hash=BlockHash(b"d" * 32),
)
CONTRACTS = Contracts(
    service_manager=IDENTITY.service_manager,
    registry_coordinator=Address(b"r" * 20),
    operator_state_retriever=Address(b"o" * 20),
    bls_apk_registry=Address(b"b" * 20),
    stake_registry=Address(b"t" * 20),
)
KEPT = [entry(1, 1), entry(1, 2)]


class Refusing(sqlite3.Connection):
    """Fails at the statements that begin so, as SQLite does on a disk that takes no write."""

    at = ""
    name = ""

    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
        if sql.startswith(self.at):
            error = sqlite3.OperationalError("the fake disk was told to refuse")
            error.sqlite_errorname = self.name
            raise error
        return super().execute(sql, *args)


@pytest.fixture
async def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A good journal of a deployment that the chain confirms."""

    async def resolved(*_: object, **__: object) -> Contracts:
        return CONTRACTS

    async def identified(*_: object) -> Identity:
        return IDENTITY

    monkeypatch.setattr(start, "resolve", resolved)
    monkeypatch.setattr(start, "identify", identified)
    journal = Journal.open(tmp_path / "journal.db", IDENTITY)
    await journal.append(KEPT, height=7)
    journal.close()
    return journal.path


def settings(path: Path, *, shared: bool) -> Settings:
    contracts = CONTRACTS
    fields = SimpleNamespace(
        journal=SimpleNamespace(path=path),
        redis=object() if shared else None,
        network=SimpleNamespace(contracts=contracts, chain_id=IDENTITY.chain_id),
        chain=SimpleNamespace(deployment_block=0),
    )
    return cast("Settings", fields)


async def recovered(path: Path, *, shared: bool) -> list[object]:
    state = await start.recover(settings(path, shared=shared), cast("Rpc", None))
    state.journal.close()
    return [each for some in state.loaded.entries.values() for each in some]


@pytest.mark.parametrize("shared", [True, False], ids=["with redis", "alone"])
@pytest.mark.parametrize(
    ("at", "name"),
    [
        pytest.param("PRAGMA journal_mode", "SQLITE_IOERR_SHMSIZE", id="at opening it"),
        pytest.param("SELECT value, checksum FROM meta", "SQLITE_FULL", id="at reading it"),
        pytest.param("BEGIN", "SQLITE_FULL", id="at the first write"),
    ],
)
async def test_a_full_disk_is_told_and_the_journal_is_whole_once_there_is_room(
    path: Path, monkeypatch: pytest.MonkeyPatch, at: str, name: str, *, shared: bool
) -> None:
    monkeypatch.setattr(Refusing, "at", at)
    monkeypatch.setattr(Refusing, "name", name)
    for _ in range(2):
        with monkeypatch.context() as full:
            full.setattr(Journal, "open", partial(Journal.open, connection_class=Refusing))
            with pytest.raises(DiskRefused, match=rf"{name}.* then start again"):
                await recovered(path, shared=shared)
    assert not list(path.parent.glob("*damaged*"))
    assert await recovered(path, shared=shared) == KEPT


async def test_a_damaged_journal_is_set_aside_only_where_others_have_its_content(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    os.truncate(path, 5000)
    with pytest.raises(StateDamaged):
        await recovered(path, shared=False)
    assert await recovered(path, shared=True) == []
    assert path.with_name("journal.db.damaged-1").stat().st_size == 5000
    assert "was set aside" in caplog.text
