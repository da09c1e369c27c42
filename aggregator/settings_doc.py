"""Writes ``docs/configuration.md`` from the settings: ``python -m aggregator.settings_doc``.

The text below a field in ``aggregator.settings`` is what the page says about it.
"""

from __future__ import annotations

import inspect
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic_core import PydanticUndefined

from aggregator.configure import PREFIX, sections_of
from aggregator.settings import Endpoint, Settings
from aggregator.units import format_duration, format_fee

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic.fields import FieldInfo

    from aggregator.sections import Section

_NAMES: dict[type, str] = {
    bool: "`true` or `false`",
    int: "whole number",
    str: "text",
    Path: "path",
}

_HEAD = """\
# Configuration

One YAML file, read at start: `aggregator run --config FILE`. `aggregator config check FILE` tells
everything that is wrong with it, each line beginning with the path of its key, and shows what is
in force, secrets left out. `aggregator config import` makes the file from a Go aggregator's.
A short one to begin with: [examples/aggregator-config.yaml](../examples/aggregator-config.yaml).

* **Durations** are numbers with units: `250ms`, `15s`, `1m30s`, `168h`, `7d`; a bare number is
  seconds. **Fees** are `30gwei`, `1.5gwei` or a number of wei. **Addresses** are 0x and 40
  digits; mixed case must be the right checksum.
* **Paths** that are relative count from the folder of the file. Secrets are always paths of files.
  URLs may carry keys, so only their host is ever shown; `url_file` keeps them out of the file.
* **Environment variables** override the file: the path of the key in capitals, with two underscores
  between its parts, after `ALIGNED_`. Values are YAML: `ALIGNED_CHAIN__POLL_INTERVAL=1s`,
  `ALIGNED_LISTEN__TRUSTED_CIDRS='["10.0.0.0/8"]'`, `ALIGNED_TELEMETRY__ADDRESS=null`. A whole
  section may be given (`ALIGNED_SIGNER='{type: keystore, file: key.json}'`), a list only whole. An
  unknown variable with this prefix is an error, except those that Kubernetes makes of a Service.
* **Unknown and repeated keys** are errors. In a file with `rendered_by: controller` unknown keys
  are warnings.
* YAML 1.2 decides what a value is: only `true` and `false` are truth values, `off` is a word.

`aggregator run` ends with 2 when the configuration cannot be used, 0 after SIGTERM, 1 otherwise.

This page is generated from `aggregator/settings.py` by `python -m aggregator.settings_doc`.
"""


def page() -> str:
    """Return the whole page."""
    return "\n".join([_HEAD, *_section(Settings, ())])


def _section(section: type[Section], path: tuple[str, ...]) -> Iterator[str]:
    """Yield the lines of a section and then of those inside it."""
    rows = [row for name, info in section.model_fields.items() for row in _row(name, info, path)]
    if rows:
        title = f"`{'.'.join(path)}`" if path else "Top level"
        tags = [_tag(section)] if _tag(section) else []
        yield f"## {title}{''.join(f' with `type: {tag}`' for tag in tags)}\n"
        if path:
            yield f"{_prose(section.__doc__)}\n"
        yield "| key | default | unit or type | meaning |"
        yield "|---|---|---|---|"
        yield from rows
        yield ""
    for name, info in section.model_fields.items():
        for inner in sections_of(info.annotation):
            yield from _section(inner, (*path, name))
        if name == "endpoints":
            yield from _section(Endpoint, (*path, "endpoints[]"))


def _row(name: str, info: FieldInfo, path: tuple[str, ...]) -> Iterator[str]:
    if sections_of(info.annotation) and not info.description:
        return
    key = f"`{name}`"
    if "endpoints[]" not in "".join(path):
        key += f"<br>`{PREFIX}{'__'.join((*path, name)).upper()}`"
    cells = (key, _default(info), _type(info), _prose(info.description))
    yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _default(info: FieldInfo) -> str:
    value = info.default
    if value is PydanticUndefined:
        return "required"
    if value is None:
        return "absent"
    if value == ():
        return "`[]`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    shown = {"duration": format_duration, "fee": format_fee}.get(_unit(info))
    return f"`{shown(value) if shown else value}`"


def _unit(info: FieldInfo) -> str:
    """Return the unit that ``aggregator.units`` attached, also within ``… | None``."""
    extras = [info.json_schema_extra]
    for each in get_args(info.annotation):
        extras += [getattr(note, "json_schema_extra", None) for note in get_args(each)[1:]]
    for extra in extras:
        if isinstance(extra, dict) and "unit" in extra:
            return str(extra["unit"])
    return ""


def _type(info: FieldInfo) -> str:
    return (_unit(info) or _type_name(info.annotation)) + _bounds(info)


def _bounds(info: FieldInfo) -> str:
    """Return what else the value must fit: ``, 13 to 100``."""
    low = next((note.ge for note in info.metadata if isinstance(note, Ge)), None)
    high = next((note.le for note in info.metadata if isinstance(note, Le)), None)
    if high is not None:
        return f", {low} to {high}"
    if any(isinstance(note, Gt) for note in info.metadata):
        return ", above 0"
    return f", at least {low}" if low else ""


def _type_name(annotation: object) -> str:
    if sections_of(annotation):
        return "mapping"
    if get_origin(annotation) is tuple:
        return "list"
    if choices := _choices(annotation):
        return " or ".join(f"`{choice}`" for choice in choices)
    if isinstance(annotation, type):
        return _NAMES[annotation]
    inner = [each for each in get_args(annotation) if each is not type(None)]
    return _type_name(inner[0])


def _choices(annotation: object) -> list[str]:
    if get_origin(annotation) is Literal:
        return [str(each) for each in get_args(annotation)]
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return list(annotation)
    return []


def _tag(section: type[Section]) -> str:
    info = section.model_fields.get("type")
    return get_args(info.annotation)[0] if info is not None else ""


def _prose(text: str | None) -> str:
    return inspect.cleandoc(text or "").replace("``", "`").replace("\n", " ")


if __name__ == "__main__":
    sys.stdout.write(page())
