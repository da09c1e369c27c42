"""From signatures to what proves a batch. Pure, given the arithmetic."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aligned.bls.backend import Group
from aligned.bls.curve import sum_g1
from aligned.chain.calldata import Certificate, Indices
from aligned.errors import AlignedError
from aligned.model import Entry, G1Point, Signature

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aggregator.ports import KnownOperator
    from aligned.bls.backend import Backend
    from aligned.model import Batch, OperatorId, OperatorSet


class KeysMissing(AlignedError):
    """Members of the quorum whose registration was not seen, so that no sum is right."""

    def __init__(self, members: tuple[OperatorId, ...]) -> None:
        names = ", ".join(member.hex() for member in members)
        super().__init__(f"the keys of {len(members)} members are not known: {names}")
        self.members = members


def assemble(
    batch: Batch,
    operators: OperatorSet,
    signatures: Mapping[OperatorId, Signature],
    operator: Callable[[OperatorId], KnownOperator | None],
    backend: Backend,
) -> Certificate:
    """Return the certificate of everybody in ``operators`` who signed.

    Args:
        batch: What is answered.
        operators: Quorum 0 at the batch's block.
        signatures: Verified ones; those of others than members count nothing.
        operator: Looks up keys.
        backend: Sums keys in G2.

    Raises:
        KeysMissing: A member's key is not known.
        ValueError: No member signed.

    Source:
        eigenlayer-middleware, ``BLSSignatureChecker.checkSignatures``: all members' key, the
        non-signers' keys ascending by id as a number, the signers' key in G2.
    """
    members = sorted(operators.stakes)  # as bytes of equal length: the order of numbers
    known = {member: operator(member) for member in members}
    missing = tuple(member for member, found in known.items() if found is None)
    if missing:
        raise KeysMissing(missing)
    found = {member: entry for member, entry in known.items() if entry is not None}
    signers = [member for member in members if member in signatures]
    if not signers:
        msg = "no member signed"
        raise ValueError(msg)
    non_signers = tuple(absent(operators, signatures))
    return Certificate(
        merkle_root=batch.merkle_root,
        sender=batch.sender,
        batch_id=batch.batch_id,
        created=batch.created,
        non_signers=non_signers,
        non_signer_keys=tuple(found[member].operator.g1 for member in non_signers),
        quorum_apk=sum_g1(entry.operator.g1 for entry in found.values()),
        signers_apk_g1=sum_g1(found[member].operator.g1 for member in signers),
        apk_g2=backend.sum_keys([found[member].key for member in signers]),
        sigma=Signature(sum_g1(G1Point(signatures[member]) for member in signers)),
    )


def absent(operators: OperatorSet, signatures: Mapping[OperatorId, Signature]) -> list[OperatorId]:
    """Return the members that did not sign, ascending."""
    return [member for member in sorted(operators.stakes) if member not in signatures]


def holds(certificate: Certificate, backend: Backend) -> bool:
    """Run the contract's own check of the aggregate."""
    return backend.certifies(
        certificate.batch_id,
        certificate.signers_apk_g1,
        certificate.apk_g2,
        certificate.sigma,
    )


def find_bad(
    batch: Batch,
    operators: OperatorSet,
    signatures: Mapping[OperatorId, Signature],
    operator: Callable[[OperatorId], KnownOperator | None],
    backend: Backend,
) -> list[Entry]:
    """Check every member's signature alone and return those that do not verify."""
    signers = [member for member in sorted(operators.stakes) if member in signatures]
    found = [(member, operator(member)) for member in signers]
    known = [(member, entry.key) for member, entry in found if entry is not None]
    group = Group(
        message=backend.hash_to_g1(batch.batch_id),
        signatures=[signatures[member] for member, _ in known],
        keys=[key for _, key in known],
    )
    (bad,) = backend.bad_signatures([group])
    return [Entry(batch.batch_id, known[index][0], signatures[known[index][0]]) for index in bad]


def without(
    indices: Indices, non_signers: tuple[OperatorId, ...], remaining: tuple[OperatorId, ...]
) -> Indices:
    """Return ``indices``, asked for with ``non_signers``, for those of them that remain.

    Who signed while the chain was asked needs no second question.
    """
    kept = [at for at, member in enumerate(non_signers) if member in set(remaining)]
    (stakes,) = indices.non_signer_stake
    return Indices(
        non_signer_bitmap=tuple(indices.non_signer_bitmap[at] for at in kept),
        quorum_apk=indices.quorum_apk,
        total_stake=indices.total_stake,
        non_signer_stake=(tuple(stakes[at] for at in kept),),
    )
