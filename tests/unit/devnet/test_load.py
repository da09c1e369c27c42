from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import pytest

from aligned.model import Address, Response
from devnet import misbehave
from devnet.keys import keys
from devnet.load import Prepared, Report, closed_loop, open_loop, prepare
from devnet.operator import Seen

if TYPE_CHECKING:
    from collections import deque

_BATCHES = [Seen(bytes([number]) * 32, Address(b"\x08" * 20)) for number in range(5)]


class Aggregator(Protocol):
    script: deque[str]
    got: list[Response]
    dials: int
    port: int

    def stop(self) -> None: ...


@pytest.fixture
def prepared() -> list[Prepared]:
    return prepare(keys(3), _BATCHES)


async def test_every_operator_sends_every_batch_signed(
    aggregator: Aggregator, prepared: list[Prepared]
) -> None:
    report = await closed_loop(prepared, "127.0.0.1", aggregator.port)
    expected = {misbehave.honest(key, seen) for key in keys(3) for seen in _BATCHES}
    assert set(aggregator.got) == expected
    assert len(aggregator.got) == len(expected) == report.accepted == report.sent
    assert aggregator.dials == 3


async def test_an_open_loop_sends_everything_too(
    aggregator: Aggregator, prepared: list[Prepared]
) -> None:
    report = await open_loop(prepared, "127.0.0.1", aggregator.port, rate=10_000)
    assert (report.sent, report.accepted, len(report.latencies)) == (15, 15, 15)


async def test_an_open_loop_does_not_wait_for_replies(
    aggregator: Aggregator, prepared: list[Prepared]
) -> None:
    aggregator.script.extend(["silence"] * 14)
    report = await open_loop(prepared, "127.0.0.1", aggregator.port, rate=10_000, seconds=0.5)
    assert (report.sent, report.accepted) == (15, 1)


@pytest.mark.parametrize("place", [0, 1, 7, 14])
@pytest.mark.parametrize(
    ("step", "counts"),
    [
        pytest.param("1", (14, 1, 0), id="refused"),
        pytest.param("error", (14, 0, 1), id="error"),
    ],
)
async def test_replies_are_told_apart(
    aggregator: Aggregator,
    prepared: list[Prepared],
    place: int,
    step: str,
    counts: tuple[int, int, int],
) -> None:
    aggregator.script.extend(["0"] * place + [step])
    report = await closed_loop(prepared, "127.0.0.1", aggregator.port)
    assert (report.accepted, report.refused, report.errors) == counts
    assert (report.replies, report.lost) == (15, 0)


async def test_what_a_lost_connection_had_open_is_lost(
    aggregator: Aggregator, prepared: list[Prepared]
) -> None:
    aggregator.script.extend(["0"] * 4 + ["close"])
    report = await closed_loop(prepared, "127.0.0.1", aggregator.port)
    assert report.lost == 1
    assert report.sent == report.accepted + 1
    assert report.sent < 15


async def test_time_ends_a_closed_loop(aggregator: Aggregator, prepared: list[Prepared]) -> None:
    aggregator.script.extend(["silence"] * 3)
    report = await closed_loop(prepared, "127.0.0.1", aggregator.port, seconds=0.05)
    assert (report.sent, report.replies) == (3, 0)


async def test_nobody_listening_is_an_error(
    aggregator: Aggregator, prepared: list[Prepared]
) -> None:
    aggregator.stop()
    with pytest.raises(OSError, match="Connect call failed"):
        await closed_loop(prepared, "127.0.0.1", aggregator.port)


@pytest.mark.parametrize(
    ("percent", "milliseconds"),
    [
        pytest.param(0, 1, id="least"),
        pytest.param(50, 51, id="median"),
        pytest.param(99, 100, id="99"),
        pytest.param(100, 100, id="most"),
    ],
)
def test_percentiles(percent: float, milliseconds: int) -> None:
    report = Report(latencies=[number / 1000 for number in range(100, 0, -1)])
    assert report.percentile(percent) == milliseconds / 1000


def test_a_report_of_nothing_is_all_zero() -> None:
    assert set(Report().summary().values()) == {0}
