"""YAML as this project reads it: the scalars of YAML 1.2, no repeated keys, lines for messages.

PyYAML alone follows YAML 1.1, where ``off`` is false, ``1:30`` is 90, an unquoted address is a
number, and the second of two equal keys wins.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

Path = tuple[str | int, ...]
"""Keys and list indices from the top."""

_NULL = "tag:yaml.org,2002:null"
_NAMED = re.compile(r"(alias|anchor) '.*'")


class CoreLoader(yaml.SafeLoader):
    """Scalars of the core schema of YAML 1.2; hexadecimal only up to 64 bits."""


class TextLoader(yaml.BaseLoader):
    """Every scalar stays the text it is in the file, except null: how Go fills string fields."""


_NULLS = re.compile(r"(?:~|null|Null|NULL|)\Z")
CoreLoader.yaml_implicit_resolvers = {}  # instead of those of YAML 1.1
CoreLoader.add_implicit_resolver(_NULL, _NULLS, ["~", "n", "N", ""])
CoreLoader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z"), list("tTfF")
)
CoreLoader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"(?:0x[0-9a-fA-F]{1,16}|[-+]?(?:0|[1-9][0-9]*))\Z"),
    list("-+0123456789"),
)
CoreLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?[0-9]+\.[0-9]*(?:[eE][-+]?[0-9]+)?\Z"),
    list("-+0123456789"),
)
CoreLoader.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile(r"<<\Z"), ["<"])
TextLoader.add_implicit_resolver(_NULL, _NULLS, ["~", "n", "N", ""])
TextLoader.add_constructor(_NULL, lambda _loader, _node: None)


@dataclass(frozen=True, slots=True)
class Document:
    """What a file says.

    Attributes:
        value: Mappings, lists and scalars.
        lines: Line of each key and list item, from 1.
        problems: One for each repeated key, beginning with its path.
    """

    value: object
    lines: dict[Path, int]
    problems: tuple[str, ...]


def show(path: Path) -> str:
    """Return ``("chain", "endpoints", 0)`` as ``chain.endpoints[0]``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def parse(text: str, loader: type[CoreLoader | TextLoader] = CoreLoader) -> Document:
    """Read one document.

    Raises:
        ValueError: Not YAML. The message begins with the line and quotes nothing of the values.
    """
    try:
        reader = loader(text)
        try:
            node = reader.get_single_node()
            lines: dict[Path, int] = {}
            problems = () if node is None else tuple(_repeats(node, (), lines, set()))
            # construct_document is untyped; SafeLoader and BaseLoader make plain values only.
            value: object = None if node is None else reader.construct_document(node)
        finally:
            reader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        what = _NAMED.sub(r"\1", error.problem or "cannot be read")
        raise ValueError(f"{where}not YAML: {what}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"not YAML: {type(error).__name__}") from None
    return Document(value, lines, problems)


def _repeats(node: yaml.Node, path: Path, lines: dict[Path, int], above: set[int]) -> Iterator[str]:
    """Note the line of everything under ``node``; yield a problem for each repeated key."""
    if id(node) in above:
        return
    inside = above | {id(node)}
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines[*path, index] = item.start_mark.line + 1
            yield from _repeats(item, (*path, index), lines, inside)
    elif isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            here = (*path, name)
            if name in seen:
                yield f"{show(here)}: repeated on line {line}, first on line {seen[name]}"
                continue
            seen[name] = lines[here] = line
            yield from _repeats(value, here, lines, inside)
