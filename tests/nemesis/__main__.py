"""``python -m tests.nemesis``: break a group of aggregators at random and check its promises."""

from __future__ import annotations

import asyncio
import secrets
import sys
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console

from devnet.anvil import ChainFailed
from devnet.daemon import DaemonFailed
from devnet.sentinel import GroupFailed
from tests.nemesis import show
from tests.nemesis.plan import MEANING, Kind, Options, command, described, draw
from tests.nemesis.run import perform

_MENDABLE = (ChainFailed, DaemonFailed, GroupFailed, OSError)
_KINDS = "\n".join(f"  {kind.value:<15} {MEANING[kind]}" for kind in Kind)


def _kinds(_context: click.Context, _parameter: click.Parameter, text: str) -> tuple[Kind, ...]:
    if text == "all":
        return tuple(Kind)
    try:
        chosen = {Kind(word.strip()) for word in text.split(",") if word.strip()}
    except ValueError as unknown:
        raise click.BadParameter(f"{unknown}; see --help for the kinds") from unknown
    return tuple(kind for kind in Kind if kind in chosen)


@click.command(epilog=f"\b\nFaults:\n{_KINDS}")
@click.option("--seed", type=int, help="Replay the plan of this seed. [default: a fresh one]")
@click.option(
    "--minutes", type=click.FloatRange(min=0.2), default=20.0, show_default=True, help="At least."
)
@click.option(
    "--profile",
    type=click.Choice(["fast", "normal"]),
    default="fast",
    show_default=True,
    help="Of the election.",
)
@click.option(
    "--faults",
    "kinds",
    default="all",
    show_default=True,
    callback=_kinds,
    metavar="KIND,…",
    help="Only these kinds.",
)
@click.option(
    "--pace",
    type=click.FloatRange(min=0.2),
    default=1.0,
    show_default=True,
    help="Seconds between batches.",
)
@click.option("--operators", type=click.IntRange(3, 32), default=5, show_default=True)
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="For logs, journals and the history. [default: one of its own in .cache/nemesis]",
)
@click.option("--plan-only", is_flag=True, help="Print the plan and start nothing.")
def main(
    *,
    seed: int | None,
    minutes: float,
    profile: str,
    kinds: tuple[Kind, ...],
    pace: float,
    operators: int,
    folder: Path | None,
    plan_only: bool,
) -> None:
    """Break three aggregators and their Redis at random, and check what they promise.

    Everything is a real process on this machine: a chain (anvil), Redis or Valkey with Sentinels,
    three replicas behind a balancer, operators with real keys that retry as Go operators do, and
    a batcher. The plan of faults is drawn from the seed and printed before anything starts.

    \b
    Checked at the end; exit code 1 when anything is off:
      no acknowledged signature is lost
      every batch is answered exactly once, no gas is wasted on a second answer
      one leader a term, terms rise, no effect of a term that is over
      no call of an operator hangs
      every replica comes back by itself and stops in order
    """
    if folder is not None and folder.exists() and any(folder.iterdir()):
        msg = f"{folder} is not empty: journals of another chain would be refused"
        raise click.BadParameter(msg, param_hint="--folder")
    options = Options(
        seed=secrets.randbelow(1_000_000) if seed is None else seed,
        minutes=minutes,
        profile=profile,
        kinds=kinds,
        pace=pace,
        operators=operators,
    )
    console = Console(soft_wrap=True)
    plan = draw(options)
    console.print("\n".join([*described(plan), f"replay: {command(options)}", ""]), highlight=False)
    if plan_only:
        return
    began = datetime.now(tz=UTC).strftime("%Y%m%d-%H%M%S")
    place = folder or Path(".cache/nemesis") / f"{began}-seed-{options.seed}"
    console.print(f"logs, journals and history: {place}", highlight=False)
    try:
        with show.painter(console) as painter:
            outcome = asyncio.run(perform(plan, place.absolute(), painter))
    except _MENDABLE as problem:
        raise click.ClickException(str(problem)) from problem
    except KeyboardInterrupt:
        console.print(f"stopped; replay: {command(options)}")
        sys.exit(130)
    console.print(show.report(outcome), highlight=False)
    if outcome.problems:
        sys.exit(1)


if __name__ == "__main__":
    main()
