from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller import names
from controller.api import crd, reference, rules, spec, status
from controller.api.fields import Part

ROOT = Path(__file__).parents[4]
FILE = ROOT / "crds" / "alignedaggregators.yaml"
MOST_BYTES = 256 * 1024


def version() -> dict[str, Any]:
    (only,) = crd.crd()["spec"]["versions"]
    assert isinstance(only, dict)
    return only


def schemas(
    schema: dict[str, Any], path: str = "", *, in_list: bool = False
) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Every schema within, with its path and whether it is below a list."""
    yield path, schema, in_list
    for key, inner in schema.get("properties", {}).items():
        yield from schemas(inner, f"{path}.{key}", in_list=in_list)
    if "items" in schema:
        yield from schemas(schema["items"], f"{path}[]", in_list=True)
    if isinstance(schema.get("additionalProperties"), dict):
        yield from schemas(schema["additionalProperties"], f"{path}.*", in_list=True)


EVERY = list(schemas(version()["schema"]["openAPIV3Schema"]))


def test_the_file_is_what_the_models_give() -> None:
    assert FILE.read_text() == crd.text(), "run `make docs`"


def test_the_page_is_what_the_models_give() -> None:
    assert (ROOT / "docs" / "resource.md").read_text() == reference.page(), "run `make docs`"


def test_the_file_fits_into_an_annotation_of_kubectl() -> None:
    assert len(FILE.read_bytes()) < MOST_BYTES


def test_names_are_those_that_the_controller_uses() -> None:
    definition = crd.crd()["spec"]
    assert (definition["group"], definition["names"]["kind"]) == (names.DOMAIN, names.KIND)
    assert definition["names"]["plural"] == names.PLURAL
    assert version()["name"] == names.VERSION


def test_the_schema_is_structural() -> None:
    for path, schema, _ in EVERY:
        assert "type" in schema, path
        assert not {"$ref", "anyOf", "oneOf", "allOf", "title", "const", "$defs"} & schema.keys(), (
            path
        )
        assert schema.get("additionalProperties") is not False, path
        assert not ("properties" in schema and "additionalProperties" in schema), path


def test_everything_is_bounded() -> None:
    free = [
        path
        for path, schema, _ in EVERY
        if (schema["type"] == "array" and "maxItems" not in schema)
        or ("additionalProperties" in schema and "maxProperties" not in schema)
        or (
            schema["type"] == "string"
            and not {"maxLength", "enum", "format"} & schema.keys()
            and path not in {".apiVersion", ".kind"}
        )
    ]
    assert free == []


def test_everything_is_described() -> None:
    silent = [
        path
        for path, schema, _ in EVERY
        if not path.endswith(("[]", ".*"))
        and path not in {".apiVersion", ".kind", ".metadata"}
        and "description" not in schema
    ]
    assert silent == []


def test_lists_have_no_defaults_inside() -> None:
    assert [path for path, schema, in_list in EVERY if in_list and "default" in schema] == []


def test_sections_that_may_be_absent_have_a_default() -> None:
    spec_schema = version()["schema"]["openAPIV3Schema"]["properties"]["spec"]
    sections = {k: v for k, v in spec_schema["properties"].items() if v["type"] == "object"}
    without = {key for key, section in sections.items() if "default" not in section}
    assert without == {"network", "chain", "signer", "resources", "template"}
    assert set(spec_schema["required"]) == {"network", "chain"}


def test_conditions_are_merged_by_type() -> None:
    conditions = version()["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]
    assert conditions["conditions"]["x-kubernetes-list-map-keys"] == ["type"]


def test_every_set_of_rules_is_of_a_model() -> None:
    models = {
        name
        for module in (spec, status)
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Part)
    }
    assert set(rules.RULES) <= models


@pytest.mark.parametrize(
    "path", sorted((ROOT / "examples").glob("aggregator*.yaml")), ids=lambda path: path.name
)
def test_examples_parse(path: Path) -> None:
    content = yaml.safe_load(path.read_text())
    if content.get("kind") == names.KIND:
        parsed = spec.AggregatorSpec.model_validate(content["spec"])
        assert parsed.chain.endpoints
    else:
        assert path.name == "aggregator-config.yaml"
