from __future__ import annotations

import io
import json
import logging
import re

import pytest

from aggregator import cli
from aligned.telemetry import logs
from aligned.telemetry.logs import LogFormat

logger = logging.getLogger("aggregator.stage")


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def fail(why: str) -> None:
    error = OSError(why)
    logger.error("commit failed", exc_info=error)


def test_a_json_line_has_time_level_logger_event_and_facts(stream: io.StringIO) -> None:
    logs.configure(LogFormat.JSON, "info", stream)
    logger.info("batch answered", extra={"batch": b"\xab" * 32, "operator": b"\x01", "gas": 7})
    line = json.loads(stream.getvalue())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert line == {
        "level": "info",
        "logger": "aggregator.stage",
        "event": "batch answered",
        "batch": "0x" + "ab" * 32,
        "operator": "0x01",
        "gas": 7,
    }


def test_facts_do_not_replace_what_every_line_has(stream: io.StringIO) -> None:
    logs.configure(LogFormat.JSON, "info", stream)
    logger.info("real", extra={"event": "forged", "level": "none"})
    line = json.loads(stream.getvalue())
    assert (line["event"], line["event_"]) == ("real", "forged")
    assert (line["level"], line["level_"]) == ("info", "none")


def test_an_exception_stays_on_its_line(stream: io.StringIO) -> None:
    logs.configure(LogFormat.JSON, "info", stream)
    fail("disk\nfull")
    (text,) = stream.getvalue().splitlines()
    line = json.loads(text)
    assert line["level"] == "error"
    assert line["exception"].endswith("OSError: disk\nfull")


def test_what_json_does_not_know_is_shown_all_the_same(stream: io.StringIO) -> None:
    logs.configure(LogFormat.JSON, "info", stream)
    logger.info("odd", extra={"error": TimeoutError(), "ids": {b"\x02"}, "share": float("nan")})
    line = json.loads(stream.getvalue())
    assert (line["error"], line["ids"], line["share"]) == ("TimeoutError", ["0x02"], None)


def test_a_text_line_is_one_line_whatever_is_in_it(stream: io.StringIO) -> None:
    logs.configure(LogFormat.TEXT, "info", stream)
    logger.warning("odd\nevent", extra={"peer": "a\nb", "batch": b"\x01", "note": "two words"})
    (line,) = stream.getvalue().splitlines()
    assert line.endswith(r'WARNING odd\nevent peer="a\nb" batch=0x01 note="two words"')


def test_a_text_line_is_followed_by_its_traceback(stream: io.StringIO) -> None:
    logs.configure(LogFormat.TEXT, "info", stream)
    fail("full")
    assert stream.getvalue().endswith("OSError: full\n")


@pytest.mark.parametrize("log_format", list(LogFormat))
def test_lines_below_the_level_are_left_out(stream: io.StringIO, log_format: LogFormat) -> None:
    logs.configure(log_format, "warning", stream)
    logger.info("quiet")
    logger.warning("loud")
    assert "quiet" not in stream.getvalue()
    assert "loud" in stream.getvalue()


def test_libraries_that_print_urls_stay_quiet(stream: io.StringIO) -> None:
    logs.configure(LogFormat.TEXT, "debug", stream, quiet=cli._QUIET)
    logging.getLogger("web3.providers.HTTPProvider").debug("POST https://rpc/key")
    logger.debug("ours")
    assert "key" not in stream.getvalue()
    assert "ours" in stream.getvalue()


def test_configuring_again_does_not_double_the_lines(stream: io.StringIO) -> None:
    logs.configure(LogFormat.TEXT, "info", stream)
    logs.configure(LogFormat.TEXT, "info", stream)
    logger.info("once")
    assert stream.getvalue().count("once") == 1
