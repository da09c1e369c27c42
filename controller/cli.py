"""The command line.

Exit codes: 0 done, or stopped by SIGTERM; 2 for options or a file that cannot be used; 1 for the
rest, a lost Lease among it.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from pathlib import Path
from typing import Any

import click
import yaml

from aligned.errors import BadConfiguration
from aligned.process import loop_factory, stopping_at_once
from aligned.telemetry import logs
from aligned.telemetry.logs import LogFormat
from controller import settings as configuration
from controller.api.crd import text as definition
from controller.errors import InvalidSpec
from controller.preview import PLACES, objects

logger = logging.getLogger(__name__)

_QUIET = {
    "kopf": logging.WARNING,
    # It warns that signals are ours, which is meant.
    "kopf._core.reactor.running": logging.ERROR,
    "aiohttp": logging.WARNING,
    "asyncio": logging.WARNING,
    "aggregator.leadership": logging.INFO,
}
"""Lowest levels of libraries."""

_OF_KOPF = ("settings", "k8s_ref", "k8s_skip")
"""Facts of its lines that are whole objects."""

FILE = click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True)


class Commands(click.Group):
    """Turns our errors into lines on standard error and exit codes."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; see the module for exit codes."""
        try:
            return super().invoke(ctx)
        except (BadConfiguration, InvalidSpec) as error:
            for problem in error.problems:
                click.echo(problem, err=True)
            ctx.exit(2)


def _examples(*lines: str) -> str:
    """Return an epilog that click does not wrap."""
    return "\n  ".join(("\b\nExamples:", *lines))


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=_examples(
        "controller crd | kubectl apply --server-side -f -",
        "controller render aggregator.yaml | less",
        "controller run --image aligned-aggregator:1 --redis-image valkey/valkey:9",
    ),
)
@click.version_option(package_name="aligned-aggregator-operator", prog_name="controller")
def controller() -> None:
    """Run AlignedAggregator resources in Kubernetes, or see what they would become."""


@controller.command(
    epilog=_examples(
        "controller run --image aligned-aggregator:1 --redis-image valkey/valkey:9",
        "controller run --all-namespaces …    # needs a ClusterRole",
        "CONTROLLER_NAMESPACES=one,two CONTROLLER_IMAGE=… CONTROLLER_REDIS_IMAGE=… controller run",
    )
)
@click.option(
    "--namespace",
    multiple=True,
    metavar="NAME",
    help="Whose resources are served; may be repeated. Default: the own one. "
    "[CONTROLLER_NAMESPACES, with commas]",
)
@click.option(
    "--all-namespaces",
    is_flag=True,
    help="Serve the whole cluster. [CONTROLLER_ALL_NAMESPACES]",
)
@click.option(
    "--image",
    metavar="IMAGE",
    help="Of the aggregator, where a resource names none. Required. [CONTROLLER_IMAGE]",
)
@click.option(
    "--redis-image",
    metavar="IMAGE",
    help="Of a managed Redis, where a resource names none. Required. [CONTROLLER_REDIS_IMAGE]",
)
@click.option(
    "--lease-name",
    metavar="NAME",
    help="The Lease that replicas compete for. Default: aligned-aggregator-operator. "
    "[CONTROLLER_LEASE_NAME]",
)
@click.option(
    "--lease-namespace",
    metavar="NAME",
    help="Of that Lease. Default: the own one. [CONTROLLER_LEASE_NAMESPACE]",
)
@click.option(
    "--telemetry",
    metavar="HOST:PORT",
    help="Where /healthz, /readyz and /metrics are. Default: :9092, all addresses. "
    "[CONTROLLER_TELEMETRY]",
)
@click.option(
    "--resync",
    metavar="DURATION",
    help="Between two looks at everything, besides events. Default: 5m. [CONTROLLER_RESYNC]",
)
@click.option(
    "--workers",
    metavar="NUMBER",
    help="Resources worked on at once. Default: 4. [CONTROLLER_WORKERS]",
)
@click.option("--log-format", metavar="json|text", help="Default: json. [CONTROLLER_LOG_FORMAT]")
@click.option(
    "--log-level",
    metavar="LEVEL",
    help="debug, info, warning or error. Default: info. [CONTROLLER_LOG_LEVEL]",
)
@click.option(
    "--kubeconfig",
    type=click.Path(path_type=Path),
    help="Default: KUBECONFIG, else the pod's own account, else ~/.kube/config.",
)
@click.pass_context
def run(ctx: click.Context, /, kubeconfig: Path | None, **options: object) -> None:
    """Run the controller until SIGTERM or SIGINT.

    Several may run: one works, the others watch and stand by. Each option can be given by the
    variable in brackets instead. Log lines go to standard error.
    """
    with stopping_at_once():
        settings = configuration.parse(options, ctx.obj, socket.gethostname())
        logs.configure(
            LogFormat(settings.log_format), settings.log_level, quiet=_QUIET, hidden=_OF_KOPF
        )
        from controller import app, kubeconfig as access  # noqa: PLC0415 - imports kopf: a second that other commands save

        with access.api_server(ctx.obj, kubeconfig) as server:
            try:
                with asyncio.Runner(loop_factory=loop_factory()) as runner:
                    runner.run(app.run(settings, server))
            except ExceptionGroup:
                logger.critical(
                    "the controller stops: a defect of ours, please report it", exc_info=True
                )
                ctx.exit(1)


@controller.command(epilog=_examples("controller crd | kubectl apply --server-side -f -"))
def crd() -> None:
    """Show the CustomResourceDefinition of this release."""
    click.echo(definition(), nl=False)


@controller.command(
    epilog=_examples(
        "controller render aggregator.yaml",
        "controller render aggregator.yaml | kubectl diff -f -",
        "kubectl get aagg main -o yaml | controller render -",
    )
)
@click.argument("file", type=FILE)
@click.option(
    "--image", default=PLACES.image, show_default=True, help="Where the resource names none."
)
@click.option(
    "--redis-image",
    default=PLACES.redis_image,
    show_default=True,
    help="Where the resource names none.",
)
@click.option(
    "--redis-address",
    multiple=True,
    metavar="IP",
    help="ClusterIP of a managed Redis pod's Service, three times. Default: examples.",
)
@click.option("--namespace", help="Where the resource names none. Default: default.")
def render(
    file: Path,
    *,
    image: str,
    redis_image: str,
    redis_address: tuple[str, ...],
    namespace: str | None,
) -> None:
    """Show the objects that the resources in FILE become, without a cluster.

    Nothing is asked or changed anywhere. What only a cluster knows is an example: uids, addresses,
    passwords. Defaults are filled in as the API server would; its validation is not repeated.
    """
    places = PLACES.but(image=image, redis_image=redis_image, addresses=redis_address)
    with click.open_file(str(file), encoding="utf-8") as stream:
        text = stream.read()
    found = objects(text, places, namespace or "default")
    click.echo(yaml.safe_dump_all(found, sort_keys=False, width=100), nl=False)
