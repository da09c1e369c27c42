"""Edge: as much of the Redis protocol as a start needs, in both directions."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

Reply: TypeAlias = "str | int | list[Reply] | Refusal | None"

_MOST = 4096
"""Items of a list, and bytes of a string: a Sentinel's answers have less."""


class Malformed(Exception):
    """Something else than Redis speaks there."""


class Refusal(str):
    """An error that a server replied."""

    __slots__ = ()


def encode(words: Sequence[str]) -> bytes:
    """Return a command as bytes."""
    parts = [f"*{len(words)}\r\n".encode()]
    for word in words:
        raw = word.encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(raw), raw))
    return b"".join(parts)


async def read(stream: asyncio.StreamReader, depth: int = 0) -> Reply:
    """Return the next reply or command.

    Raises:
        Malformed: It is none, or larger than any that is asked for.
        OSError: The connection is lost; EOFError: it ended.
    """
    line = (await stream.readuntil(b"\r\n"))[:-2].decode(errors="replace")
    kind, rest = line[:1], line[1:]
    if kind == "+":
        return rest
    if kind == "-":
        return Refusal(rest)
    is_deep = kind == "*" and depth > 1
    if kind not in {":", "$", "*"} or not rest.removeprefix("-").isdecimal() or is_deep:
        raise Malformed(repr(line))
    return int(rest) if kind == ":" else await _body(stream, kind, int(rest), depth)


async def _body(stream: asyncio.StreamReader, kind: str, size: int, depth: int) -> Reply:
    if size > _MOST:
        msg = f"{size} is too much"
        raise Malformed(msg)
    if size < 0:
        return None
    if kind == "$":
        return (await stream.readexactly(size + 2))[:-2].decode(errors="replace")
    return [await read(stream, depth + 1) for _ in range(size)]
