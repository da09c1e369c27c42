"""What turns a transaction into bytes: one small protocol for every place a key can be in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import rlp  # type: ignore[import-untyped]  # it ships no types
from eth_account import Account
from eth_hash.auto import keccak
from eth_keys.exceptions import BadSignature
from eth_utils.exceptions import ValidationError

from aligned.errors import Deposed, Unavailable
from aligned.model import Address, TransactionHash, Wei

_FIELDS = 12
"""Of a signed EIP-1559 transaction: chain id, nonce, tip, max fee, gas, to, value, data, access
list and the three of the signature."""


class SignerUnavailable(Unavailable):
    """The signer does not sign now; the message says what to do."""


class SignerChanged(Deposed):
    """The signer holds another account's key now: the term's nonces belong to the former one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """An EIP-1559 transaction before it is signed. The access list is empty."""

    chain_id: int
    nonce: int
    to: Address
    value: Wei
    data: bytes
    gas: int
    max_fee: Wei
    """Per gas."""
    tip: Wei
    """``maxPriorityFeePerGas``."""


class Signer(Protocol):
    """Holds one account's key."""

    async def account(self) -> Address:
        """Return the account, after reading again what has changed.

        Raises:
            SignerUnavailable: There is no usable key.
        """

    async def sign(self, transaction: Transaction, account: Address) -> bytes:
        """Return ``transaction`` signed by ``account``, checked to be what was asked for.

        Raises:
            SignerUnavailable: No signature now.
            SignerChanged: The key is another account's.
        """


def transaction_hash(raw: bytes) -> TransactionHash:
    """Return the hash of a signed transaction."""
    return TransactionHash(keccak(raw))


def decode(raw: bytes) -> Transaction:
    """Return what a signed EIP-1559 transaction says; its signature is not looked at.

    Raises:
        ValueError: It is no such transaction, or has an access list.
    """
    if raw[:1] != b"\x02":
        msg = "not an EIP-1559 transaction"
        raise ValueError(msg)
    try:
        fields = rlp.decode(raw[1:])
    except rlp.exceptions.RLPException as broken:
        msg = f"not a transaction: {broken}"
        raise ValueError(msg) from broken
    if len(fields) != _FIELDS or fields[8] or any(not isinstance(f, bytes) for f in fields[:8]):
        msg = "not an EIP-1559 transaction without an access list"
        raise ValueError(msg)
    chain_id, nonce, tip, max_fee, gas, to, value, data = fields[:8]
    return Transaction(
        chain_id=int.from_bytes(chain_id, "big"),
        nonce=int.from_bytes(nonce, "big"),
        to=Address(to),
        value=Wei(int.from_bytes(value, "big")),
        data=data,
        gas=int.from_bytes(gas, "big"),
        max_fee=Wei(int.from_bytes(max_fee, "big")),
        tip=Wei(int.from_bytes(tip, "big")),
    )


def check(raw: bytes, transaction: Transaction) -> None:
    """Compare what was signed with what was asked for.

    Raises:
        SignerUnavailable: They differ. The bytes must not be sent.
    """
    try:
        signed = decode(raw)
    except ValueError as broken:
        msg = f"the signer returned something else than a transaction: {broken}"
        raise SignerUnavailable(msg) from broken
    if signed != transaction:
        names = [
            name
            for name in Transaction.__dataclass_fields__
            if getattr(signed, name) != getattr(transaction, name)
        ]
        msg = f"the signer changed {', '.join(names)} of the transaction; it is not sent"
        raise SignerUnavailable(msg)


def sender(raw: bytes) -> Address:
    """Return the account whose signature a transaction carries; some 10 ms of computing.

    Raises:
        ValueError: The signature recovers to nobody.
    """
    try:
        return Address(bytes.fromhex(Account.recover_transaction(raw)[2:]))
    except (BadSignature, ValidationError, ValueError, TypeError) as broken:
        msg = f"no account signed this: {broken}"
        raise ValueError(msg) from broken
