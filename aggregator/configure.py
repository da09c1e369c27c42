"""Reads the configuration file and the environment into ``Settings``.

Everything that is wrong is reported at once, one line each, beginning with the path of its key.
No message repeats a value that could be a secret.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

from pydantic import ValidationError

from aggregator import configfiles, yamlfile
from aggregator.sections import Misfits, Section
from aggregator.settings import Settings
from aligned.errors import BadConfiguration

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from pydantic_core import ErrorDetails

logger = logging.getLogger(__name__)

PREFIX = "ALIGNED_"
"""Of the environment variables that override the file."""

_LINKS = re.compile(
    r"(?:.*_)?(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT(?:_\d+_(?:TCP|UDP|SCTP)(?:_\w+)?)?)"
)
"""What Kubernetes puts into the environment for a Service called ``aligned…``. Ours have two
underscores after the section."""


def load(path: Path, environment: Mapping[str, str]) -> Settings:
    """Return the settings of the file at ``path`` with the overrides of ``environment``.

    Relative paths in both are resolved against the folder of the file.

    Raises:
        BadConfiguration: With every problem found.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise BadConfiguration((f"{path}: cannot be read: {error.strerror}",)) from error
    except UnicodeDecodeError as error:
        raise BadConfiguration((f"{path}: is not text in UTF-8",)) from error
    return read(text, environment, folder=path.absolute().parent, name=str(path))


def read(text: str, environment: Mapping[str, str], *, folder: Path, name: str) -> Settings:
    """Return the settings of ``text``; see ``load``.

    Args:
        text: Of the file.
        environment: Of the process.
        folder: That relative paths are resolved against; absolute.
        name: Of the file, for messages about it as a whole.

    Raises:
        BadConfiguration: With every problem found.
    """
    try:
        document = yamlfile.parse(text)
    except ValueError as error:
        raise BadConfiguration((f"{name}: {error}",)) from error
    if not isinstance(document.value, dict):
        raise BadConfiguration((f"{name}: must be a mapping with the keys {_names(Settings)}",))
    draft = _Draft(document.value, document.lines, list(document.problems))
    draft.override(environment)
    settings = draft.validated()
    if settings is not None:
        settings = configfiles.resolved(settings, folder)
        draft.problems += configfiles.problems(settings)
    if settings is None or draft.problems:
        raise BadConfiguration(tuple(draft.problems))
    return settings


def environment_names() -> dict[str, yamlfile.Path]:
    """Return the path of the key for every variable that may be set, sections included."""
    return {
        PREFIX + "__".join(str(part) for part in path).upper(): path for path in _keys(Settings, ())
    }


@dataclass
class _Draft:
    """The file on its way to settings."""

    value: dict[Any, Any]
    lines: dict[yamlfile.Path, int]
    problems: list[str]
    sources: dict[yamlfile.Path, str] = field(default_factory=dict)
    """Variable that set a path."""

    def override(self, environment: Mapping[str, str]) -> None:
        known = environment_names()
        for name in sorted(environment):  # a section before its keys
            if not name.startswith(PREFIX) or _LINKS.fullmatch(name.removeprefix(PREFIX)):
                continue
            if name in known:
                self._set(known[name], name, environment[name])
            else:
                self._stranger(name, "no such setting", known)

    def validated(self) -> Settings | None:
        try:
            return Settings.model_validate(self.value)
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False)
        strangers = [each for each in found if each["type"] == "extra_forbidden"]
        if strangers and self.is_rendered:
            for each in strangers:
                self._drop(each)
            return self.validated()
        for each in found:
            if not _follows(each, found):
                self._refuse(each)
        self._miss_signer()
        return None

    @property
    def is_rendered(self) -> bool:
        return self.value.get("rendered_by") == "controller"

    def _set(self, path: yamlfile.Path, name: str, text: str) -> None:
        try:
            value = yamlfile.parse(text).value
        except ValueError:
            value = text  # [::]:8090 is no YAML and still an address
        target = self.value
        for part in path[:-1]:
            if not isinstance(target.get(part), dict):
                target[part] = {}
            target = target[part]
        target[path[-1]] = value
        self.sources[path] = name
        size = len(path)
        self.lines = {key: line for key, line in self.lines.items() if key[:size] != path}

    def _stranger(self, shown: str, what: str, known: Iterable[str]) -> None:
        near = get_close_matches(shown, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        if self.is_rendered:
            logger.warning(
                "unknown setting ignored; expected while versions differ during an upgrade",
                extra={"setting": shown},
            )
        else:
            self.problems.append(f"{shown}: {what}{hint}")

    def _drop(self, error: ErrorDetails) -> None:
        path = _path(error)
        holder: Any = self.value
        for part in path[:-1]:
            holder = holder[part]
        del holder[path[-1]]
        self._stranger(yamlfile.show(path), "unknown key", ())

    def _refuse(self, error: ErrorDetails) -> None:
        path = _path(error)
        if error["type"] == "extra_forbidden":
            siblings = [yamlfile.show((*path[:-1], key)) for key in _siblings(path)]
            self._stranger(yamlfile.show(path), f"unknown key{self._origin(path)}", siblings)
            return
        cause = error.get("ctx", {}).get("error")
        if isinstance(cause, Misfits):
            for key, problem in cause.problems.items():
                here = yamlfile.show((*path, key))
                self.problems.append(f"{here}: {problem}{self._origin((*path, key))}")
            return
        shown = yamlfile.show(path) or "the file"
        self.problems.append(f"{shown}: {_sentence(error)}{self._origin(path)}")

    def _miss_signer(self) -> None:
        """Rules between sections are not reached while one is wrong; this one is met most."""
        submission = self.value.get("submission")
        mode = submission.get("mode") if isinstance(submission, dict) else None
        if self.value.get("signer") is None and mode != "observe":
            problem = "signer: required unless submission.mode is 'observe'"
            if not any(each.startswith(problem) for each in self.problems):
                self.problems.append(problem)

    def _origin(self, path: yamlfile.Path) -> str:
        for length in range(len(path), 0, -1):
            if name := self.sources.get(path[:length]):
                return f" (from {name})"
            if line := self.lines.get(path[:length]):
                return f" (line {line})"
        return ""


_SENTENCES = {
    "missing": "required",
    "union_tag_not_found": "required",
    "string_type": "must be text; put it in quotes",
    "path_type": "must be a path; put it in quotes",
    "tuple_type": "must be a list",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a duration such as '15s'",
    "finite_number": "must be finite",
    "invalid_key": "keys must be text",
}


def _sentence(error: ErrorDetails) -> str:
    """Say what is wrong without the value."""
    kind, context = error["type"], error.get("ctx", {})
    if kind in _SENTENCES:
        return _SENTENCES[kind]
    if kind in {"model_type", "model_attributes_type", "dict_type"}:
        return "must be a mapping of keys to values"
    if kind in {"enum", "literal_error"}:
        return f"must be {context['expected']}"
    if kind == "union_tag_invalid":
        return f"must be {context['expected_tags']}"
    message = error["msg"].removeprefix("Value error, ")
    return message.replace("Input should be", "must be").replace("Tuple should", "must")


def _follows(error: ErrorDetails, found: list[ErrorDetails]) -> bool:
    """Tell whether a list is too short only because its items are wrong."""
    size = len(error["loc"])
    return error["type"] == "too_short" and any(
        len(each["loc"]) > size and each["loc"][:size] == error["loc"] for each in found
    )


def _path(error: ErrorDetails) -> yamlfile.Path:
    """Return where the error is in the file: without the tag that pydantic adds for a union."""
    path = error["loc"]
    if path[:1] == ("signer",) and len(path) > 1 and path[1] in {"keystore", "web3signer"}:
        path = ("signer", *path[2:])
    if error["type"].startswith("union_tag"):
        path = (*path, "type")
    return path


def sections_of(annotation: object) -> list[type[Section]]:
    """Return the section classes in a field's type, a list's items excluded."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    origin = get_origin(annotation)
    if origin is tuple:
        return []
    arguments = get_args(annotation)[:1] if origin is Annotated else get_args(annotation)
    return [section for each in arguments for section in sections_of(each)]


def _keys(section: type[Section], path: yamlfile.Path) -> Iterator[yamlfile.Path]:
    for name, info in section.model_fields.items():
        yield (*path, name)
        for inner in sections_of(info.annotation):
            yield from _keys(inner, (*path, name))


def _siblings(path: yamlfile.Path) -> list[str]:
    """Return the keys that are known beside the last one of ``path``."""
    sections: list[type[Section]] = [Settings]
    for part in path[:-1]:
        if isinstance(part, int):
            continue
        found = [section.model_fields.get(part) for section in sections]
        annotations = [info.annotation for info in found if info is not None]
        sections = [
            inner
            for annotation in annotations
            for each in (
                annotation,
                *(get_args(annotation) if get_origin(annotation) is tuple else ()),
            )
            for inner in sections_of(each)
        ]
    return [name for section in sections for name in section.model_fields]


def _names(section: type[Section]) -> str:
    return ", ".join(name for name in section.model_fields if name != "rendered_by")
