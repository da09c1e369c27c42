"""Pure: the deployments of Aligned that have a name.

Source: addresses and block as Aligned publishes them in its deployment files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from controller.api.spec import Contracts, Preset
from controller.errors import InvalidSpec

if TYPE_CHECKING:
    from controller.api.spec import AggregatorSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """One deployment of Aligned."""

    chain_id: int
    contracts: Contracts
    deployment_block: int
    """Of the service manager: where scans begin."""


PRESETS = {
    Preset.MAINNET: Deployment(
        chain_id=1,
        contracts=Contracts(
            service_manager="0xeF2A435e5EE44B2041100EF8cbC8ae035166606c",
            registry_coordinator="0xA8CC0749b4409c3c47012323E625aEcBA92f64b9",
            operator_state_retriever="0x6e0046205cAfA503F6b7465195A6C63C47d214f1",
        ),
        deployment_block=21289146,
    ),
    Preset.DEVNET: Deployment(
        chain_id=31337,
        contracts=Contracts(
            service_manager="0x1613beB3B2C4f22Ee086B2b38C1476A3cE7f78E8",
            registry_coordinator="0x851356ae760d987E095750cCeb3bC6014560891C",
            operator_state_retriever="0xb7278A61aa25c888815aFC32Ad3cC52fF24fE575",
        ),
        deployment_block=0,
    ),
}


def resolve(spec: AggregatorSpec) -> Deployment:
    """Return the deployment that a spec names or describes.

    Raises:
        InvalidSpec: It does neither.
    """
    network, block = spec.network, spec.chain.deployment_block
    if network.preset is not None:
        preset = PRESETS[network.preset]
        chain_id, contracts = preset.chain_id, preset.contracts
        block = preset.deployment_block if block is None else block
    elif network.chain_id is not None and network.contracts is not None:
        chain_id, contracts = network.chain_id, network.contracts
    else:
        raise InvalidSpec(("spec.network: write either preset, or chainId and contracts",))
    return Deployment(chain_id=chain_id, contracts=contracts, deployment_block=block or 0)
