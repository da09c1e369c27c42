from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pytest

from aggregator.parking import CannotSend, Reason
from aggregator.prove import BadAggregate, Prover
from aligned.bls.backend import Backend, Group, Runs
from aligned.model import Entry, OperatorId
from tests.unit.aggregator.test_certificate import BATCH, KEYS, World, members, signed


class Watched:
    """A backend that remembers where it ran; while ``blind`` it finds no bad signature."""

    name = "watched"

    def __init__(self, backend: Backend, runs: Runs = Runs.THREAD) -> None:
        self.runs = runs
        self.threads: set[int] = set()
        self.blind = False
        self._backend = backend
        self.key = backend.key
        self.hash_to_g1 = backend.hash_to_g1
        self.sum_keys = backend.sum_keys
        self.certifies = backend.certifies
        self.close = backend.close

    def bad_signatures(self, groups: Sequence[Group]) -> list[list[int]]:
        self.threads.add(threading.get_ident())
        return [[] for _ in groups] if self.blind else self._backend.bad_signatures(groups)


def _nobody(missed: Sequence[OperatorId]) -> None:
    assert missed == ()


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    world = World()
    yield world
    world.backend.close()


@pytest.fixture
def backend(world: World) -> Watched:
    return Watched(world.backend)


@pytest.fixture
def prover(world: World, backend: Watched) -> Prover:
    return Prover(world.known.get, backend, _nobody)


async def test_good_signatures_make_a_certificate(prover: Prover) -> None:
    proof = await prover.certify(BATCH, members(), signed(0, 1, 2))
    assert proof.non_signers == (KEYS[3].operator_id,)


async def test_bad_ones_are_told_from_good_ones(
    prover: Prover, caplog: pytest.LogCaptureFixture
) -> None:
    bad = KEYS[1].sign(bytes(32))
    held = signed(0, 2, 3) | {KEYS[1].operator_id: bad}
    with pytest.raises(BadAggregate):
        await prover.certify(BATCH, members(), held)
    found = await prover.find_bad(BATCH, members(), held)
    assert found == [Entry(BATCH.batch_id, KEYS[1].operator_id, bad)]
    assert "evicted" in caplog.text


async def test_a_bad_sum_of_good_ones_blames_the_keys(prover: Prover, backend: Watched) -> None:
    backend.blind = True
    with pytest.raises(CannotSend, match="belong together") as refused:
        await prover.find_bad(BATCH, members(), signed(0, 1, 2))
    assert refused.value.reason is Reason.NO_QUORUM_DATA


async def test_an_unknown_key_is_named_and_missed(world: World, backend: Watched) -> None:
    some = dict(world.known)
    del some[KEYS[2].operator_id]
    missed: list[OperatorId] = []
    prover = Prover(some.get, backend, missed.extend)
    with pytest.raises(CannotSend, match=KEYS[2].operator_id.hex()) as refused:
        await prover.certify(BATCH, members(), signed(0, 1, 3))
    assert refused.value.reason is Reason.NO_QUORUM_DATA
    assert missed == [KEYS[2].operator_id]


@pytest.mark.parametrize(
    ("where", "in_loop"),
    [
        pytest.param(Runs.LOOP, True, id="what-holds-the-interpreter-runs-in-the-loop"),
        pytest.param(Runs.THREAD, False, id="what-releases-it-runs-on-a-thread"),
        pytest.param(Runs.PROCESS, False, id="what-waits-for-processes-runs-on-a-thread"),
    ],
)
async def test_the_arithmetic_runs_where_it_belongs(
    world: World, where: Runs, in_loop: bool
) -> None:
    backend = Watched(world.backend, where)
    bad = {KEYS[2].operator_id: KEYS[2].sign(bytes(32))}
    await Prover(world.known.get, backend, _nobody).find_bad(BATCH, members(), signed(0, 1) | bad)
    assert (backend.threads == {threading.get_ident()}) is in_loop
