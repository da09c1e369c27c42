"""Selectors, topics and types of the contracts, as constants.

``web3``'s contract layer takes ten times as long for a large answer and would hold the event loop,
so call data goes through ``eth_abi`` with the types written out here.

Points are typed ``bytes32`` where the contracts say ``uint256``: the words are the same, and keys
need no detour through integers.

Source: ``AlignedLayerServiceManager``, ``OperatorStateRetriever``, ``BLSApkRegistry``,
``RegistryCoordinator`` and ``StakeRegistry`` as Aligned deploys them.
"""

from __future__ import annotations

from typing import Final

POINT: Final = "(bytes32,bytes32)"
G2_WORDS: Final = "(bytes32[2],bytes32[2])"
CERTIFICATE: Final = (
    f"(uint32[],{POINT}[],{POINT}[],{G2_WORDS},{POINT},uint32[],uint32[],uint32[][])"
)
"""``NonSignerStakesAndSignature``."""

# AlignedLayerServiceManager
BATCHES_STATE: Final = bytes.fromhex("b099627e")
BATCHERS_BALANCES: Final = bytes.fromhex("f474b520")
ALIGNED_AGGREGATOR: Final = bytes.fromhex("4a5bf632")
RESPOND_TO_TASK_V2: Final = bytes.fromhex("ab21739a")

# OperatorStateRetriever
GET_OPERATOR_STATE: Final = bytes.fromhex("3563b0d1")
GET_CHECK_SIGNATURES_INDICES: Final = bytes.fromhex("4f739f74")

# RegistryCoordinator
BLS_APK_REGISTRY: Final = bytes.fromhex("5df45946")
STAKE_REGISTRY: Final = bytes.fromhex("68304835")

# BLSApkRegistry
GET_OPERATOR_FROM_PUBKEY_HASH: Final = bytes.fromhex("47b314e8")

# StakeRegistry
GET_TOTAL_STAKE_INDICES: Final = bytes.fromhex("81c07502")
GET_TOTAL_STAKE: Final = bytes.fromhex("c8294c56")

NEW_BATCH_V3: Final = bytes.fromhex(
    "8801fc966deb2c8f563a103c35c9e80740585c292cd97518587e6e7927e6af55"
)
BATCH_VERIFIED: Final = bytes.fromhex(
    "8511746b73275e06971968773119b9601fc501d7bdf3824d8754042d148940e2"
)
NEW_PUBKEY_REGISTRATION: Final = bytes.fromhex(
    "e3fb6613af2e8930cf85d47fcf6db10192224a64c6cbe8023e0eee1ba3828041"
)

QUORUM_NUMBERS: Final = b"\x00"
"""Quorum 0 as the ``bytes`` argument of the readers."""
