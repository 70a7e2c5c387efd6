"""Reads configurations from YAML files and "a.b=c" overrides, checks them, and reports all problems at once.

A file may extend another one: `base: other.yaml`, relative to itself. Its own settings override those of the base; a
list replaces the whole list of the base. Scalars follow YAML 1.2: `off` is text, `1e-3` is a number.
"""

import difflib
import re
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml  # type: ignore[import-untyped]
from pydantic import BaseModel, ValidationError

from dreamportrait.core.errors import brief, shown
from dreamportrait.core.files import MEBIBYTE, read_text

C = TypeVar("C")
Place = tuple[Any, ...]  # keys, and indices of list items
BASE = "base"
MOST_BYTES, MOST_VALUES = MEBIBYTE, 10_000  # of a configuration; the longest shipped ones have some 100 values


class Problem(NamedTuple):
    keys: tuple[str, ...]  # dotted names of the settings involved
    text: str

    def __str__(self) -> str:
        return f"{' and '.join(self.keys)}: {self.text}" if self.keys else self.text


def problems_of(config: C, checks: Mapping[str, Callable[[C], object]]) -> list[Problem]:
    """Return a problem for each check, by the setting that it looks at, that raises ValueError or OSError."""
    found = []
    for key, check in checks.items():
        try:
            check(config)
        except (ValueError, OSError) as error:
            found.append(Problem((key,), str(error)))
    return found


class ConfigError(ValueError):
    """A configuration is wrong. The message lists all problems."""

    def __init__(self, where: str, problems: list[Problem]) -> None:
        self.problems = problems
        lines = "".join(f"\n  - {problem}" for problem in problems)
        super().__init__(f"{where}: {len(problems)} problem{'s' if len(problems) > 1 else ''}{lines}")


class Schema(Protocol):
    """A pydantic model that can also list contradictions between its settings."""

    @classmethod
    def model_validate(cls, obj: Any) -> Any: ...

    def contradictions(self) -> list[Problem]: ...


S = TypeVar("S", bound=Schema)


def load(kind: type[S], path: str | Path, overrides: Sequence[str] = ()) -> S:
    """Read a YAML file, apply each override "a.b=c", and raise ConfigError with all problems if there are any."""
    config, problems = read(kind, path, overrides)
    if problems or config is None:
        raise ConfigError(str(path), problems)
    return config


def read(kind: type[S], path: str | Path, overrides: Sequence[str] = ()) -> tuple[S | None, list[Problem]]:
    """Read a configuration. Return its valid part, or None if there is no valid part, and all problems.

    The caller can check the valid part for further problems.
    """
    values, problems = read_yaml(Path(path)), []
    for text in overrides:
        try:
            override(values, text)
        except ValueError as error:
            problems.append(Problem((), str(error)))
    config, wrong = validated(kind, values)
    problems += wrong
    if config is not None:
        wrong_keys = [key for problem in problems for key in problem.keys]
        problems += [problem for problem in config.contradictions() if not concerns(problem, wrong_keys)]
    return config, problems


def concerns(problem: Problem, keys: list[str]) -> bool:
    """Return whether a problem involves one of `keys`, or a setting above or below one.

    Such a problem may be only a consequence of the problem with that key.
    """
    return any(
        f"{own}.".startswith(f"{key}.") or f"{key}.".startswith(f"{own}.") for own in problem.keys for key in keys
    )


def validated(kind: type[S], values: dict[str, Any]) -> tuple[S | None, list[Problem]]:
    """Validate `values` and remove the wrong settings, until the rest is valid or nothing more can be removed."""
    problems: dict[str, str] = {}
    while True:
        try:
            return kind.model_validate(values), [Problem((key,), text) for key, text in problems.items()]
        except ValidationError as error:
            details = error.errors()
        places = [locate(values, detail["loc"]) for detail in details]
        new: dict[str, str] = {}
        for place, detail in zip(places, details, strict=True):
            key, text = dotted(place), explain(detail, kind)
            new[key] = f"{new[key]}; or {text}" if key in new else text
        problems |= {key: text for key, text in new.items() if key not in problems}
        if not without(values, places):
            return None, [Problem((key,), text) for key, text in problems.items()]


# ----- YAML -----------------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """A YAML loader that refuses duplicate keys, and reads booleans and numbers as YAML 1.2 does."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            name = self.construct_object(key, deep=True)
            if isinstance(name, list | dict | set):
                raise yaml.constructor.ConstructorError(None, None, "a name cannot be a list", key.start_mark)
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


def read_yaml(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Read a file of sections and settings, merged over its `base` if it has one. above: the files that extend it."""
    try:
        text = read_text(path, MOST_BYTES)
    except FileNotFoundError:
        raise ValueError(f"{path} is not there; configs/ holds configurations to start from") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    values = parse(text, str(path))
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold sections with settings, as the files in configs/ do")
    if BASE not in values:
        return values
    base, chain = values.pop(BASE), (*above, path.resolve())
    if not isinstance(base, str):
        raise ValueError(f"{path}: base is {brief(base)}; name one file, relative to this one")
    if (there := (path.parent / base).resolve()) in chain:
        raise ValueError(f"{path}: base {base} leads back to {path}; break the circle")
    if not there.is_file():
        raise ValueError(f"{path}: base {base} is not there; name a file, relative to this one")
    return _merged(read_yaml(there, chain), values)


def _merged(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of `base`, overridden by those of `own`, section by section."""
    both = {key: _merged(base[key], own[key]) for key in own if _are_sections(base.get(key), own[key])}
    return {**base, **own, **both}


def _are_sections(*values: Any) -> bool:
    return all(isinstance(value, dict) for value in values)


def parse(text: str, where: str) -> Any:
    """Parse YAML text; `where` names it in errors."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if (count := _count(node, {})) > MOST_VALUES:
            raise yaml.YAMLError(f"{count:,} values with all anchors filled in; the most are {MOST_VALUES:,}")
        return None if node is None else loader.construct_document(node)
    except RecursionError:
        raise ValueError(f"{where} is no YAML: it is nested too deeply, or an anchor holds itself") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{where} is no YAML: {str(error)[:500]}") from None
    except (ValueError, TypeError, LookupError, AttributeError) as error:  # from tags such as !!int
        raise ValueError(f"{where} is no YAML: a value does not fit its tag, {shown(str(error))}") from None


def _count(node: Any, known: dict[int, int]) -> int:
    """Return how many values a node holds if each use of an anchor is counted. A node that holds itself never ends."""
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if id(node) not in known:
        parts = [part for item in node.value for part in (item if isinstance(item, tuple) else (item,))]
        known[id(node)] = 1 + sum(_count(part, known) for part in parts)
    return known[id(node)]


def override(values: dict[str, Any], text: str) -> None:
    """Apply "a.b=c" to `values` in place. c is YAML; a number in the name is the position in a list."""
    name, equals, given = text.partition("=")
    text = text if len(text) <= 100 else f"{text[:100]}..."  # for messages
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
        if place.get(part) is None:  # the file does not set this section
            place[part] = {}
        inner = place[part]
    if not isinstance(inner, dict | list):
        raise ValueError(f"--set {text}: {part} is {brief(inner)}, no section")
    return inner


def _position(place: list[Any], part: str, text: str) -> int:
    if not part.isdecimal() or int(part) >= len(place):
        raise ValueError(f"--set {text}: {part!r} must be a number from 0 to {len(place) - 1}, the list's items")
    return int(part)


def dotted(place: Place) -> str:
    return ".".join(str(part) for part in place)


def explain(detail: Mapping[str, Any], schema: type) -> str:
    """Turn one of pydantic's errors into a sentence."""
    if detail["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        known = sorted(_fields(_section(schema, detail["loc"][:-1])))
        if close := difflib.get_close_matches(str(detail["loc"][-1]), known, 1):
            return f"unknown; did you mean {close[0]}?"
        return f"unknown; known are {', '.join(known)}"
    if detail["type"] == "missing":
        return "missing, and has no default"
    message = detail["msg"][0].lower() + detail["msg"][1:]
    return f"{brief(detail['input'])}: {message}"


def _section(schema: Any, place: Iterable[int | str]) -> Any:
    """Return the class of the section at a place: a pydantic model or a dataclass."""
    for part in place:
        schema = _item(schema) if isinstance(part, int) else _alternative(_fields(schema)[part])
    return _alternative(schema)


def _fields(section: Any) -> dict[str, Any]:
    """Return the annotation of each setting of a section."""
    if is_dataclass(section):
        return {name: hint for name, hint in get_type_hints(section).items() if not name.startswith("__")}
    model: type[BaseModel] = section
    return {name: info.annotation for name, info in model.model_fields.items()}


def _item(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) in (tuple, list) else annotation


def _alternative(annotation: Any) -> Any:
    """Return the annotation without `| None`."""
    if get_origin(annotation) in (Union, types.UnionType):
        return next(kind for kind in get_args(annotation) if kind is not type(None))
    return annotation


def locate(values: dict[str, Any], place: Place) -> Place:
    """Return the part of a place that exists in `values`, and at most one missing key.

    The rest are names that pydantic adds for the alternatives of a union.
    """
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
    """Remove the values at these places; return whether any existed."""
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
