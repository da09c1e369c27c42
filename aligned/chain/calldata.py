"""Call data of the contracts and what their answers mean. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError

from aligned.chain import abi
from aligned.chain.rpc import Undecodable
from aligned.model import QUORUM_NUMBER, Address, BatchId, BlockRef, OperatorId, Stake, Wei

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aligned.model import G1Point, G2Point, Signature


@dataclass(frozen=True, slots=True, kw_only=True)
class Indices:
    """Where in the contracts' histories the values of a reference block are."""

    non_signer_bitmap: tuple[int, ...]
    """In the order of the non-signers."""
    quorum_apk: tuple[int, ...]
    """One."""
    total_stake: tuple[int, ...]
    """One."""
    non_signer_stake: tuple[tuple[int, ...], ...]
    """One tuple, in the order of the non-signers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What proves a batch to the contract, except for the indices, which the chain is asked for."""

    merkle_root: bytes
    """32 bytes."""
    sender: Address
    batch_id: BatchId
    created: BlockRef
    """The reference block."""
    non_signers: tuple[OperatorId, ...]
    """Members that did not sign, strictly ascending."""
    non_signer_keys: tuple[G1Point, ...]
    """In the order of ``non_signers``."""
    quorum_apk: G1Point
    """The sum of all members' keys."""
    signers_apk_g1: G1Point
    """The sum of the signers' keys: what the contract will compute."""
    apk_g2: G2Point
    """The sum of the signers' keys; in our order, real part first."""
    sigma: Signature
    """The sum of their signatures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRecord:
    """A batch in the contract's storage."""

    created_block: int
    """0: there is no such batch."""
    responded: bool
    fee_limit: Wei


@dataclass(frozen=True, slots=True)
class Member:
    """One operator of quorum 0 at some block."""

    address: Address
    operator_id: OperatorId
    stake: Stake


def respond_to_task(certificate: Certificate, indices: Indices) -> bytes:
    """Return the call data that answers a batch.

    Source: ``AlignedLayerServiceManager.respondToTaskV2``.
    """
    return abi.RESPOND_TO_TASK_V2 + encode(
        ("bytes32", "address", abi.CERTIFICATE),
        (certificate.merkle_root, certificate.sender, _words(certificate, indices)),
    )


def _words(certificate: Certificate, indices: Indices) -> tuple[object, ...]:
    return (
        indices.non_signer_bitmap,
        [_point(key) for key in certificate.non_signer_keys],
        [_point(certificate.quorum_apk)],
        _swap_g2(certificate.apk_g2),
        _point(certificate.sigma),
        indices.quorum_apk,
        indices.total_stake,
        indices.non_signer_stake,
    )


def _point(point: bytes) -> tuple[bytes, bytes]:
    return point[:32], point[32:]


def _swap_g2(point: G2Point) -> tuple[tuple[bytes, bytes], tuple[bytes, bytes]]:
    """Return the words of a key as contracts order them: imaginary part first."""
    return (point[32:64], point[:32]), (point[96:], point[64:96])


def get_operator_state(registry_coordinator: Address, block: int) -> bytes:
    """Return the call data that reads quorum 0 as of ``block``.

    A node whose state is older than ``block`` answers with what it has: pin the call to a block.

    Source: ``OperatorStateRetriever.getOperatorState(address,bytes,uint32)``.
    """
    return abi.GET_OPERATOR_STATE + encode(
        ("address", "bytes", "uint32"), (registry_coordinator, abi.QUORUM_NUMBERS, block)
    )


def parse_operator_state(answer: bytes) -> tuple[Member, ...]:
    """Return the members of quorum 0, in the registry's order.

    Raises:
        Undecodable: These are not the bytes of such an answer.
    """
    (quorums,) = _decode(("(address,bytes32,uint96)[][]",), answer)
    if len(quorums) != 1:
        msg = f"the operator state has {len(quorums)} quorums instead of 1"
        raise Undecodable(msg)
    return tuple(
        Member(_address(address), OperatorId(operator_id), Stake(stake))
        for address, operator_id, stake in quorums[0]
    )


def get_check_signatures_indices(
    registry_coordinator: Address, block: int, non_signers: Sequence[OperatorId]
) -> bytes:
    """Return the call data that asks for the indices of an answer.

    Source: ``OperatorStateRetriever.getCheckSignaturesIndices(address,uint32,bytes,bytes32[])``.
    """
    return abi.GET_CHECK_SIGNATURES_INDICES + encode(
        ("address", "uint32", "bytes", "bytes32[]"),
        (registry_coordinator, block, abi.QUORUM_NUMBERS, list(non_signers)),
    )


def parse_check_signatures_indices(answer: bytes) -> Indices:
    """Return the indices. The reader's order is not the order of the answer's arguments.

    Raises:
        Undecodable: These are not the bytes of such an answer.
    """
    (found,) = _decode(("(uint32[],uint32[],uint32[],uint32[][])",), answer)
    bitmap, apk, total, stake = found
    return Indices(
        non_signer_bitmap=tuple(bitmap),
        quorum_apk=tuple(apk),
        total_stake=tuple(total),
        non_signer_stake=tuple(tuple(of_quorum) for of_quorum in stake),
    )


def batches_state(batch_id: BatchId) -> bytes:
    """Return the call data that reads a batch. Source: ``batchesState(bytes32)``."""
    return abi.BATCHES_STATE + batch_id


def parse_batches_state(answer: bytes) -> BatchRecord:
    """Return the batch as the contract has it.

    Raises:
        Undecodable: These are not the bytes of such an answer.
    """
    created_block, responded, fee_limit = _decode(("uint32", "bool", "uint256"), answer)
    return BatchRecord(created_block=created_block, responded=responded, fee_limit=Wei(fee_limit))


def batchers_balances(sender: Address) -> bytes:
    """Return the call data that reads what a batcher has deposited, in wei."""
    return abi.BATCHERS_BALANCES + _word(sender)


def aligned_aggregator() -> bytes:
    """Return the call data that reads the one account that may answer."""
    return abi.ALIGNED_AGGREGATOR


def bls_apk_registry() -> bytes:
    """Return the call data that asks the registry coordinator for the key registry."""
    return abi.BLS_APK_REGISTRY


def stake_registry() -> bytes:
    """Return the call data that asks the registry coordinator for the stake registry."""
    return abi.STAKE_REGISTRY


def get_operator_from_pubkey_hash(operator_id: OperatorId) -> bytes:
    """Return the call data that asks the key registry for an operator's address, zero if none."""
    return abi.GET_OPERATOR_FROM_PUBKEY_HASH + operator_id


def get_total_stake_indices(block: int) -> bytes:
    """Return the call data that finds the total stake of a block.

    Source: ``StakeRegistry.getTotalStakeIndicesAtBlockNumber(uint32,bytes)``.
    """
    return abi.GET_TOTAL_STAKE_INDICES + encode(("uint32", "bytes"), (block, abi.QUORUM_NUMBERS))


def parse_total_stake_indices(answer: bytes) -> int:
    """Return the index of quorum 0.

    Raises:
        Undecodable: These are not the bytes of such an answer.
    """
    (found,) = _decode(("uint32[]",), answer)
    if len(found) != 1:
        msg = f"there are {len(found)} total stake indices instead of 1"
        raise Undecodable(msg)
    return int(found[0])


def get_total_stake(block: int, index: int) -> bytes:
    """Return the call data that reads a total stake.

    Source: ``StakeRegistry.getTotalStakeAtBlockNumberFromIndex(uint8,uint32,uint256)``.
    """
    return abi.GET_TOTAL_STAKE + encode(
        ("uint8", "uint32", "uint256"), (QUORUM_NUMBER, block, index)
    )


def parse_uint(answer: bytes) -> int:
    """Return the number in an answer of one word: a balance, a stake.

    Raises:
        Undecodable: These are not the bytes of such an answer.
    """
    (found,) = _decode(("uint256",), answer)
    return int(found)


def parse_address(answer: bytes) -> Address:
    """Return the address in an answer of one word; 20 zero bytes if there is none.

    Raises:
        Undecodable: These are not the bytes of such an answer.
    """
    (found,) = _decode(("address",), answer)
    return _address(found)


def _decode(types: tuple[str, ...], answer: bytes) -> tuple[Any, ...]:
    try:
        return decode(types, answer)
    except (DecodingError, OverflowError) as error:
        what = "nothing: is a contract at this address?" if not answer else f"{len(answer)} bytes"
        msg = f"an answer that should hold {','.join(types)} holds {what}"
        raise Undecodable(msg) from error


def _address(text: str) -> Address:
    return Address(bytes.fromhex(text[2:]))


def _word(address: Address) -> bytes:
    return bytes(12) + address
