"""What is rendered for the files beside: `resources/NAME.yaml` gives `objects/NAME.yaml`.

Written anew by `python -m tests.unit.controller.golden`. Read the difference before you commit it:
whatever changes `settings-hash` restarts every pod of everybody who upgrades.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from controller import desired
from controller.desired import access, config
from controller.desired.known import Known, Release
from controller.resource import Resource, parse

HERE = Path(__file__).parent
RELEASE = Release(image="aligned-aggregator:0.1.0", redis_image="valkey:9.0.0")
ADDRESSES = ("10.96.0.10", "10.96.0.11", "10.96.0.12")
ADDRESSES_V6 = ("fd00:96::a", "fd00:96::b", "fd00:96::c")


@dataclass(frozen=True)
class Case:
    name: str
    known: Known

    @property
    def manifest(self) -> dict[str, Any]:
        text = (HERE / "resources" / f"{self.name}.yaml").read_text()
        manifest = yaml.safe_load(text)
        assert isinstance(manifest, dict)
        return manifest

    @property
    def resource(self) -> Resource:
        return parse(self.manifest)

    @property
    def path(self) -> Path:
        return HERE / "objects" / f"{self.name}.yaml"

    def objects(self) -> list[dict[str, Any]]:
        """All of them, the Lease that is created beside them included."""
        lease = access.lease(self.resource, self.known)
        return [*([lease] if lease else []), *desired.render(self.resource, self.known)]

    def text(self) -> str:
        """As it is kept: files that stand in the tree themselves are not repeated."""
        objects = self.objects()
        names_of_files = []
        for each in objects:
            if each["kind"] == "ConfigMap" and each["metadata"]["name"] != self.config:
                names_of_files.append(each["metadata"]["name"])
                each["data"] = dict.fromkeys(each["data"], "(a file of controller/redis_node)")
        text = yaml.dump_all(objects, Dumper=Plain, sort_keys=False, width=100, allow_unicode=True)
        for name in names_of_files:
            text = text.replace(name, f"{name.rpartition('-')[0]}-DIGEST")
        return text

    @property
    def config(self) -> str:
        """The name of the daemon's ConfigMap."""
        name = config.config_map(self.resource, self.known)["metadata"]["name"]
        assert isinstance(name, str)
        return name

    def configuration(self) -> str:
        return config.configuration(self.resource, self.known).text


class Plain(yaml.SafeDumper):
    """Texts of several lines as blocks, and no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


Plain.add_representer(str, _text)

CASES = (
    Case("smallest", Known(release=RELEASE, redis_addresses=ADDRESSES)),
    Case(
        "production",
        Known(
            release=RELEASE,
            running_image="aligned-aggregator:0.0.9",
            running_redis_image="valkey:8.1.0",
            redis_addresses=ADDRESSES_V6,
            restarted_at="2026-11-23T12:00:00Z",
            term=42,
        ),
    ),
    Case("redis-none", Known(release=RELEASE)),
    Case("external", Known(release=RELEASE, running_image="aligned-aggregator:0.0.9")),
    Case("suspended", Known(release=RELEASE, term=7)),
)
