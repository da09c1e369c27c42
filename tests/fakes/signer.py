"""A signer with a key of its own, and knobs for what a real one does."""

from __future__ import annotations

from eth_account import Account

from aggregator.chain.signer import SignerChanged, SignerUnavailable, Transaction
from aligned.model import Address

KEY = b"\x07" * 32


def address_of(key: bytes) -> Address:
    return Address(bytes.fromhex(Account.from_key(key).address[2:]))


class LocalSigner:
    """Implements ``Signer`` in memory."""

    def __init__(self, key: bytes = KEY) -> None:
        self.key = key
        self.signed: list[Transaction] = []
        self.away = False

    @property
    def address(self) -> Address:
        return address_of(self.key)

    async def account(self) -> Address:
        if self.away:
            raise SignerUnavailable("the fake signer was told to be away")
        return self.address

    async def sign(self, transaction: Transaction, account: Address) -> bytes:
        if await self.account() != account:
            raise SignerChanged("the fake signer has another key")
        self.signed.append(transaction)
        return sign(self.key, transaction)


def sign(key: bytes, transaction: Transaction) -> bytes:
    """Return the bytes of ``transaction``, signed."""
    fields = {
        "type": 2,
        "chainId": transaction.chain_id,
        "nonce": transaction.nonce,
        "to": transaction.to,
        "value": transaction.value,
        "data": transaction.data,
        "gas": transaction.gas,
        "maxFeePerGas": transaction.max_fee,
        "maxPriorityFeePerGas": transaction.tip,
    }
    return bytes(Account.from_key(key).sign_transaction(fields).raw_transaction)
