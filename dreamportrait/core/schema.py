"""Checks of configurations that come from files, against the annotations of their dataclasses."""

import math
from dataclasses import fields, is_dataclass
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from dreamportrait.core.errors import WeightsError, brief, listed

MAX_SIZE = 65536  # largest whole number allowed; the largest official one is 32768, a channel base

T = TypeVar("T")


def from_dict(kind: type[T], values: object, where: str) -> T:
    """Build a dataclass from its `asdict` after a round trip through JSON.

    Raise WeightsError if a key is unknown or missing, or a value has the wrong type. Only a field whose metadata has
    "later" may be missing, because older files lack it; it then gets its default.
    """
    if not isinstance(values, dict):
        raise WeightsError(f"{where} must be an object, got {brief(values)}")
    hints = get_type_hints(kind)
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    if unknown := sorted(set(values) - set(known)):
        raise WeightsError(f"{where} has unknown keys [{listed(list(map(repr, unknown)))}]; known are {sorted(known)}")
    later = {field.name for field in fields(kind) if field.metadata.get("later")}  # type: ignore[arg-type]
    if missing := sorted(set(known) - set(values) - later):
        raise WeightsError(f"{where} lacks {missing}")
    checked = {name: _value(hints[name], values[name], f"{where}.{name}") for name in known if name in values}
    try:
        return kind(**checked)
    except ValueError as error:
        raise WeightsError(f"{where}: {error}") from None


def _value(hint: Any, value: Any, where: str) -> Any:
    origin, options = get_origin(hint), get_args(hint)
    if origin is tuple:
        if options[1:] == (...,) and isinstance(value, list | tuple):  # a tuple of any length
            options = options[:1] * len(value)
        if not (isinstance(value, list | tuple) and len(value) == len(options)):
            raise WeightsError(f"{where} must be a list of {len(options)} values, got {brief(value)}")
        return tuple(_value(option, item, where) for option, item in zip(options, value, strict=True))
    choices = options if origin in (Union, UnionType) else (hint,)
    for choice in choices:
        if is_dataclass(choice) and (isinstance(value, dict) or len(choices) == 1):
            return from_dict(choice, value, where)  # type: ignore[arg-type]
        if get_origin(choice) is tuple and isinstance(value, list | tuple):
            return _value(choice, value, where)
        if _fits(choice, value):
            return float(value) if choice is float else value
    expected = " or ".join(_described(choice) for choice in choices)
    raise WeightsError(f"{where} must be {expected}, got {brief(value)}")


def _fits(hint: Any, value: Any) -> bool:
    if get_origin(hint) is Literal:
        return any(type(value) is type(option) and value == option for option in get_args(hint))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return type(value) is hint and (hint is not int or 0 <= value <= MAX_SIZE)


def _described(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return " or ".join(repr(option) for option in get_args(hint))
    if hint is int:
        return f"a whole number from 0 to {MAX_SIZE}"
    if get_origin(hint) is tuple:
        return "a list"
    names = {float: "a finite number", bool: "true or false", str: "text", type(None): "null"}
    return names.get(hint, "an object")
