from __future__ import annotations

import pytest
from eth_abi.abi import decode, encode
from eth_hash.auto import keccak

from aligned.chain import abi, calldata
from aligned.chain.calldata import BatchRecord, Certificate, Indices, Member
from aligned.chain.rpc import Undecodable
from aligned.model import (
    Address,
    BatchId,
    BlockHash,
    BlockRef,
    G1Point,
    G2Point,
    OperatorId,
    Signature,
    Stake,
    Wei,
)

CONTRACT_TYPES = (
    "(uint32[],(uint256,uint256)[],(uint256,uint256)[],(uint256[2],uint256[2]),"
    "(uint256,uint256),uint32[],uint32[],uint32[][])"
)
REGISTRY = Address(b"\x11" * 20)
SENDER = Address(bytes(19) + b"\x13")
INDICES = Indices(
    non_signer_bitmap=(2, 0),
    quorum_apk=(5,),
    total_stake=(7,),
    non_signer_stake=((3, 4),),
)


def words(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(32, "big") for number in numbers)


def certificate() -> Certificate:
    return Certificate(
        merkle_root=b"\xaa" * 32,
        sender=SENDER,
        batch_id=BatchId(b"\xbb" * 32),
        created=BlockRef(9, BlockHash(b"\xcc" * 32)),
        non_signers=(OperatorId(b"\x01" * 32), OperatorId(b"\x02" * 32)),
        non_signer_keys=(G1Point(words(1, 2)), G1Point(words(3, 4))),
        quorum_apk=G1Point(words(5, 6)),
        signers_apk_g1=G1Point(words(7, 8)),
        apk_g2=G2Point(words(20, 21, 30, 31)),
        sigma=Signature(words(9, 10)),
    )


@pytest.mark.parametrize(
    ("selector", "signature"),
    [
        (abi.BATCHES_STATE, "batchesState(bytes32)"),
        (abi.BATCHERS_BALANCES, "batchersBalances(address)"),
        (abi.ALIGNED_AGGREGATOR, "alignedAggregator()"),
        (abi.RESPOND_TO_TASK_V2, f"respondToTaskV2(bytes32,address,{CONTRACT_TYPES})"),
        (abi.GET_OPERATOR_STATE, "getOperatorState(address,bytes,uint32)"),
        (
            abi.GET_CHECK_SIGNATURES_INDICES,
            "getCheckSignaturesIndices(address,uint32,bytes,bytes32[])",
        ),
        (abi.BLS_APK_REGISTRY, "blsApkRegistry()"),
        (abi.STAKE_REGISTRY, "stakeRegistry()"),
        (abi.GET_OPERATOR_FROM_PUBKEY_HASH, "getOperatorFromPubkeyHash(bytes32)"),
        (abi.GET_TOTAL_STAKE_INDICES, "getTotalStakeIndicesAtBlockNumber(uint32,bytes)"),
        (abi.GET_TOTAL_STAKE, "getTotalStakeAtBlockNumberFromIndex(uint8,uint32,uint256)"),
    ],
)
def test_selectors_are_those_of_the_signatures(selector: bytes, signature: str) -> None:
    assert selector == keccak(signature.encode())[:4]


@pytest.mark.parametrize(
    ("topic", "signature"),
    [
        (abi.NEW_BATCH_V3, "NewBatchV3(bytes32,address,uint32,string,uint256)"),
        (abi.BATCH_VERIFIED, "BatchVerified(bytes32,address)"),
        (
            abi.NEW_PUBKEY_REGISTRATION,
            "NewPubkeyRegistration(address,(uint256,uint256),(uint256[2],uint256[2]))",
        ),
    ],
)
def test_topics_are_those_of_the_events(topic: bytes, signature: str) -> None:
    assert topic == keccak(signature.encode())


def test_an_answer_is_encoded_as_the_contract_declares_it() -> None:
    data = calldata.respond_to_task(certificate(), INDICES)
    expected = encode(
        ("bytes32", "address", CONTRACT_TYPES),
        (
            b"\xaa" * 32,
            SENDER,
            (
                (2, 0),
                [(1, 2), (3, 4)],
                [(5, 6)],
                ((21, 20), (31, 30)),
                (9, 10),
                (5,),
                (7,),
                ((3, 4),),
            ),
        ),
    )
    assert data == abi.RESPOND_TO_TASK_V2 + expected


def test_indices_come_in_the_readers_order_not_the_answers() -> None:
    answer = encode(("(uint32[],uint32[],uint32[],uint32[][])",), (([2, 0], [5], [7], [[3, 4]]),))
    assert calldata.parse_check_signatures_indices(answer) == INDICES


def test_the_index_reader_is_asked_for_quorum_0() -> None:
    ids = [OperatorId(b"\x01" * 32)]
    data = calldata.get_check_signatures_indices(REGISTRY, 9, ids)
    arguments = decode(("address", "uint32", "bytes", "bytes32[]"), data[4:])
    assert arguments == ("0x" + "11" * 20, 9, b"\x00", (b"\x01" * 32,))


def test_the_state_reader_is_asked_for_quorum_0() -> None:
    data = calldata.get_operator_state(REGISTRY, 9)
    assert decode(("address", "bytes", "uint32"), data[4:]) == ("0x" + "11" * 20, b"\x00", 9)


def test_members_keep_their_order() -> None:
    answer = encode(
        ("(address,bytes32,uint96)[][]",),
        ([[(b"\x02" * 20, b"\x22" * 32, 5), (b"\x01" * 20, b"\x11" * 32, 0)]],),
    )
    assert calldata.parse_operator_state(answer) == (
        Member(Address(b"\x02" * 20), OperatorId(b"\x22" * 32), Stake(5)),
        Member(Address(b"\x01" * 20), OperatorId(b"\x11" * 32), Stake(0)),
    )


def test_a_batch_record_is_read() -> None:
    assert calldata.parse_batches_state(words(12, 1, 10**16)) == BatchRecord(
        created_block=12, responded=True, fee_limit=Wei(10**16)
    )


@pytest.mark.parametrize(
    ("parse", "answer"),
    [
        pytest.param(calldata.parse_batches_state, b"", id="no contract"),
        pytest.param(calldata.parse_batches_state, words(12, 1), id="too short"),
        pytest.param(calldata.parse_batches_state, words(12, 7, 0), id="no bool"),
        pytest.param(calldata.parse_operator_state, words(32, 1 << 200), id="endless"),
        pytest.param(calldata.parse_operator_state, words(32, 0), id="no quorum"),
        pytest.param(calldata.parse_check_signatures_indices, words(32), id="cut"),
        pytest.param(calldata.parse_total_stake_indices, words(32, 0), id="no index"),
        pytest.param(calldata.parse_address, words(1 << 200), id="no address"),
        pytest.param(calldata.parse_uint, b"", id="no number"),
    ],
)
def test_what_is_no_answer_is_not_decoded(parse: object, answer: bytes) -> None:
    with pytest.raises(Undecodable):
        parse(answer)  # type: ignore[operator]  # of functions with different results


@pytest.mark.parametrize("count", [0, 1, 200], ids=lambda n: f"{n} non-signers")
def test_the_size_of_an_answer_is_that_of_the_real_contract(count: int) -> None:
    base = certificate()
    big = Certificate(
        merkle_root=base.merkle_root,
        sender=base.sender,
        batch_id=base.batch_id,
        created=base.created,
        non_signers=(OperatorId(b"\x01" * 32),) * count,
        non_signer_keys=(G1Point(words(1, 2)),) * count,
        quorum_apk=base.quorum_apk,
        signers_apk_g1=base.signers_apk_g1,
        apk_g2=base.apk_g2,
        sigma=base.sigma,
    )
    indices = Indices(
        non_signer_bitmap=(0,) * count,
        quorum_apk=(0,),
        total_stake=(0,),
        non_signer_stake=((0,) * count,),
    )
    # 868 bytes measured on the real contracts without non-signers, 996 with one
    assert len(calldata.respond_to_task(big, indices)) == 868 + 128 * count
