"""What has to be settled before the stages run: which deployment, and its state on disk."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aggregator.journal import opening, reading
from aggregator.journal.journal import Journal
from aligned.chain.deployment import Behind, Contracts, identify, resolve
from aligned.errors import ChainUnavailable, StateDamaged, StateMismatch
from aligned.model import Address

if TYPE_CHECKING:
    from pathlib import Path

    from aggregator.journal.reading import Loaded
    from aggregator.settings import Settings
    from aligned.chain.rpc import Rpc
    from aligned.model import Identity

logger = logging.getLogger(__name__)

RETRY_SECONDS = 2.0
_REGISTRIES = "registries"
"""Hint: address of the BLS key registry ‖ address of the stake registry, 40 bytes."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """Which deployment this process serves."""

    identity: Identity
    contracts: Contracts
    is_confirmed: bool
    """False: the chain is away, and an earlier run's word is taken for now."""


@dataclass(frozen=True, slots=True)
class State:
    """What is known at the start."""

    deployment: Deployment
    journal: Journal
    loaded: Loaded


async def recover(settings: Settings, rpc: Rpc) -> State:
    """Open the journal of the configured deployment.

    Waits for the chain only if no journal tells what it must be: a restart takes signatures
    again while every endpoint is down. Where replicas share a store, a journal that cannot be
    read is set aside: everything in it is there as well. A disk that is full or fails is no reason
    to: what is on it can be read once there is room, or the disk is back.

    Raises:
        BadConfiguration: Addresses, endpoints or the journal's place cannot be used.
        DiskRefused: The journal's disk is full or fails.
        StateDamaged: The journal cannot be read, and nobody else has its content.
        StateMismatch: It belongs to another deployment.
    """
    path = settings.journal.path
    try:
        state = await _replayed(settings, rpc)
    except StateDamaged as damaged:
        if settings.redis is None:
            raise
        aside = await asyncio.to_thread(opening.set_aside, path)
        logger.error(  # noqa: TRY400 - the text says all
            "the journal is damaged and was set aside: this replica begins with an empty one and "
            "gets its content from Redis and its peers. Check the disk; keep the file until every "
            "batch is answered",
            extra={"path": str(path), "aside": str(aside), "reason": str(damaged)},
        )
        state = await _replayed(settings, rpc)
    contracts = state.deployment.contracts
    registries = contracts.bls_apk_registry + contracts.stake_registry
    try:
        await state.journal.save_hint(_REGISTRIES, registries)
    except BaseException:
        state.journal.close()
        raise
    return state


async def _replayed(settings: Settings, rpc: Rpc) -> State:
    deployment = await _deployment(settings, rpc)
    path = settings.journal.path
    journal = await asyncio.to_thread(Journal.open, path, deployment.identity)
    try:
        loaded = await asyncio.to_thread(journal.load)
    except BaseException:
        journal.close()
        raise
    logger.info(
        "journal replayed",
        extra={
            "path": str(path),
            "signatures": sum(map(len, loaded.entries.values())),
            "transactions": len(loaded.outbox),
            "operators": len(loaded.operators),
        },
    )
    return State(deployment, journal, loaded)


async def _deployment(settings: Settings, rpc: Rpc) -> Deployment:
    waited = False
    while True:
        try:
            return await _on_chain(settings, rpc)
        except ChainUnavailable as away:
            remembered = await asyncio.to_thread(_remembered, settings)
            if remembered is not None:
                logger.warning(
                    "chain away at the start: signatures are taken with what the journal knows, "
                    "nothing is answered until an endpoint is back. Look at the "
                    "endpoints, whether their nodes are in sync, and their keys",
                    extra={"reason": str(away)},
                )
                return remembered
            if not waited:
                logger.warning(
                    "chain away at the first start: waiting for an endpoint. Look at the "
                    "endpoints, whether their nodes are in sync, and their keys",
                    extra={"reason": str(away)},
                )
            waited = True
        await asyncio.sleep(RETRY_SECONDS)


async def _on_chain(settings: Settings, rpc: Rpc) -> Deployment:
    configured = settings.network.contracts
    service_manager = Address(configured.service_manager)
    contracts = await resolve(
        rpc,
        service_manager=service_manager,
        registry_coordinator=Address(configured.registry_coordinator),
        operator_state_retriever=Address(configured.operator_state_retriever),
        deployment_block=settings.chain.deployment_block,
    )
    identity = await identify(rpc, service_manager, settings.chain.deployment_block)
    return Deployment(identity, contracts, is_confirmed=True)


def _remembered(settings: Settings) -> Deployment | None:
    path: Path = settings.journal.path
    if not path.exists() or path.stat().st_size == 0:
        return None
    with opening.read_only(path) as connection:
        if reading.read_meta(connection, "identity") is None:
            return None
        identity = reading.read_identity(connection)
        registries = reading.load(connection).hints.get(_REGISTRIES)
    configured = settings.network
    if (
        registries is None
        or identity.chain_id != configured.chain_id
        or identity.service_manager != configured.contracts.service_manager
    ):
        return None
    contracts = Contracts(
        service_manager=identity.service_manager,
        registry_coordinator=Address(configured.contracts.registry_coordinator),
        operator_state_retriever=Address(configured.contracts.operator_state_retriever),
        bls_apk_registry=Address(registries[:20]),
        stake_registry=Address(registries[20:]),
    )
    return Deployment(identity, contracts, is_confirmed=False)


async def confirm(settings: Settings, rpc: Rpc, deployment: Deployment) -> None:
    """Return once the chain has confirmed what the journal remembered.

    An endpoint that is still syncing confirms and contradicts nothing.

    Raises:
        BadConfiguration: The addresses are wrong on this chain.
        StateMismatch: The journal is another deployment's.
    """
    if deployment.is_confirmed:
        return
    told = False
    while True:
        try:
            found = await _on_chain(settings, rpc)
        except ChainUnavailable as away:
            if isinstance(away, Behind) and not told:
                logger.warning(
                    "the endpoint that is back cannot confirm the deployment yet: signatures are "
                    "taken on, nothing is answered. See the reason, then the endpoints",
                    extra={"reason": str(away)},
                )
                told = True
            await asyncio.sleep(RETRY_SECONDS)
            continue
        if found.identity != deployment.identity:
            msg = (
                f"journal {settings.journal.path} belongs to another deployment than the chain "
                "that is now reachable. Point chain.endpoints at the right chain, or set "
                "journal.path to a new file"
            )
            raise StateMismatch(msg)
        logger.info("the chain confirms the journal's deployment")
        return
