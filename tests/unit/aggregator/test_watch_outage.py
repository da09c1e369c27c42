from __future__ import annotations

import logging

import pytest

from aggregator.chain.outage import Outage
from aligned.errors import ChainUnavailable

AWAY = ChainUnavailable("no endpoint answers: one (one.example): HTTP 503")


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message.split(":")[0] for record in caplog.records]


def test_a_single_failure_is_not_worth_a_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    outage = Outage()
    outage.failed("head", AWAY)
    outage.failed("head", AWAY)
    outage.worked("head")
    assert (lines(caplog), outage.failures) == ([], {})


def test_an_outage_is_told_once_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    outage = Outage()
    for _ in range(10):
        outage.failed("head", AWAY)
        outage.failed("registry", AWAY)
    assert lines(caplog) == ["chain away"]
    assert caplog.records[0].__dict__["reason"] == str(AWAY)


def test_the_chain_is_back_when_everything_works_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    outage = Outage()
    for _ in range(3):
        outage.failed("head", AWAY)
        outage.failed("registry", AWAY)
    outage.worked("head")
    assert lines(caplog) == ["chain away"]
    outage.worked("registry")
    outage.worked("registry")
    assert lines(caplog) == ["chain away", "chain is back"]


def test_waits_grow_to_a_limit() -> None:
    outage = Outage()
    waits = [outage.failed("head", AWAY) for _ in range(12)]
    for count, wait in enumerate(waits):
        full = min(0.25 * 2**count, 10.0)
        assert full / 2 <= wait <= full
