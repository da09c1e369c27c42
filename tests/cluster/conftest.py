"""The chart installed on a cluster with nodes, one group in it, and the world outside.

See docs/kubernetes.md for what the variables mean.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import chart
from tests.cluster.faults import Faults, faults
from tests.cluster.group import Group, logs, nodes_of
from tests.cluster.kubectl import CommandFailed, Kubectl, run
from tests.cluster.table import Table
from tests.cluster.traffic import Traffic

CONTROLLER = "aligned-aggregator-operator"
DEFINITION = "alignedaggregators.aligned-aggregator.io"
RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"
HERE = Path(__file__).parent
STORY_SECONDS = 1200
"""Stories give up by themselves, and say why; this ends what hangs."""

NEEDED = ("KUBECONFIG", "ALIGNED_IMAGE", "REDIS_IMAGE", "CLUSTER_HOST")
HOW = (
    "no cluster with nodes: set KUBECONFIG, ALIGNED_IMAGE, REDIS_IMAGE and CLUSTER_HOST"
    " (`make cluster` makes a kind cluster and says them)"
)


@dataclass(frozen=True)
class Settings:
    """The environment."""

    config: Path
    image: str
    """Of the aggregator and the controller; the nodes have it."""
    redis_image: str
    host: str
    """This machine's address as pods see it."""
    faults: str
    storage_class: str | None
    """Whose volumes follow a pod to another node; None: the cluster's default."""
    table: Path | None
    """Where the table of gaps is left."""
    audit: Path | None
    """The API server's audit log, as JSON lines."""


@pytest.fixture(scope="session")
def given() -> Settings:
    environment = os.environ  # noqa: TID251 - tests know their cluster by it
    table, audit = environment.get("CLUSTER_TABLE"), environment.get("CLUSTER_AUDIT")
    return Settings(
        config=Path(environment["KUBECONFIG"]),
        image=environment["ALIGNED_IMAGE"],
        redis_image=environment["REDIS_IMAGE"],
        host=environment["CLUSTER_HOST"],
        faults=environment.get("CLUSTER_FAULTS", ""),
        storage_class=environment.get("CLUSTER_STORAGE_CLASS") or None,
        table=Path(table) if table else None,
        audit=Path(audit) if audit else None,
    )


@pytest.fixture(scope="session")
def installed(given: Settings) -> Iterator[Kubectl]:
    """The chart in a namespace of its own with the restricted Pod Security standard enforced."""
    helm = chart.helm()
    if helm is None:
        pytest.skip("helm is not installed: `make chart` builds it where Go is")
    kubectl = Kubectl(given.config, f"aligned-{secrets.token_hex(3)}")
    kubectl("create", "namespace", kubectl.namespace)
    kubectl("label", "namespace", kubectl.namespace, RESTRICTED)
    is_defined = DEFINITION in kubectl("get", "crd", "-o", "name")
    repository, _, tag = given.image.rpartition(":")
    if is_defined:  # by somebody else: helm would not touch it
        definition = chart.ROOT / "crds" / "alignedaggregators.yaml"
        kubectl("apply", "--server-side", "--force-conflicts", "-f", str(definition))
    flags = ("--kubeconfig", str(given.config), "--namespace", kubectl.namespace)
    values = (
        f"--set=image.repository={repository}",
        f"--set-string=image.tag={tag}",
        f"--set=redisImage={given.redis_image}",
        f"--set=crds.install={'false' if is_defined else 'true'}",
        "--set=crds.keep=false",
    )
    try:
        install = (helm, "install", CONTROLLER, str(chart.CHART), *flags, *values)
        try:
            run(*install, "--wait", "--timeout=180s")
        except CommandFailed as failed:
            raise CommandFailed(f"{failed}\n{logs(kubectl)}") from failed
        yield kubectl
        run(helm, "uninstall", CONTROLLER, *flags)
    finally:
        kubectl("delete", "namespace", kubectl.namespace, "--wait=false")


@pytest.fixture(scope="session")
def traffic(given: Settings) -> Iterator[Traffic]:
    world = Traffic(given.host)
    world.start()
    yield world
    world.close()


@pytest.fixture(scope="session")
def table(given: Settings, request: pytest.FixtureRequest) -> Iterator[Table]:
    table = Table(given.table)
    yield table
    reporter = request.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        reporter.write_line("\n" + table.text())


@pytest.fixture(scope="session")
def group(given: Settings, installed: Kubectl, traffic: Traffic, table: Table) -> Group:
    """Three replicas that serve operators outside; left whole by every story."""
    made = Group(installed, traffic, faults(given.faults), CONTROLLER, given.storage_class, table)
    made.create()
    port = installed.get("service", "main")["spec"]["ports"][0]["nodePort"]
    traffic.connect([(address, port) for address in nodes_of(installed).values()])
    return made


@pytest.fixture
def breaking(group: Group) -> Faults:
    """Ways to break nodes."""
    if group.faults is None:
        pytest.skip("nothing to break nodes with: CLUSTER_FAULTS is not set")
    return group.faults


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what pods said beside a failure: nobody can look later."""
    report = yield
    used = getattr(item, "funcargs", {}).get("group")
    if report.failed and isinstance(used, Group):
        try:
            report.sections.append(("pods", used.told() + "\n" + logs(used.kubectl)))
        except CommandFailed as failed:
            report.sections.append(("pods", str(failed)))
    return report


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip all of them by one line; have what looks at everything come last; be patient."""
    items.sort(key=_place)
    ours = [item for item in items if item.path.parent == HERE]
    for item in ours:
        item.add_marker(pytest.mark.timeout(STORY_SECONDS))
    environment = os.environ  # noqa: TID251 - chooses whether these tests run
    if not all(environment.get(name) for name in NEEDED):
        for item in ours:
            item.add_marker(pytest.mark.skip(reason=HOW))


def _place(item: pytest.Item) -> int:
    marker = item.get_closest_marker("last")
    return 0 if marker is None else int(marker.args[0])
