from __future__ import annotations

import asyncio

import pytest

from controller.redis_node import resp


async def read(data: bytes) -> resp.Reply:
    stream = asyncio.StreamReader()
    stream.feed_data(data)
    stream.feed_eof()
    return await resp.read(stream)


def test_a_command_is_a_list_of_strings() -> None:
    assert resp.encode(["GET", "é"]) == b"*2\r\n$3\r\nGET\r\n$2\r\n\xc3\xa9\r\n"


@pytest.mark.parametrize(
    ("data", "reply"),
    [
        (b"+OK\r\n", "OK"),
        (b":-7\r\n", -7),
        (b"$-1\r\n", None),
        (b"*-1\r\n", None),
        (b"$4\r\na\r\nb\r\n", "a\r\nb"),
        (b"*2\r\n$1\r\na\r\n*1\r\n:1\r\n", ["a", [1]]),
    ],
)
async def test_replies_are_read(data: bytes, reply: resp.Reply) -> None:
    assert await read(data) == reply


async def test_an_error_is_told_from_a_string() -> None:
    assert isinstance(await read(b"-ERR no\r\n"), resp.Refusal)
    assert not isinstance(await read(b"+ERR no\r\n"), resp.Refusal)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"HTTP/1.1 400\r\n", id="something else"),
        pytest.param(b"$x\r\n", id="no number"),
        pytest.param(b"$99999999\r\n", id="too long"),
        pytest.param(b"*99999999\r\n", id="too many"),
        pytest.param(b"*1\r\n" * 3, id="too deep"),
    ],
)
async def test_what_no_server_says_is_refused(data: bytes) -> None:
    with pytest.raises(resp.Malformed):
        await read(data)


async def test_an_end_in_the_middle_is_told() -> None:
    with pytest.raises(EOFError):
        await read(b"$4\r\nab")
