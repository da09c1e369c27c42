from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from aggregator.batches import Batches
from aggregator.ports import Progress
from aggregator.sweep import ORPHAN_BLOCKS, Sweeper, settled
from aligned.errors import StoreUnavailable
from aligned.model import BatchId, Entry
from tests.fakes.builders import a_batch_id, batch, block, entry

PROGRESS = Progress(height=10_000, finalized=9_936, oldest=5_000)


def kept() -> Batches:
    batches = Batches()
    batches.open(batch(1, at=9_000))
    return batches


def test_an_open_batch_stays() -> None:
    gone = settled(kept(), PROGRESS)
    assert gone.final == gone.expired == gone.orphans == ()


@pytest.mark.parametrize(
    ("answered", "final"),
    [pytest.param(9_936, True, id="final"), pytest.param(9_937, False, id="could-be-reorged")],
)
def test_an_answered_batch_goes_when_it_is_final(answered: int, final: bool) -> None:
    batches = kept()
    batches.answer(a_batch_id(1), block(answered))
    assert settled(batches, PROGRESS).final == ((a_batch_id(1),) if final else ())


@pytest.mark.parametrize(
    ("created", "expired"),
    [pytest.param(4_999, True, id="before"), pytest.param(5_000, False, id="within")],
)
def test_an_open_batch_older_than_the_window_is_given_up(created: int, expired: bool) -> None:
    batches = Batches()
    batches.open(batch(1, at=created))
    assert settled(batches, PROGRESS).expired == ((a_batch_id(1),) if expired else ())


@pytest.mark.parametrize(
    ("since", "goes"),
    [
        pytest.param(10_000 - ORPHAN_BLOCKS, True, id="waited-long-enough"),
        pytest.param(10_001 - ORPHAN_BLOCKS, False, id="not-yet"),
    ],
)
def test_signatures_without_a_batch_go_by_chain_progress(since: int, goes: bool) -> None:
    batches = Batches()
    batches.keep([entry(7)], height=since)
    assert settled(batches, PROGRESS).orphans == ((a_batch_id(7),) if goes else ())


def test_signatures_that_came_while_the_chain_was_away_age_from_the_first_head() -> None:
    batches = Batches()
    batches.keep([entry(7)], height=0)
    assert settled(batches, PROGRESS).orphans == ()
    batches.date_orphans(PROGRESS.height)
    later = Progress(height=PROGRESS.height + ORPHAN_BLOCKS, finalized=9_936, oldest=5_000)
    assert settled(batches, later).orphans == (a_batch_id(7),)


class Keeper:
    """A journal and a store in one; lets something happen while it forgets."""

    def __init__(self, *entries: Entry) -> None:
        self.entries = set(entries)
        self.meanwhile: Callable[[], None] = lambda: None
        self.takes = True
        """False: every ``put`` raises ``StoreUnavailable``."""

    async def forget(self, batches: Sequence[BatchId]) -> None:
        self.entries = {each for each in self.entries if each.batch_id not in batches}
        self.meanwhile()

    async def append(self, entries: Sequence[Entry], *, height: int) -> None:
        assert height == PROGRESS.height
        self.entries |= set(entries)

    async def put(self, entries: Sequence[Entry]) -> None:
        if not self.takes:
            raise StoreUnavailable("the fake store was told to be away")
        self.entries |= set(entries)


class Idle:
    async def next_progress(self) -> Progress:
        return PROGRESS


@pytest.mark.parametrize(
    ("event", "stays"),
    [
        pytest.param("nothing", set(), id="nothing"),
        pytest.param("signature", {entry(7, 1), entry(7, 2)}, id="another-signature-came"),
        pytest.param("opened", {entry(7, 1)}, id="it-appeared-on-chain"),
    ],
)
async def test_what_comes_alive_while_it_is_forgotten_is_kept(
    event: str, stays: set[Entry]
) -> None:
    batches = Batches()
    batches.keep([entry(7, 1)], height=1)
    journal, store = Keeper(entry(7, 1)), Keeper(entry(7, 1))

    def meanwhile() -> None:
        if event == "signature":
            batches.keep([entry(7, 2)], height=PROGRESS.height)
        elif event == "opened":
            batches.open(batch(7, at=PROGRESS.height))

    journal.meanwhile = meanwhile
    await Sweeper(batches, journal, store, Idle()).sweep(PROGRESS)
    state = batches.get(a_batch_id(7))
    held = {} if state is None else state.signatures
    assert {Entry(a_batch_id(7), *pair) for pair in held.items()} == stays
    assert journal.entries == store.entries == stays


async def test_what_comes_alive_is_on_this_disk_again_whatever_the_store_says() -> None:
    batches = Batches()
    old = {entry(number, 1) for number in (7, 8)}
    batches.keep(list(old), height=1)
    journal, store = Keeper(*old), Keeper(*old)
    new = {entry(number, 2) for number in (7, 8)}

    def meanwhile() -> None:
        batches.keep(list(new), height=PROGRESS.height)
        journal.entries |= new
        store.takes = False

    journal.meanwhile = meanwhile
    await Sweeper(batches, journal, store, Idle()).sweep(PROGRESS)
    assert journal.entries == old | new
