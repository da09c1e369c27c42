"""What stands in the chart and in `deploy/` but is made of something else: `python -m tests.chart`.

The definition and the rights come from the controller; the plain installation from the chart.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from controller import access
from controller.api import crd

ROOT = Path(__file__).parents[1]
CHART = ROOT / "charts" / "aligned-aggregator-operator"
INSTALL = ROOT / "deploy" / "install.yaml"

KUBERNETES = "1.34.0"
"""That templates are rendered for where no cluster is asked."""

NAMESPACE = "aligned"
"""Of the plain installation."""

_HELM_SECONDS = 60.0
_HEAD = f"""\
# The controller and its definition, in namespace {NAMESPACE}, whose resources it serves:
#
#   kubectl apply -f install.yaml
#
# Made of charts/aligned-aggregator-operator by `make docs`; use the chart to change anything.
apiVersion: v1
kind: Namespace
metadata:
  name: {NAMESPACE}
  labels:
    pod-security.kubernetes.io/enforce: restricted
"""
_OF_HELM = ("app.kubernetes.io/managed-by: Helm", "helm.sh/")


def rules() -> str:
    """Return the rights of the controller as the chart reads them."""
    return "# Made of controller/access.py by `make docs`.\n" + yaml.safe_dump(
        {"own": access.rules(access.OWN), "served": access.rules(access.SERVED)},
        sort_keys=False,
        default_flow_style=None,
        width=100,
    )


FILES = {CHART / "files" / "rules.yaml": rules, CHART / "files" / "crd.yaml": crd.text}
"""What is made without helm."""


def helm() -> str | None:
    """Return the program's path; None: there is none."""
    found = subprocess.run([ROOT / ".ci" / "helm"], capture_output=True, text=True, check=False)
    return found.stdout.strip() if found.returncode == 0 else None


def template(program: str, *options: str, release: str = "aligned") -> str:
    """Return what the chart renders.

    Raises:
        subprocess.CalledProcessError: It refuses the values; ``stderr`` says why.
    """
    command = [program, "template", release, str(CHART), "--kube-version", KUBERNETES, *options]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=_HELM_SECONDS, check=True
    )
    return done.stdout


def objects(program: str, *options: str) -> list[dict[str, Any]]:
    """Return the same as objects."""
    return [each for each in yaml.safe_load_all(template(program, *options)) if each]


def install(program: str) -> str:
    """Return the plain installation, without what only helm understands."""
    rendered = template(program, "--namespace", NAMESPACE, release=CHART.name)
    lines = [
        line
        for line in rendered.splitlines()
        if not line.startswith("# Source:") and not line.strip().startswith(_OF_HELM)
    ]
    return _HEAD + "\n".join(lines).replace("  annotations:\n  labels:", "  labels:") + "\n"


def main() -> None:
    """Write everything."""
    for path, text in FILES.items():
        path.write_text(text())
    program = helm()
    if program is None:
        print(f"{INSTALL.relative_to(ROOT)} is left as it is: no helm", file=sys.stderr)  # noqa: T201 - a command
        return
    INSTALL.write_text(install(program))


if __name__ == "__main__":
    main()
