from __future__ import annotations

from typing import Any

import pytest

from aligned.errors import BadConfiguration
from controller.settings import Settings, parse

NEEDED = {"image": "a:1", "redis_image": "v:9"}


def parsed(options: dict[str, Any] | None = None, **environment: str) -> Settings:
    return parse({**NEEDED, **(options or {})}, environment, "host-0")


def problems(options: dict[str, Any], **environment: str) -> tuple[str, ...]:
    with pytest.raises(BadConfiguration) as refused:
        parse(options, environment, "host-0")
    return refused.value.problems


def test_little_has_to_be_said() -> None:
    assert parsed() == Settings(image="a:1", redis_image="v:9", pod="host-0")


def test_every_option_has_a_variable() -> None:
    environment = {
        "CONTROLLER_IMAGE": "b:2",
        "CONTROLLER_REDIS_IMAGE": "w:8",
        "CONTROLLER_NAMESPACES": "one, two",
        "CONTROLLER_LEASE_NAME": "lease",
        "CONTROLLER_LEASE_NAMESPACE": "system",
        "CONTROLLER_TELEMETRY": "[::1]:9000",
        "CONTROLLER_RESYNC": "1m30s",
        "CONTROLLER_WORKERS": "8",
        "CONTROLLER_LOG_FORMAT": "TEXT",
        "CONTROLLER_LOG_LEVEL": "debug",
        "POD_NAME": "controller-1",
    }
    assert parse({}, environment, "host-0") == Settings(
        image="b:2",
        redis_image="w:8",
        namespaces=("one", "two"),
        lease_name="lease",
        lease_namespace="system",
        pod="controller-1",
        telemetry=("::1", 9000),
        resync_seconds=90.0,
        workers=8,
        log_format="text",
        log_level="debug",
    )
    assert parsed(CONTROLLER_ALL_NAMESPACES="true").all_namespaces
    assert not parsed(CONTROLLER_ALL_NAMESPACES="no").all_namespaces


def test_an_option_wins_over_its_variable() -> None:
    settings = parsed(
        {"namespace": ("mine", "mine"), "workers": "2"},
        CONTROLLER_NAMESPACES="theirs",
        CONTROLLER_WORKERS="9",
        CONTROLLER_IMAGE="theirs:1",
    )
    assert (settings.namespaces, settings.workers, settings.image) == (("mine",), 2, "a:1")


@pytest.mark.parametrize("text", [":9092", "0.0.0.0:9092", "[::]:9092", "localhost:0"])
def test_telemetry_takes_an_address(text: str) -> None:
    host, _, port = text.rpartition(":")
    assert parsed({"telemetry": text}).telemetry == (host.strip("[]"), int(port))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("telemetry", "9092"),
        ("telemetry", "::1:9092"),
        ("telemetry", ":http"),
        ("telemetry", ":70000"),
        ("resync", "300"),
        ("resync", "1s"),
        ("resync", "2h"),
        ("workers", "0"),
        ("workers", "65"),
        ("workers", "many"),
        ("log_format", "xml"),
        ("log_level", "loud"),
        ("lease_name", "A Lease"),
        ("lease_namespace", "a.b"),
        ("namespace", ("one", "Two")),
    ],
)
def test_what_cannot_be_used_is_named(name: str, value: Any) -> None:
    [problem] = problems({**NEEDED, name: value})
    assert problem.startswith(f"--{name.replace('_', '-')}: ")
    if isinstance(value, str):
        [problem] = problems(NEEDED, **{f"CONTROLLER_{name.upper()}": value})
        assert problem.startswith(f"CONTROLLER_{name.upper()}: ")


def test_all_problems_are_told_together() -> None:
    found = problems(
        {"namespace": ("one",), "all_namespaces": True, "workers": "x"},
        CONTROLLER_RESYNC="soon",
        CONTROLLER_ALL_NAMESPACES="perhaps",
    )
    assert [problem.split(":")[0] for problem in found] == [
        "--namespace and --all-namespaces",
        "--image",
        "--redis-image",
        "CONTROLLER_RESYNC",
        "--workers",
    ]


def test_a_truth_that_is_none_is_named() -> None:
    [problem] = problems(NEEDED, CONTROLLER_ALL_NAMESPACES="perhaps")
    assert problem == "CONTROLLER_ALL_NAMESPACES: 'perhaps' is neither true nor false"
