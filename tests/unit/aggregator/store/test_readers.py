from __future__ import annotations

from aggregator.store.readers import Readers


def test_nobody_heard_of_agrees_on_nothing() -> None:
    assert Readers(0.0).agreed(now=100.0) == 0


def test_a_format_counts_when_all_have_read_it_for_long_enough() -> None:
    readers = Readers(10.0)
    for now in (100.0, 105.0, 109.9):
        readers.see(2, "a", now=now)
        assert readers.agreed(now=now) == 0
    assert readers.agreed(now=110.0) == 2


def test_a_replica_of_an_older_release_that_is_heard_again_begins_it_anew() -> None:
    readers = Readers(10.0)
    readers.see(2, "a", now=100.0)
    readers.see(1, "a", now=109.0)
    assert readers.agreed(now=111.0) == 0
    readers.see(2, "a", now=112.0)
    assert readers.agreed(now=121.0) == 0
    assert readers.agreed(now=122.0) == 2


def test_a_primary_that_may_have_forgotten_who_lives_begins_it_anew() -> None:
    readers = Readers(10.0)
    readers.see(2, "a", now=100.0)
    readers.see(2, "b", now=111.0)
    assert readers.agreed(now=111.0) == 0
    assert readers.agreed(now=121.0) == 2
