"""The scripts that run in Redis, as text and digest.

A script is called by the digest of its text, so releases that differ run side by side.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources

NAMES = ("identity", "put", "claim", "write", "forget", "beat", "lock")


@dataclass(frozen=True, slots=True)
class Script:
    """One script with what goes before every script."""

    text: bytes
    digest: bytes
    """SHA-1 of ``text`` as 40 hexadecimal characters: what EVALSHA takes."""


@cache
def scripts() -> dict[str, Script]:
    """Return all scripts by name."""
    folder = resources.files(__package__) / "scripts"
    common = (folder / "common.lua").read_bytes()
    read = {}
    for name in NAMES:
        text = common + (folder / f"{name}.lua").read_bytes()
        digest = hashlib.sha1(text, usedforsecurity=False).hexdigest()
        read[name] = Script(text, digest.encode())
    return read
