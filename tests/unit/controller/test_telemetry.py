from __future__ import annotations

import io
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from aligned.errors import BadConfiguration
from aligned.telemetry import logs
from aligned.telemetry.logs import LogFormat
from aligned.telemetry.probes import Shown, serving
from controller import cli
from controller.telemetry.metrics import Metrics


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def test_a_json_line_has_its_facts(stream: io.StringIO) -> None:
    logs.configure(LogFormat.JSON, "info", stream)
    facts = {"resource": "test/demo", "level": "fact"}
    logging.getLogger("controller.test").info("a thing happened", extra=facts)
    line: dict[str, Any] = json.loads(stream.getvalue())
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info",
        "logger": "controller.test",
        "event": "a thing happened",
        "resource": "test/demo",
        "level_": "fact",
    }


def test_a_text_line_cannot_be_broken(stream: io.StringIO) -> None:
    logs.configure(LogFormat.TEXT, "info", stream)
    logging.getLogger("controller.test").info("one\nline", extra={"why": "two\nlines"})
    assert len(stream.getvalue().splitlines()) == 1
    assert 'why="two\\nlines"' in stream.getvalue()


@pytest.mark.parametrize("form", list(LogFormat))
def test_exceptions_are_told(stream: io.StringIO, form: LogFormat) -> None:
    logs.configure(form, "info", stream, hidden=cli._OF_KOPF)
    try:
        int("missing")
    except ValueError:
        logging.getLogger("controller.test").exception("a defect")
    assert "ValueError" in stream.getvalue()


def test_libraries_are_quiet(stream: io.StringIO) -> None:
    logs.configure(LogFormat.TEXT, "debug", stream, quiet=cli._QUIET)
    logging.getLogger("kopf.something").info("chatter")
    logging.getLogger("kopf._core.reactor.running").warning("signals are ignored")
    logging.getLogger("kopf.something").error("an error")
    assert stream.getvalue().count("\n") == 1
    logs.configure(LogFormat.TEXT, "error", stream, quiet=cli._QUIET)
    logging.getLogger("controller.test").warning("not told")
    assert stream.getvalue().count("\n") == 1


class Told:
    alive = True
    ready = True


@asynccontextmanager
async def served(told: Told, metrics: Metrics) -> AsyncIterator[tuple[aiohttp.ClientSession, str]]:
    shown = Shown(
        alive=lambda: {"loop": told.alive, "elector": True},
        ready=lambda: {"listed": told.ready},
        metrics=metrics.exposition,
    )
    async with (
        serving("127.0.0.1", 0, shown, key="--telemetry") as address,
        aiohttp.ClientSession() as session,
    ):
        yield session, f"http://{address}"


async def test_probes_name_what_fails() -> None:
    told = Told()
    async with served(told, Metrics(CollectorRegistry())) as (session, url):
        for path, name in (("healthz", "alive"), ("readyz", "ready")):
            async with session.get(f"{url}/{path}") as answer:
                assert answer.status == 200
                assert (await answer.json())["ok"]
            setattr(told, name, False)
            async with session.get(f"{url}/{path}") as answer:
                assert answer.status == 503
                assert False in (await answer.json())["checks"].values()


async def test_metrics_are_shown() -> None:
    metrics = Metrics(CollectorRegistry())
    metrics.passed("done", 0.2)
    metrics.passed("conflict", 0.2)
    metrics.passed("refused", 0.2)
    metrics.drifted()
    metrics.wrote("Service", "apply")
    metrics.watches_ended()
    metrics.watch("controller_queue_depth", "Waiting.", lambda: 7)
    async with served(Told(), metrics) as (session, url), session.get(f"{url}/metrics") as answer:
        text = await answer.text()
    for line in (
        'controller_reconciles_total{result="refused"} 1.0',
        "controller_reconcile_errors_total 1.0",
        "controller_reconcile_seconds_count 3.0",
        "controller_drift_repaired_total 1.0",
        'controller_writes_total{kind="Service",verb="apply"} 1.0',
        "controller_watches_ended_total 1.0",
        "controller_queue_depth 7.0",
    ):
        assert line in text.splitlines()


async def test_bodies_are_refused_and_the_index_helps() -> None:
    async with served(Told(), Metrics(CollectorRegistry())) as (session, url):
        async with session.get(f"{url}/healthz", data=b"x") as answer:
            assert answer.status == 413
        async with session.get(url) as answer:
            assert "/metrics" in await answer.text()


async def test_an_address_that_is_taken_is_said() -> None:
    shown = Shown(alive=dict, ready=dict, metrics=bytes)
    async with serving("127.0.0.1", 0, shown, key="--telemetry") as address:
        port = int(address.rpartition(":")[2])
        with pytest.raises(BadConfiguration, match="taken by another process"):
            await serving("127.0.0.1", port, shown, key="--telemetry").__aenter__()
