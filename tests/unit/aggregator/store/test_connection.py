from __future__ import annotations

from pathlib import Path

import pytest

from aggregator.store.connection import Access, Address, Files, Server, Tls, connect, parse_url
from aggregator.store.discovery import newest
from aggregator.store.primary import lineage_of
from aligned.errors import StoreUnavailable

OLD, NEW = Address("10.0.0.1", 6379), Address("10.0.0.2", 6379)
PASSWORD = Path("/run/secrets/password")


@pytest.mark.parametrize(
    ("url", "server"),
    [
        pytest.param("redis://r", Server(address=Address("r", 6379)), id="host"),
        pytest.param("redis://r:1/", Server(address=Address("r", 1)), id="port"),
        pytest.param("redis://r/3", Server(address=Address("r", 6379), database=3), id="database"),
        pytest.param("redis://[::1]:9", Server(address=Address("::1", 9)), id="IPv6"),
        pytest.param(
            "redis://a%40b@r",
            Server(address=Address("r", 6379), access=Access(username="a@b")),
            id="user",
        ),
        pytest.param(
            "rediss://r", Server(address=Address("r", 6379), access=Access(tls=Tls())), id="TLS"
        ),
    ],
)
def test_a_url_names_a_server(url: str, server: Server) -> None:
    assert parse_url(url, Access()) == server


def test_what_is_in_files_is_added_to_a_url() -> None:
    access = Access(username="someone", password_file=PASSWORD, tls=Tls(ca_file=Path("ca")))
    server = parse_url("rediss://r", access)
    assert server.access == access


@pytest.mark.parametrize(
    "url", ["http://r", "redis://", "redis://user:secret@r", "redis://r/x", "redis://:secret@r"]
)
def test_a_url_that_is_none_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ValueError, match=r"must|may") as refused:
        parse_url(url, Access())
    assert "secret" not in str(refused.value)


async def test_the_password_is_read_again_at_each_connection(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("first\n")
    files = Files(Access(username="agg", password_file=file))
    assert await files.get_credentials_async() == ("agg", "first")
    file.write_text("second\n")
    assert await files.get_credentials_async() == ("agg", "second")


def test_a_password_without_user_is_the_default_users(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("word")
    assert Files(Access(password_file=file)).get_credentials() == ("word",)


async def test_a_missing_password_file_says_so(tmp_path: Path) -> None:
    files = Files(Access(password_file=tmp_path / "absent"))
    with pytest.raises(StoreUnavailable, match="absent"):
        await files.get_credentials_async()


async def test_nobody_listening_is_unavailable() -> None:
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:1"):
        await connect(Server(address=Address("127.0.0.1", 1)), "test")


@pytest.mark.parametrize(
    ("answers", "found"),
    [
        pytest.param([(1, OLD)], OLD, id="one answer"),
        pytest.param([(1, OLD), (2, NEW)], NEW, id="the newer configuration"),
        pytest.param([(2, NEW), (1, OLD), (1, OLD)], NEW, id="newer against a majority"),
        pytest.param([(0, OLD), (0, NEW), (0, NEW)], NEW, id="the majority among equals"),
    ],
)
def test_the_newest_configuration_counts(
    answers: list[tuple[int, Address]], found: Address
) -> None:
    assert newest(answers) == found


def test_a_primary_shows_its_lineage() -> None:
    assert lineage_of(b"# Replication\r\nrole:master\r\nmaster_replid:abc\r\n") == "abc"


@pytest.mark.parametrize(
    "info", [b"role:slave\r\nmaster_replid:abc\r\n", b"", None, [b"role:master"]]
)
def test_what_is_no_primary_is_unavailable(info: object) -> None:
    with pytest.raises(StoreUnavailable):
        lineage_of(info)  # type: ignore[arg-type] # what a broken server may send
