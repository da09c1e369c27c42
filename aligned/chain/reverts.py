"""Why a node refused: the contracts' reverts, and refusals of raw transactions. Pure.

Each client words the same refusal in its own way, and puts revert data in its own place; what
comes out of here has one name for each.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aligned.chain.rpc import RpcError


class RevertKind(StrEnum):
    """What a revert means for whoever wants to answer a batch."""

    ALREADY_ANSWERED = "already answered"
    """Done, by us or by an earlier transaction of ours."""
    UNKNOWN_BATCH = "unknown batch"
    """Reorged away, or the node lags: wait."""
    TOO_EARLY = "too early"
    """The batch is in the head block itself: a block later it is right."""
    FEE_LIMIT = "fee limit"
    """The batch allows less than this transaction would cost: wait for a lower price."""
    BATCHER_FUNDS = "batcher funds"
    """The batcher's deposit is too low: wait for a deposit."""
    NOT_AGGREGATOR = "not aggregator"
    """The contract names another account: a person must act."""
    PAUSED = "paused"
    """The contract is paused: wait."""
    STALE_DATA = "stale data"
    """Keys or indices do not fit the reference block: read them again."""
    BAD_SIGNATURE = "bad signature"
    """The aggregate does not verify: check every signature alone."""
    BELOW_THRESHOLD = "below threshold"
    """Not enough stake."""
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Revert:
    """A revert and its own words."""

    kind: RevertKind
    detail: str
    """For people: the reason string, or the custom error with its arguments."""


@dataclass(frozen=True, slots=True)
class _CustomError:
    kind: RevertKind
    name: str
    types: tuple[str, ...]


_CUSTOM: Final[Mapping[bytes, _CustomError]] = {
    bytes.fromhex(selector): _CustomError(kind, name, types)
    for selector, kind, name, types in (
        ("9cf1aff2", RevertKind.ALREADY_ANSWERED, "BatchAlreadyResponded", ("bytes32",)),
        ("2396d34e", RevertKind.UNKNOWN_BATCH, "BatchDoesNotExist", ("bytes32",)),
        (
            "5c54305e",
            RevertKind.BATCHER_FUNDS,
            "InsufficientFunds",
            ("address", "uint256", "uint256"),
        ),
        (
            "a61eb88a",
            RevertKind.BELOW_THRESHOLD,
            "InvalidQuorumThreshold",
            ("uint256", "uint256"),
        ),
        ("2cbe4195", RevertKind.NOT_AGGREGATOR, "SenderIsNotAggregator", ("address", "address")),
        ("86fc507e", RevertKind.FEE_LIMIT, "ExceededMaxRespondFee", ("uint256", "uint256")),
        ("d93c0665", RevertKind.PAUSED, "EnforcedPause", ()),
        ("840a48d5", RevertKind.PAUSED, "CurrentlyPaused", ()),
    )
}

_REASONS: Final = (
    ("invalid reference block", RevertKind.TOO_EARLY),
    ("signature is invalid", RevertKind.BAD_SIGNATURE),
    ("pairing precompile call failed", RevertKind.BAD_SIGNATURE),
    ("paused", RevertKind.PAUSED),
    ("not sorted", RevertKind.STALE_DATA),
    ("quorumapk hash", RevertKind.STALE_DATA),
    ("length mismatch", RevertKind.STALE_DATA),
    ("withdrawaldelayblocks", RevertKind.STALE_DATA),
    ("index", RevertKind.STALE_DATA),
    ("too recent", RevertKind.STALE_DATA),
    ("not the latest", RevertKind.STALE_DATA),
    ("not valid for blocknumber", RevertKind.STALE_DATA),
    ("no entry at that block", RevertKind.STALE_DATA),
    ("bn<", RevertKind.STALE_DATA),
    ("o!reg", RevertKind.STALE_DATA),
)
"""Fragments of reason strings, lower case; the first that occurs decides.

Source: eigenlayer-middleware (``BLSSignatureChecker``, ``BLSApkRegistry``, ``StakeRegistry``) and
the short strings of Aligned's ``RegistryCoordinator``.
"""

_ERROR_STRING: Final = bytes.fromhex("08c379a0")
_PANIC: Final = bytes.fromhex("4e487b71")
_HEX: Final = re.compile(r"0x((?:[0-9a-fA-F]{2})*)")
_PREFIX: Final = re.compile(r"(?:execution )?reverted(?:: ?| with reason string )", re.IGNORECASE)


def classify(data: object, message: str = "") -> Revert:
    """Return what a revert means.

    Args:
        data: Revert data as bytes, hex, a phrase that ends in hex ("Reverted 0x…"), or an
            object that holds one of these under a key such as "data" or "result".
        message: The node's words, used where there is no data.
    """
    raw = revert_data(data)
    if not raw:
        return _by_reason(_PREFIX.sub("", message).strip(" '\""))
    selector, arguments = raw[:4], raw[4:]
    if selector == _ERROR_STRING:
        return _by_reason(_reason(arguments))
    if selector == _PANIC:
        return Revert(RevertKind.STALE_DATA, f"panic 0x{raw[-1]:02x}")
    custom = _CUSTOM.get(selector)
    if custom is None:
        return Revert(RevertKind.UNKNOWN, f"custom error 0x{raw.hex()}"[:300])
    return Revert(custom.kind, f"{custom.name}({_arguments(custom, arguments)})")


def revert_of(error: RpcError) -> Revert:
    """Return what the revert behind a refused ``eth_call`` or ``eth_estimateGas`` means."""
    return classify(error.data, error.message)


def revert_data(data: object) -> bytes:
    """Return the revert data inside ``data``, in whatever form a node gave it; empty if none."""
    if isinstance(data, bytes):
        return data
    if isinstance(data, str):
        found = _HEX.search(data)
        return bytes.fromhex(found[1]) if found else b""
    if isinstance(data, dict):
        for value in (
            data.get("data"),
            data.get("result"),
            data.get("originalError"),
            *data.values(),
        ):
            inner = revert_data(value) if isinstance(value, str | bytes | dict) else b""
            if len(inner) >= 4:  # noqa: PLR2004 - a selector; shorter hex is an id or a counter
                return inner
    return b""


def _reason(arguments: bytes) -> str:
    try:
        (reason,) = decode(("bytes",), arguments)
    except (DecodingError, OverflowError):
        return "reason string that cannot be decoded"
    return bytes(reason).decode("utf-8", "replace")


def _by_reason(reason: str) -> Revert:
    lowered = reason.lower()
    for fragment, kind in _REASONS:
        if fragment in lowered:
            return Revert(kind, reason)
    for custom in _CUSTOM.values():  # anvil and others print decoded errors by name
        if custom.name.lower() in lowered:
            return Revert(custom.kind, reason)
    return Revert(RevertKind.UNKNOWN, reason or "no reason given")


def _arguments(custom: _CustomError, arguments: bytes) -> str:
    try:
        values = decode(custom.types, arguments)
    except (DecodingError, OverflowError):
        return "0x" + arguments.hex()
    return ", ".join("0x" + v.hex() if isinstance(v, bytes) else str(v) for v in values)


class SendRefusal(StrEnum):
    """Why a node refused a raw transaction."""

    KNOWN = "known"
    """It has it already: success."""
    NONCE_TOO_LOW = "nonce too low"
    """The nonce is used: by this transaction, or by another one."""
    REPLACEMENT_UNDERPRICED = "replacement underpriced"
    """Another one with this nonce is there, and this one pays too little more."""
    BELOW_BASE_FEE = "below base fee"
    """Its fee cap is under the base fee, or under the node's own minimum."""
    NO_FUNDS = "no funds"
    """The account cannot pay for it."""
    UNKNOWN = "unknown"


_REFUSALS: Final = (
    # Replacement first: geth's text holds "transaction underpriced", which alone means otherwise.
    ("replacement", SendRefusal.REPLACEMENT_UNDERPRICED),
    ("replacenotallowed", SendRefusal.REPLACEMENT_UNDERPRICED),  # nethermind
    ("feetoolowtocompete", SendRefusal.REPLACEMENT_UNDERPRICED),  # nethermind
    ("could not replace existing", SendRefusal.REPLACEMENT_UNDERPRICED),  # erigon
    ("already known", SendRefusal.KNOWN),  # geth, reth, erigon
    ("alreadyknown", SendRefusal.KNOWN),  # nethermind
    ("already imported", SendRefusal.KNOWN),  # anvil, besu
    ("known transaction", SendRefusal.KNOWN),  # besu, old geth
    ("already exists", SendRefusal.KNOWN),
    ("nonce too low", SendRefusal.NONCE_TOO_LOW),  # geth, reth, erigon, anvil
    ("nonce_too_low", SendRefusal.NONCE_TOO_LOW),  # besu
    (
        "nonce below",
        SendRefusal.NONCE_TOO_LOW,
    ),  # besu: "transaction nonce below sender account nonce"
    ("oldnonce", SendRefusal.NONCE_TOO_LOW),  # nethermind
    ("nonce is too low", SendRefusal.NONCE_TOO_LOW),
    ("less than block base fee", SendRefusal.BELOW_BASE_FEE),  # geth, reth, anvil
    ("below base fee", SendRefusal.BELOW_BASE_FEE),
    ("current base", SendRefusal.BELOW_BASE_FEE),  # besu
    ("fee cap less than", SendRefusal.BELOW_BASE_FEE),  # erigon: "fee cap less than block base fee"
    ("feetoolow", SendRefusal.BELOW_BASE_FEE),  # nethermind
    ("fee too low", SendRefusal.BELOW_BASE_FEE),
    ("underpriced", SendRefusal.BELOW_BASE_FEE),  # geth, reth, erigon: under the pool's minimum
    ("gas price below", SendRefusal.BELOW_BASE_FEE),  # besu: under its configured minimum
    ("gas price too low", SendRefusal.BELOW_BASE_FEE),
    ("insufficient funds", SendRefusal.NO_FUNDS),  # geth, reth, erigon, anvil
    ("insufficientfunds", SendRefusal.NO_FUNDS),  # nethermind
    ("upfront cost exceeds", SendRefusal.NO_FUNDS),  # besu
    ("upfront gas cost", SendRefusal.NO_FUNDS),
    ("exceeds account balance", SendRefusal.NO_FUNDS),
    ("exceeds the balance", SendRefusal.NO_FUNDS),
)
"""Fragments of refusals, lower case; the first that occurs decides."""


def send_refusal(error: RpcError) -> SendRefusal:
    """Return why ``eth_sendRawTransaction`` was refused, whichever client said it."""
    words = f"{error.message} {error.data if isinstance(error.data, str) else ''}".lower()
    for fragment, refusal in _REFUSALS:
        if fragment in words:
            return refusal
    return SendRefusal.UNKNOWN
