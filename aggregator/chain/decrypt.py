"""The child process that decrypts a keystore: request on standard input, answer on standard output.

It ends right after, and with it the 256 MB that decrypting takes.
"""

from __future__ import annotations

import json
import sys

from eth_keyfile.keyfile import decode_keyfile_json

_VERSION = 3


def answer(request: bytes) -> dict[str, str]:
    """Return the key, or why there is none.

    Args:
        request: JSON with ``keystore``, the file's text, and ``password``.
    """
    wanted = json.loads(request)
    try:
        keystore = json.loads(wanted["keystore"])
    except ValueError:
        return {"error": "it is not JSON; a keystore V3 file is expected"}
    if not isinstance(keystore, dict) or keystore.get("version") != _VERSION:
        return {"error": 'it is not a keystore V3 (a JSON object with "version": 3)'}
    try:
        return {"key": decode_keyfile_json(keystore, wanted["password"].encode()).hex()}
    except (ValueError, KeyError, TypeError, NotImplementedError, MemoryError) as problem:
        return {"error": _explain(problem)}


def _explain(problem: Exception) -> str:
    match problem:
        case MemoryError():
            return "there is not enough memory: decrypting needs 256 MB for a second"
        case ValueError() if "MAC" in str(problem):
            return "the password is wrong"
        case _:
            return f"it is not a complete keystore V3: {problem!r}"


if __name__ == "__main__":
    sys.stdout.write(json.dumps(answer(sys.stdin.buffer.read())))
