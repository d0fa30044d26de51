"""Options are frozen dataclasses; this module turns the user's `FIELD=VALUE` texts into a changed copy."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union

from zsadbench.errors import OptionError, UnknownName

Config = TypeVar("Config")


def override(config: Config, changes: Mapping[str, Any], owner: str) -> Config:
    """Return a copy of a frozen dataclass with some fields replaced; texts are parsed by the field's annotation.

    `owner` names the method in errors. Raises UnknownName for a field that does not exist (the message lists the
    fields) and OptionError for a value that does not fit.
    """
    if not changes:
        return config
    hints = typing.get_type_hints(type(config))
    names = [field.name for field in dataclasses.fields(config)]  # type: ignore[arg-type]  # a dataclass by contract
    values = {}
    for name, value in changes.items():
        if name not in names:
            raise UnknownName(f"option of {owner}", name, names)
        try:
            values[name] = parse(value, hints[name]) if isinstance(value, str) else value
        except ValueError as error:
            raise OptionError(f"--set {owner}.{name}={value}: {error}.") from None
    return dataclasses.replace(config, **values)  # type: ignore[type-var]  # a dataclass by contract


def parse(text: str, annotation: Any) -> Any:
    """Parse one text as int, float, bool, str, None, a Literal or a tuple ("6,12,18,24"). Raises ValueError."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (Union, types.UnionType):
        return _parse_union(text, arguments)
    if origin is Literal:
        for choice in arguments:
            if text == str(choice):
                return choice
        raise ValueError(f"got {text!r}, expected one of {', '.join(map(str, arguments))}")
    if origin is tuple:
        return tuple(parse(part.strip(), arguments[0]) for part in text.strip("()[]").split(",") if part.strip())
    if annotation is bool:
        if text.lower() not in ("true", "false", "1", "0", "yes", "no", "on", "off"):
            raise ValueError(f"got {text!r}, expected true or false")
        return text.lower() in ("true", "1", "yes", "on")
    if annotation is type(None):
        if text.lower() not in ("none", "null"):
            raise ValueError(f"got {text!r}, expected none")
        return None
    if annotation in (int, float):
        try:
            return annotation(text)
        except ValueError:
            raise ValueError(f"got {text!r}, expected {'an integer' if annotation is int else 'a number'}") from None
    if annotation is str:
        return text
    raise ValueError(f"this field cannot be set as text (its type is {annotation})")


def _parse_union(text: str, alternatives: tuple[Any, ...]) -> Any:
    # None first, so that "none" never becomes the string "none".
    problems = []
    for alternative in sorted(alternatives, key=lambda kind: kind is not type(None)):
        try:
            return parse(text, alternative)
        except ValueError as error:
            problems.append(str(error))
    raise ValueError(" or ".join(dict.fromkeys(problems)))
