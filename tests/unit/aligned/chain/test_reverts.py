from __future__ import annotations

import pytest
from eth_abi.abi import encode
from hypothesis import given, strategies as st

from aligned.chain.reverts import RevertKind, SendRefusal, classify, revert_of, send_refusal
from aligned.chain.rpc import RpcError

PREFIX = "BLSSignatureChecker.checkSignatures: "


def reason(text: str) -> str:
    return "0x08c379a0" + encode(("string",), (text,)).hex()


def custom(selector: str, *numbers: int) -> str:
    return "0x" + selector + b"".join(n.to_bytes(32, "big") for n in numbers).hex()


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (custom("9cf1aff2", 1), RevertKind.ALREADY_ANSWERED),
        (custom("2396d34e", 1), RevertKind.UNKNOWN_BATCH),
        (custom("5c54305e", 1, 2, 3), RevertKind.BATCHER_FUNDS),
        (custom("a61eb88a", 1, 2), RevertKind.BELOW_THRESHOLD),
        (custom("2cbe4195", 1, 2), RevertKind.NOT_AGGREGATOR),
        (custom("86fc507e", 1, 2), RevertKind.FEE_LIMIT),
        (custom("840a48d5"), RevertKind.PAUSED),
        (reason(PREFIX + "invalid reference block"), RevertKind.TOO_EARLY),
        (reason(PREFIX + "signature is invalid"), RevertKind.BAD_SIGNATURE),
        (reason(PREFIX + "pairing precompile call failed"), RevertKind.BAD_SIGNATURE),
        (reason(PREFIX + "nonSignerPubkeys not sorted"), RevertKind.STALE_DATA),
        (
            reason(PREFIX + "quorumApk hash in storage does not match provided quorum apk"),
            RevertKind.STALE_DATA,
        ),
        (reason(PREFIX + "input nonsigner length mismatch"), RevertKind.STALE_DATA),
        (
            reason(PREFIX + "StakeRegistry updates must be within withdrawalDelayBlocks window"),
            RevertKind.STALE_DATA,
        ),
        (reason("index too recent"), RevertKind.STALE_DATA),
        (reason("bn<"), RevertKind.STALE_DATA),
        (reason("bn<2"), RevertKind.STALE_DATA),
        (reason("O!Reg"), RevertKind.STALE_DATA),
        (reason("Pausable: index is paused"), RevertKind.PAUSED),
        ("0x4e487b71" + (0x32).to_bytes(32, "big").hex(), RevertKind.STALE_DATA),
        (custom("deadbeef"), RevertKind.UNKNOWN),
        (reason("something new"), RevertKind.UNKNOWN),
        ("0x", RevertKind.UNKNOWN),
    ],
)
def test_every_revert_of_the_contracts_has_a_kind(data: str, kind: RevertKind) -> None:
    assert classify(data).kind is kind


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(custom("9cf1aff2", 1), id="geth: hex"),
        pytest.param(bytes.fromhex(custom("9cf1aff2", 1)[2:]), id="bytes"),
        pytest.param("Reverted " + custom("9cf1aff2", 1), id="parity: phrase"),
        pytest.param({"data": custom("9cf1aff2", 1)}, id="hardhat: object"),
        pytest.param({"originalError": {"code": 3, "data": custom("9cf1aff2", 1)}}, id="wrapped"),
        pytest.param(
            {"0x" + "ab" * 32: {"error": "revert", "return": custom("9cf1aff2", 1)}},
            id="ganache: by transaction",
        ),
    ],
)
def test_revert_data_is_found_in_every_form(data: object) -> None:
    revert = classify(data)
    assert revert.kind is RevertKind.ALREADY_ANSWERED
    assert revert.detail == "BatchAlreadyResponded(0x" + "00" * 31 + "01)"


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (f"execution reverted: {PREFIX}signature is invalid", RevertKind.BAD_SIGNATURE),
        ("VM execution error: reverted with reason string 'bn<'", RevertKind.STALE_DATA),
        ("execution reverted: custom error BatchDoesNotExist", RevertKind.UNKNOWN_BATCH),
        ("execution reverted", RevertKind.UNKNOWN),
    ],
)
def test_without_data_the_message_decides(message: str, kind: RevertKind) -> None:
    assert revert_of(RpcError(3, message)).kind is kind


def test_the_detail_is_for_people() -> None:
    revert = classify(custom("86fc507e", 5, 7))
    assert revert.detail == "ExceededMaxRespondFee(5, 7)"
    assert classify(reason("bn<")).detail == "bn<"


@given(
    st.recursive(
        st.none() | st.binary() | st.text() | st.integers(),
        lambda inner: st.dictionaries(st.text(), inner) | st.lists(inner),
        max_leaves=5,
    )
)
def test_no_data_breaks_the_decoder(data: object) -> None:
    assert classify(data).kind in RevertKind


@given(st.sampled_from(["9cf1aff2", "5c54305e", "08c379a0", "4e487b71"]), st.binary(max_size=99))
def test_cut_or_random_arguments_never_raise(selector: str, arguments: bytes) -> None:
    assert classify(bytes.fromhex(selector) + arguments).detail


@pytest.mark.parametrize(
    ("message", "refusal"),
    [
        ("already known", SendRefusal.KNOWN),  # geth, reth, erigon
        ("transaction already imported", SendRefusal.KNOWN),  # anvil
        ("Known transaction", SendRefusal.KNOWN),  # besu
        ("AlreadyKnown", SendRefusal.KNOWN),  # nethermind
        ("nonce too low: next nonce 5, tx nonce 4", SendRefusal.NONCE_TOO_LOW),  # geth
        ("nonce too low", SendRefusal.NONCE_TOO_LOW),  # reth, erigon, anvil
        ("Transaction nonce below sender account nonce", SendRefusal.NONCE_TOO_LOW),  # besu
        ("OldNonce, Current nonce: 5, nonce of rejected tx: 4", SendRefusal.NONCE_TOO_LOW),
        ("replacement transaction underpriced", SendRefusal.REPLACEMENT_UNDERPRICED),
        ("Replacement transaction underpriced", SendRefusal.REPLACEMENT_UNDERPRICED),
        ("could not replace existing tx", SendRefusal.REPLACEMENT_UNDERPRICED),  # erigon
        ("ReplacementNotAllowed", SendRefusal.REPLACEMENT_UNDERPRICED),  # nethermind
        ("FeeTooLowToCompete", SendRefusal.REPLACEMENT_UNDERPRICED),  # nethermind
        ("max fee per gas less than block base fee", SendRefusal.BELOW_BASE_FEE),  # geth, anvil
        ("transaction underpriced", SendRefusal.BELOW_BASE_FEE),  # geth, reth
        ("fee cap less than block base fee", SendRefusal.BELOW_BASE_FEE),  # erigon
        ("Gas price below configured minimum gas price", SendRefusal.BELOW_BASE_FEE),  # besu
        ("gasPrice is less than the current BaseFee", SendRefusal.BELOW_BASE_FEE),  # besu
        ("FeeTooLow, MaxFeePerGas too low", SendRefusal.BELOW_BASE_FEE),  # nethermind
        ("insufficient funds for gas * price + value", SendRefusal.NO_FUNDS),  # geth, erigon
        ("Insufficient funds for gas * price + value", SendRefusal.NO_FUNDS),  # anvil
        ("Upfront cost exceeds account balance", SendRefusal.NO_FUNDS),  # besu
        ("InsufficientFunds, Account balance: 0", SendRefusal.NO_FUNDS),  # nethermind
        ("invalid sender", SendRefusal.UNKNOWN),
        ("txpool is full", SendRefusal.UNKNOWN),
    ],
)
def test_every_clients_refusal_has_one_name(message: str, refusal: SendRefusal) -> None:
    assert send_refusal(RpcError(-32000, message)) is refusal
