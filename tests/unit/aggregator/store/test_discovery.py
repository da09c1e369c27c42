from __future__ import annotations

import pytest

from aggregator.store.connection import Address, Reply
from aggregator.store.discovery import configuration, newest
from aligned.errors import StoreUnavailable

OLD, NEW = Address("10.0.0.1", 6379), Address("10.0.0.2", 6379)
MASTER: Reply = [b"name", b"aligned", b"ip", b"10.0.0.1", b"port", b"6379", b"config-epoch", b"7"]


def test_a_sentinel_that_carries_a_failover_out_names_the_promoted_server() -> None:
    assert configuration(MASTER, [b"10.0.0.2", b"6379"]) == (7, NEW)


@pytest.mark.parametrize(
    ("master", "address"),
    [
        (MASTER, None),
        (MASTER, [b"10.0.0.2"]),
        (MASTER, [b"10.0.0.2", b"none"]),
        ([b"name", b"aligned"], [b"10.0.0.2", b"6379"]),
        (None, [b"10.0.0.2", b"6379"]),
    ],
)
def test_an_answer_without_address_or_epoch_is_none(master: Reply, address: Reply) -> None:
    with pytest.raises(StoreUnavailable, match="no address"):
        configuration(master, address)


def test_the_newest_configuration_counts_and_among_equals_the_most_named_one() -> None:
    assert newest([(6, OLD), (6, OLD), (7, NEW)]) == NEW
    assert newest([(7, OLD), (7, NEW), (7, NEW)]) == NEW
