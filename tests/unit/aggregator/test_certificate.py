from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from aggregator import certificate
from aggregator.certificate import KeysMissing
from aligned.bls import choose
from aligned.bls.backend import Backend, Key
from aligned.bls.curve import negate_g1, sum_g1
from aligned.chain.calldata import Indices
from aligned.model import Batch, Entry, Operator, OperatorId, OperatorSet, Signature, Stake
from devnet.keys import keys
from tests.fakes.builders import batch, block, operator_id, signature

KEYS = sorted(keys(4), key=lambda key: key.operator_id)
BATCH = batch(1)


@dataclass
class Known:
    operator: Operator
    key: Key


@dataclass
class World:
    backend: Backend = field(default_factory=lambda: choose.choose("auto"))
    known: dict[OperatorId, Known] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key in KEYS:
            operator = Operator(
                operator_id=key.operator_id, address=key.address, g1=key.g1, g2=key.g2
            )
            self.known[key.operator_id] = Known(operator, self.backend.key(key.g2))


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    world = World()
    yield world
    world.backend.close()


def members() -> OperatorSet:
    stakes = {key.operator_id: Stake(100) for key in reversed(KEYS)}
    return OperatorSet(block=block(1), stakes=stakes, total=Stake(400))


def signed(*numbers: int) -> dict[OperatorId, Signature]:
    return {KEYS[n].operator_id: KEYS[n].sign(BATCH.batch_id) for n in numbers}


def test_everybody_in_it_holds(world: World) -> None:
    proof = certificate.assemble(
        BATCH, members(), signed(0, 1, 2, 3), world.known.get, world.backend
    )
    assert proof.non_signers == ()
    assert proof.quorum_apk == proof.signers_apk_g1
    assert certificate.holds(proof, world.backend)


def test_who_is_missing_comes_ascending_with_keys_in_that_order(world: World) -> None:
    proof = certificate.assemble(BATCH, members(), signed(3, 1), world.known.get, world.backend)
    assert proof.non_signers == (KEYS[0].operator_id, KEYS[2].operator_id)
    assert proof.non_signer_keys == (KEYS[0].g1, KEYS[2].g1)
    assert proof.quorum_apk == sum_g1(key.g1 for key in KEYS)
    assert proof.signers_apk_g1 == sum_g1((KEYS[1].g1, KEYS[3].g1))
    assert certificate.holds(proof, world.backend)


def test_strangers_signatures_are_left_out(world: World) -> None:
    held = signed(0, 1, 2) | {operator_id(9): signature(1, 9)}
    proof = certificate.assemble(BATCH, members(), held, world.known.get, world.backend)
    assert certificate.holds(proof, world.backend)


def test_a_member_whose_key_is_unknown_is_named(world: World) -> None:
    known = {k: v for k, v in world.known.items() if k != KEYS[1].operator_id}
    with pytest.raises(KeysMissing, match=KEYS[1].operator_id.hex()) as missing:
        certificate.assemble(BATCH, members(), signed(0, 2, 3), known.get, world.backend)
    assert missing.value.members == (KEYS[1].operator_id,)


def test_without_a_signature_there_is_none(world: World) -> None:
    with pytest.raises(ValueError, match="no member"):
        certificate.assemble(BATCH, members(), {}, world.known.get, world.backend)


def test_bad_ones_fail_the_check_and_are_found(world: World) -> None:
    other: Batch = batch(2)
    bad = KEYS[2].sign(other.batch_id)
    held = signed(0, 1, 3) | {KEYS[2].operator_id: bad}
    proof = certificate.assemble(BATCH, members(), held, world.known.get, world.backend)
    assert not certificate.holds(proof, world.backend)
    found = certificate.find_bad(BATCH, members(), held, world.known.get, world.backend)
    assert found == [Entry(BATCH.batch_id, KEYS[2].operator_id, bad)]


def test_halves_that_only_verify_together_are_both_found(world: World) -> None:
    # plus and minus the same point cancel out in the sum
    one, two = signed(0, 1).values()
    shift = KEYS[3].sign(BATCH.batch_id)
    from_one = Signature(sum_g1((one, shift)))
    from_two = Signature(sum_g1((two, _negated(shift))))
    held = signed(2, 3) | {KEYS[0].operator_id: from_one, KEYS[1].operator_id: from_two}
    found = certificate.find_bad(BATCH, members(), held, world.known.get, world.backend)
    assert {entry.operator_id for entry in found} == {KEYS[0].operator_id, KEYS[1].operator_id}


def _negated(point: Signature) -> Signature:
    return Signature(negate_g1(point))


def test_indices_of_those_who_signed_meanwhile_are_taken_out() -> None:
    asked = (operator_id(1), operator_id(2), operator_id(3))
    indices = Indices(
        non_signer_bitmap=(1, 2, 3),
        quorum_apk=(7,),
        total_stake=(8,),
        non_signer_stake=((4, 5, 6),),
    )
    assert certificate.without(indices, asked, (operator_id(1), operator_id(3))) == Indices(
        non_signer_bitmap=(1, 3),
        quorum_apk=(7,),
        total_stake=(8,),
        non_signer_stake=((4, 6),),
    )
