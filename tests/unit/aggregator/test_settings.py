from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from aggregator.sections import host_of, redacted, split_address
from aggregator.settings import Settings
from tests.fakes.configuration import right

WEB3SIGNER = {
    "type": "web3signer",
    "url": "https://signer:9000",
    "address": "0x15d34AAf54267DB7D7c367839AAf71A00a2C6A65",
}


def test_what_is_left_out_has_a_default() -> None:
    settings = Settings.model_validate(right())
    assert settings.aggregation.window == 15.0
    assert settings.aggregation.expiry == 7 * 86400
    assert settings.submission.bump_percent == 13
    assert settings.listen.address == "0.0.0.0:8090"
    assert settings.journal.path == Path("aggregator.db")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        pytest.param({"signer": None}, "signer required", id="no signer"),
        pytest.param(
            {"chain__endpoints": [{"name": "a"}]}, "url required", id="endpoint without url"
        ),
        pytest.param(
            {"chain__endpoints": [{"name": "a", "url": "http://a", "url_file": "b"}]},
            "keep one of them",
            id="endpoint with two urls",
        ),
        pytest.param(
            {"chain__endpoints": [{"name": "a", "url": "ws://a"}]}, "http://", id="websocket url"
        ),
        pytest.param(
            {"chain__endpoints": [{"name": "a", "url": "http://a"}] * 2},
            "taken by endpoints[0]",
            id="equal names",
        ),
        pytest.param({"chain__endpoints": []}, "at least 1", id="no endpoint"),
        pytest.param({"listen__address": "8090"}, "host:port", id="port only"),
        pytest.param({"listen__address": "::1:8090"}, "host:port", id="IPv6 without brackets"),
        pytest.param({"listen__address": "a:70000"}, "not a port", id="port out of range"),
        pytest.param({"listen__proxy_protocol": "v2"}, "whose header", id="nobody trusted"),
        pytest.param({"listen__trusted_cidrs": ["10.0.0.1/8"]}, "host bits", id="not a network"),
        pytest.param(
            {"listen__address": "a:1", "telemetry__address": "a:1"}, "must differ", id="one port"
        ),
        pytest.param({"aggregation__expiry": "10s"}, "shorter than expiry", id="window too long"),
        pytest.param({"redis": {}}, "sentinels required, or url", id="Redis nowhere"),
        pytest.param({"redis__sentinels": ["a:1"]}, "master_name required", id="nameless primary"),
        pytest.param(
            {"redis": {"sentinels": ["a:1"], "master_name": "b", "url": "redis://a"}},
            "keep one of them",
            id="two ways to Redis",
        ),
        pytest.param(
            {"redis": {"sentinels": ["a"], "master_name": "b"}}, "host:port", id="no port"
        ),
        pytest.param({"redis__url": "http://a"}, "redis://", id="another protocol"),
        pytest.param({"redis__url": "redis://u:p@a"}, "not hold a password", id="clear password"),
        pytest.param(
            {"redis": {"url": "redis://a", "ca_file": "b"}}, "needs tls", id="files without TLS"
        ),
        pytest.param(
            {"redis": {"url": "rediss://a", "key_file": "b"}},
            "certificate_file required",
            id="key without certificate",
        ),
        pytest.param(
            {"redis": {"url": "redis://a", "sentinel_username": "b"}},
            "is for sentinels",
            id="Sentinel user without Sentinels",
        ),
        pytest.param({"election__backend": "redis"}, "redis required", id="nothing to elect by"),
        pytest.param(
            {"election": {"backend": "kubernetes", "lease_name": "a"}},
            "redis required",
            id="nothing to fence in",
        ),
        pytest.param(
            {"election__backend": "kubernetes"}, "lease_name required", id="nameless Lease"
        ),
        pytest.param(
            {"election__lease_name": "a"}, "is for backend kubernetes", id="useless Lease"
        ),
        pytest.param({"submission__bump_percent": 12}, "13", id="bump that nodes refuse"),
        pytest.param(
            {
                "submission__max_fee_per_gas": "1gwei",
                "submission__max_priority_fee_per_gas": "2gwei",
            },
            "must not exceed",
            id="tip above the fee",
        ),
        pytest.param(
            {"telemetry__upstream_url": "http://user:secret@host"}, "password", id="credentials"
        ),
        pytest.param(
            {"signer": {**WEB3SIGNER, "client_key_file": "k"}},
            "client_certificate_file required",
            id="key without certificate",
        ),
        pytest.param(
            {"signer": {**WEB3SIGNER, "url": "http://signer", "ca_file": "c"}},
            "https://",
            id="TLS without TLS",
        ),
        pytest.param({"chain__poll_interval": "0s"}, "greater than 0", id="no interval"),
        pytest.param({"chain__poll_interval": float("inf")}, "finite", id="infinite interval"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate(right(**changes))
    assert problem in str(caught.value)


def test_observing_needs_no_signer() -> None:
    settings = Settings.model_validate(right(signer=None, submission__mode="observe"))
    assert settings.signer is None


def test_two_ephemeral_ports_do_not_clash() -> None:
    changes = {"listen__address": "127.0.0.1:0", "telemetry__address": "127.0.0.1:0"}
    Settings.model_validate(right(**changes))


def test_keys_in_urls_are_never_shown() -> None:
    endpoints = [{"name": "a", "url": "https://user:hunter2@rpc.example:8443/v2/hunter2?k=hunter2"}]
    settings = Settings.model_validate(right(chain__endpoints=endpoints))
    shown = json.dumps(settings.model_dump(mode="json"))
    assert "hunter2" not in shown + repr(settings) + str(settings)
    assert "https://rpc.example:8443/(redacted)" in shown
    assert settings.chain.endpoints[0].url == endpoints[0]["url"]


def test_a_bad_url_is_refused_without_being_repeated() -> None:
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate(right(chain__endpoints=[{"name": "a", "url": "wss://x/hunter2"}]))
    assert "hunter2" not in str(caught.value)


def test_settings_are_shown_as_they_are_written() -> None:
    settings = Settings.model_validate(right(submission__max_fee_per_gas="1.5gwei"))
    shown = settings.model_dump(mode="json")
    assert shown["submission"]["max_fee_per_gas"] == "1.5gwei"
    assert shown["aggregation"]["expiry"] == "168h"
    assert shown["network"] == right()["network"]
    assert Settings.model_validate(shown) == settings


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        pytest.param("localhost:1", ("localhost", 1), id="name"),
        pytest.param("[::1]:8090", ("::1", 8090), id="IPv6"),
    ],
)
def test_an_address_is_split(address: str, parts: tuple[str, int]) -> None:
    assert split_address(address) == parts


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        pytest.param("http://localhost:8545", "http://localhost:8545", id="nothing to hide"),
        pytest.param("http://localhost:8545/", "http://localhost:8545/", id="bare slash"),
        pytest.param("https://a.b/key", "https://a.b/(redacted)", id="path"),
        pytest.param("https://a.b?key=1", "https://a.b/(redacted)", id="query"),
        pytest.param("https://u:p@a.b", "https://a.b/(redacted)", id="credentials"),
        pytest.param("http://[::1]:1/x", "http://[::1]:1/(redacted)", id="IPv6"),
        pytest.param(None, None, id="none"),
    ],
)
def test_a_url_is_shown_up_to_its_host(url: str | None, shown: str | None) -> None:
    assert redacted(url) == shown


def test_what_is_no_url_shows_nothing() -> None:
    assert "hunter2" not in host_of("http://[hunter2")
