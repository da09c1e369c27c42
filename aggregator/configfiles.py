"""The files a configuration names: where they are, and whether they can be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from aggregator.sections import Section
from aggregator.settings import KeystoreSigner, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

SomeSection = TypeVar("SomeSection", bound=Section)

_CREATED = frozenset({"journal.path"})
"""Paths of files that the daemon makes itself."""


def resolved(section: SomeSection, folder: Path) -> SomeSection:
    """Return ``section`` with its relative paths made absolute, from ``folder``."""
    changes: dict[str, object] = {}
    for name, value in section:
        if isinstance(value, Path):
            changes[name] = folder / value
        elif isinstance(value, Section):
            changes[name] = resolved(value, folder)
        elif isinstance(value, tuple):
            changes[name] = tuple(
                resolved(each, folder) if isinstance(each, Section) else each for each in value
            )
    return section.model_copy(update=changes)


def problems(settings: Settings) -> list[str]:
    """Return a line for each named file that is missing, unreadable, empty or misused."""
    found = []
    for key, path in _paths(settings, ""):
        if key in _CREATED:
            continue
        problem, content = _content(path)
        found += [
            f"{key}: {each}" for each in (problem or _misuse(key, content, settings),) if each
        ]
    return found


def _paths(section: Section, above: str) -> Iterator[tuple[str, Path]]:
    for name, value in section:
        key = f"{above}.{name}".lstrip(".")
        if isinstance(value, Path):
            yield key, value
        elif isinstance(value, Section):
            yield from _paths(value, key)
        elif isinstance(value, tuple):
            for index, each in enumerate(value):
                if isinstance(each, Section):
                    yield from _paths(each, f"{key}[{index}]")


def _content(path: Path) -> tuple[str, bytes]:
    """Return what is wrong with the file, and what is in it."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return f"{path} does not exist", b""
    except PermissionError:
        return f"{path} may not be read by this user", b""
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}", b""
    return "", content


def _misuse(key: str, content: bytes, settings: Settings) -> str:
    if not content.strip(b"\r\n"):
        hint = "; leave the key out for the empty password" if "password" in key else ""
        return f"the file is empty{hint}"
    if key.endswith(".url_file"):
        if not content.strip().startswith((b"http://", b"https://")):
            return "the file must hold a URL that begins with http:// or https://"
        if len(content.split()) != 1:
            return "the file must hold one URL and nothing else"
    if key == "signer.file" and isinstance(settings.signer, KeystoreSigner):
        return _keystore_misuse(content)
    return ""


def _keystore_misuse(content: bytes) -> str:
    try:
        keystore = json.loads(content)
    except ValueError:
        return "the file is not an Ethereum keystore: it is not JSON"
    if not isinstance(keystore, dict):
        return "the file is not an Ethereum keystore: it is not a JSON object"
    keys = {str(key).lower(): value for key, value in keystore.items()}
    if "pubkey" in keys:
        return "the file is a BLS keystore; the signer needs the Ethereum (ECDSA) one"
    if keys.get("version") != 3 or not isinstance(keys.get("crypto"), dict):  # noqa: PLR2004 - Web3 Secret Storage version
        return "the file is not an Ethereum keystore of version 3"
    return ""
