from __future__ import annotations

import json
import re

import pytest

from devnet.contracts import artifacts
from devnet.node import install

# Selectors of the real contracts that readers of Aligned's chain state call.
_REAL = {
    "registry": {
        "blsApkRegistry()": "5df45946",
        "stakeRegistry()": "68304835",
        "indexRegistry()": "9e9923c2",
        "serviceManager()": "3998fdd3",
        "quorumCount()": "9aa1653d",
        "getOperatorFromId(bytes32)": "296bb064",
        "getOperatorId(address)": "13542a4e",
        "getOperatorStatus(address)": "fd39105a",
        "getCurrentQuorumBitmap(bytes32)": "871ef049",
        "getQuorumBitmapIndicesAtBlockNumber(uint32,bytes32[])": "c391425e",
        "getQuorumBitmapAtBlockNumberByIndex(bytes32,uint32,uint256)": "04ec6351",
        "getApk(uint8)": "5f61a884",
        "getApkIndicesAtBlockNumber(bytes,uint256)": "d5254a8c",
        "getApkHashAtBlockNumberAndIndex(uint8,uint32,uint256)": "68bccaac",
        "getRegisteredPubkey(address)": "7ff81a87",
        "getOperatorFromPubkeyHash(bytes32)": "47b314e8",
        "pubkeyHashToOperator(bytes32)": "e8bb9ae6",
        "getStakeAtBlockNumber(bytes32,uint8,uint32)": "fa28c627",
        "getStakeAtBlockNumberAndIndex(uint8,uint32,bytes32,uint256)": "f2be94ae",
        "getTotalStakeAtBlockNumberFromIndex(uint8,uint32,uint256)": "c8294c56",
        "getTotalStakeIndicesAtBlockNumber(uint32,bytes)": "81c07502",
        "getStakeUpdateIndexAtBlockNumber(bytes32,uint8,uint32)": "dd9846b9",
        "getCurrentTotalStake(uint8)": "d5eccc05",
        "getCurrentStake(bytes32,uint8)": "5401ed27",
        "getOperatorListAtBlockNumber(uint8,uint32)": "89026245",
    },
    "retriever": {
        "getOperatorState(address,bytes,uint32)": "3563b0d1",
        "getCheckSignaturesIndices(address,uint32,bytes,bytes32[])": "4f739f74",
    },
    "service_manager": {
        "batchesState(bytes32)": "b099627e",
        "batchersBalances(address)": "f474b520",
        "balanceOf(address)": "70a08231",
        "alignedAggregator()": "4a5bf632",
        "createNewTask(bytes32,string,uint256)": "d66eaabd",
        "trySignatureAndApkVerification(bytes32,(uint256,uint256),(uint256[2],uint256[2])"
        ",(uint256,uint256))": "171f1d5b",
        "staleStakesForbidden()": "b98d0908",
        "registryCoordinator()": "6d14a987",
        "blsApkRegistry()": "5df45946",
        "stakeRegistry()": "68304835",
        "owner()": "8da5cb5b",
        "setAggregator(address)": "f9120af6",
        "disabledVerifiers()": "ea5ca34b",
    },
}
_BY_NAME = {"respondToTaskV2": "ab21739a", "checkSignatures": "4ae07c37"}


@pytest.mark.parametrize("contract", _REAL)
def test_functions_have_the_selectors_of_the_real_contracts(contract: str) -> None:
    have = getattr(artifacts.load(), contract).selectors
    assert {name: have[name].hex() for name in _REAL[contract]} == _REAL[contract]


@pytest.mark.parametrize(("name", "selector"), _BY_NAME.items())
def test_functions_that_take_a_certificate_have_the_real_selectors(
    name: str, selector: str
) -> None:
    have = artifacts.load().service_manager.selectors
    assert [value.hex() for key, value in have.items() if key.startswith(f"{name}(")] == [selector]


def test_the_lock_has_the_chain_for_every_platform_and_names_no_registry() -> None:
    text = (install.FOLDER / "package-lock.json").read_text()
    packages = json.loads(text)["packages"]
    anvil = packages["node_modules/@foundry-rs/anvil"]["optionalDependencies"]
    assert {f"node_modules/{name}" for name in anvil} <= packages.keys()
    assert not re.search(r'"resolved"|https?://\S*registr', text)
