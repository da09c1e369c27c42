from __future__ import annotations

import logging
import resource

import pytest

from aggregator.ingress.sockets import SPARE_FILES, room_for

Limits = tuple[int, int]


class Kernel:
    def __init__(self, soft: int, hard: int) -> None:
        self.limits = (soft, hard)

    def get(self, which: int) -> Limits:
        assert which == resource.RLIMIT_NOFILE
        return self.limits

    def set(self, which: int, limits: Limits) -> None:
        assert which == resource.RLIMIT_NOFILE
        self.limits = limits


@pytest.mark.parametrize(
    ("before", "after", "room", "lines"),
    [
        pytest.param((20_000, 20_000), (20_000, 20_000), 1024, 0, id="enough"),
        pytest.param((1024, 20_000), (1024 + SPARE_FILES, 20_000), 1024, 0, id="raised"),
        pytest.param((512, 1024), (1024, 1024), 1024 - SPARE_FILES, 1, id="raised-in-part"),
        pytest.param((256, 256), (256, 256), 128, 1, id="few"),
        pytest.param(
            (1024, resource.RLIM_INFINITY),
            (1024 + SPARE_FILES, resource.RLIM_INFINITY),
            1024,
            0,
            id="no-hard-limit",
        ),
        pytest.param(
            (resource.RLIM_INFINITY, resource.RLIM_INFINITY),
            (resource.RLIM_INFINITY, resource.RLIM_INFINITY),
            1024,
            0,
            id="no-limit",
        ),
    ],
)
def test_connections_never_take_the_last_files(
    before: Limits,
    after: Limits,
    room: int,
    lines: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    kernel = Kernel(*before)
    monkeypatch.setattr(resource, "getrlimit", kernel.get)
    monkeypatch.setattr(resource, "setrlimit", kernel.set)
    caplog.set_level(logging.WARNING)
    assert room_for(1024) == room
    assert kernel.limits == after
    assert len(caplog.records) == lines
