"""The deployment JSON of aligned_layer, and the deployments that are known without it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aggregator.units import parse_address

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Known:
    """A public deployment."""

    name: str
    chain_id: int
    deployment_block: int


KNOWN = {
    "0xef2a435e5ee44b2041100ef8cbc8ae035166606c": Known("mainnet", 1, 21289146),
    "0x58f280bebe9b34c9939c3c39e0890c81f163b623": Known("holesky", 17000, 1628199),
    "0x1613beb3b2c4f22ee086b2b38c1476a3ce7f78e8": Known("devnet", 31337, 0),
}
"""By service manager. Source: the deployment files of aligned_layer."""

_NAMES = {
    "service_manager": "alignedLayerServiceManager",
    "registry_coordinator": "registryCoordinator",
    "operator_state_retriever": "operatorStateRetriever",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """What the file says."""

    contracts: dict[str, str]
    """Addresses by our key, as written in the file."""
    chain_id: int | None
    deployment_block: int | None
    known: Known | None


def read(path: Path, key: str) -> tuple[Deployment, list[str]]:
    """Return the deployment at ``path`` and what is wrong with it.

    Args:
        path: The JSON file.
        key: That named it, for problems.
    """
    empty = Deployment(contracts={}, chain_id=None, deployment_block=None, known=None)
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        return empty, [f"{key}: {path} cannot be read: {error.strerror}"]
    except ValueError:
        return empty, [f"{key}: {path} is not JSON"]
    if not isinstance(content, dict) or not isinstance(content.get("addresses"), dict):
        return empty, [f"{key}: {path} is not a deployment file of aligned_layer: no addresses"]
    contracts, problems = _contracts(content["addresses"], key)
    chain = content.get("chainInfo")
    chain = chain if isinstance(chain, dict) else {}
    known = KNOWN.get(contracts.get("service_manager", "").lower())
    block = _natural(chain.get("deploymentBlock"))
    deployment = Deployment(
        contracts=contracts,
        chain_id=_natural(chain.get("chainId")) or (known.chain_id if known else None),
        deployment_block=block if block or known is None else known.deployment_block,
        known=known,
    )
    return deployment, problems


def _contracts(addresses: dict[str, object], key: str) -> tuple[dict[str, str], list[str]]:
    contracts, problems = {}, []
    for ours, theirs in _NAMES.items():
        try:
            parse_address(addresses.get(theirs))
        except ValueError as error:
            problems.append(f"{key}: addresses.{theirs}: {error}")
        else:
            contracts[ours] = str(addresses[theirs])
    return contracts, problems


def _natural(value: object) -> int | None:
    """Return a number that may be written as text."""
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
