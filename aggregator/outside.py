"""What the settings say of the outside, as objects: endpoints, signer, rules for transactions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aggregator.chain.fees import Policy
from aggregator.chain.keystore import KeystoreSigner as Keystore
from aggregator.chain.plan import Rules
from aggregator.chain.transactor import Terms
from aggregator.chain.web3signer import RemoteSigner
from aggregator.settings import KeystoreSigner, Mode
from aligned.chain.endpoints import Endpoints, Limits, Source
from aligned.model import Address, Wei

if TYPE_CHECKING:
    from aggregator.chain.signer import Signer
    from aggregator.settings import Settings


def endpoints(settings: Settings) -> Endpoints:
    """Return the configured endpoints; nothing is connected yet."""
    chain = settings.chain
    sources = [
        Source(name=each.name, url=each.url, url_file=each.url_file) for each in chain.endpoints
    ]
    limits = Limits(chain.request_timeout, chain.max_head_age)
    return Endpoints(sources, settings.network.chain_id, limits=limits)


def signer(settings: Settings) -> Signer | None:
    """Return what signs; None for an observer. A remote one is to be entered."""
    if settings.submission.mode is Mode.OBSERVE or settings.signer is None:
        return None
    if isinstance(settings.signer, KeystoreSigner):
        return Keystore(settings.signer.file, settings.signer.password_file)
    return RemoteSigner(settings.signer)


def terms(settings: Settings) -> Terms:
    """Return what stays the same for the transactor."""
    submission = settings.submission
    fee, tip = submission.max_fee_per_gas, submission.max_priority_fee_per_gas
    policy = Policy(
        None if fee is None else Wei(fee),
        None if tip is None else Wei(tip),
        submission.bump_percent,
    )
    return Terms(
        chain_id=settings.network.chain_id,
        contract=Address(settings.network.contracts.service_manager),
        rules=Rules(policy=policy, resubmit_after=submission.resubmit_after),
        max_in_flight=submission.max_in_flight,
    )
