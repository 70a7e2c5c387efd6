"""YAML files and "a.b=c" into nested dictionaries, and what a schema finds wrong in them into sentences.

config.py says what may be in them. Of YAML only what it and JSON agree on is special: `off` is a text, `1e-3` a number.
"""

import difflib
import re
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import yaml  # type: ignore[import-untyped]
from pydantic import BaseModel

from dreamportrait.weights.errors import shown

Place = tuple[Any, ...]  # keys, and numbers of list items


class _Loader(yaml.SafeLoader):
    """Keys only once; booleans and numbers as in YAML 1.2."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            name = self.construct_object(key, deep=True)
            if name in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{name!r} is there twice", key.start_mark)
            seen.add(name)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


_BOOL, _FLOAT, _INT = (f"tag:yaml.org,2002:{name}" for name in ("bool", "float", "int"))
_Loader.yaml_implicit_resolvers = {
    first: [(tag, rule) for tag, rule in rules if tag not in (_BOOL, _FLOAT, _INT)]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_BOOL, re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver(_INT, re.compile(r"^[-+]?(?:0|[1-9][0-9_]*)$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    _FLOAT,
    re.compile(r"^[-+]?(?:[0-9][0-9_]*\.[0-9]*|\.[0-9]+|[0-9][0-9_]*(?=[eE]))(?:[eE][-+]?[0-9]+)?$"),
    list("-+.0123456789"),
)


def read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ValueError(f"{path} is not there; configs/ holds configurations to start from") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    values = parse(text, str(path))
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold sections with settings, as the files in configs/ do")
    return values


def parse(text: str, where: str) -> Any:
    try:
        return _Loader(text).get_single_data()
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{where} is no YAML: {error}") from None


def override(values: dict[str, Any], text: str) -> None:
    """Sets "a.b=c" in place, c as YAML; a number counts items of a list."""
    name, equals, given = text.partition("=")
    parts = name.strip().split(".")
    if not equals or not all(parts):
        raise ValueError(f"--set {text}: must be section.key=value")
    value = parse(given, f"--set {text}")
    place: Any = values
    for part in parts[:-1]:
        place = _step(place, part, text)
    if isinstance(place, list):
        place[_position(place, parts[-1], text)] = value
    else:
        place[parts[-1]] = value


def _step(place: Any, part: str, text: str) -> Any:
    if isinstance(place, list):
        inner = place[_position(place, part, text)]
    else:
        if place.get(part) is None:  # a section that the file leaves to its defaults
            place[part] = {}
        inner = place[part]
    if not isinstance(inner, dict | list):
        raise ValueError(f"--set {text}: {part} is {inner!r}, no section")
    return inner


def _position(place: list[Any], part: str, text: str) -> int:
    if not part.isdecimal() or int(part) >= len(place):
        raise ValueError(f"--set {text}: {part!r} must be a number from 0 to {len(place) - 1}, the list's items")
    return int(part)


def dotted(place: Place) -> str:
    return ".".join(str(part) for part in place)


def explain(detail: Mapping[str, Any], schema: type[BaseModel]) -> str:
    """A sentence for one of pydantic's errors."""
    if detail["type"] == "extra_forbidden":
        known = sorted(_section(schema, detail["loc"][:-1]).model_fields)
        if close := difflib.get_close_matches(str(detail["loc"][-1]), known, 1):
            return f"unknown; did you mean {close[0]}?"
        return f"unknown; known are {', '.join(known)}"
    if detail["type"] == "missing":
        return "missing, and has no default"
    message = detail["msg"][0].lower() + detail["msg"][1:]
    return f"{shown(repr(detail['input']))[1:-1]}: {message}"


def _section(schema: Any, place: Iterable[int | str]) -> type[BaseModel]:
    """The model that stands at a place."""
    for part in place:
        schema = _item(schema) if isinstance(part, int) else _model(schema.model_fields[part].annotation)
    model: type[BaseModel] = _model(schema)
    return model


def _item(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) in (tuple, list) else annotation


def _model(annotation: Any) -> Any:
    if get_origin(annotation) in (Union, types.UnionType):
        return next(kind for kind in get_args(annotation) if kind is not type(None))
    return annotation


def locate(values: dict[str, Any], place: Place) -> Place:
    """The part of a place that can be there: a schema's alternatives count as places too."""
    holder: Any = values
    for depth, part in enumerate(place):
        if not isinstance(holder, dict | list):
            return place[:depth]
        present = part in holder if isinstance(holder, dict) else isinstance(part, int) and part < len(holder)
        if not present:
            return place[: depth + 1]
        holder = holder[part]
    return place


def without(values: dict[str, Any], places: list[Place]) -> bool:
    """Takes out what is there of these places. -> whether anything was"""
    changed = False
    for place in sorted(set(places), key=_order, reverse=True):  # the last items of lists first
        holder: Any = values
        for part in place[:-1]:
            holder = holder[part]
        if isinstance(holder, list) or place[-1] in holder:
            del holder[place[-1]]
            changed = True
    return changed


def _order(place: Place) -> list[tuple[int, str]]:
    return [(part, "") if isinstance(part, int) else (-1, part) for part in place]
