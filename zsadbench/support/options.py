"""Options are frozen dataclasses: `FIELD=VALUE` texts become a changed copy, and fields and comments become texts."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import io
import tokenize
import types
import typing
from collections.abc import Collection, Mapping
from typing import Any, Literal, NamedTuple, TypeVar, Union

from zsadbench.errors import OptionError, UnknownName, counted
from zsadbench.support import variants

Config = TypeVar("Config")


class Option(NamedTuple):
    """One field of a class, in words."""

    name: str
    default: str  # as --set takes it; "" where there is none
    meaning: str  # the comment at the end of its line


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


def texts(config: Any, names: Collection[str], owner: str) -> dict[str, str]:
    """Return some fields of a dataclass as texts that `override` reads, in the order of the class.

    Raises OptionError for a value that cannot be written in the name of a variant.
    """
    found = {
        field.name: text(getattr(config, field.name)) for field in dataclasses.fields(config) if field.name in names
    }
    if found and variants.split(variants.join(owner, found))[1] != found:
        raise OptionError(
            f"{variants.join(owner, found)} cannot be the name of a variant; set these options with --set."
        )
    return found


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
        return "" if text == '""' else text
    raise ValueError(f"this field cannot be set as text (its type is {annotation})")


def _parse_union(text: str, alternatives: tuple[Any, ...]) -> Any:
    # None first, so that "none" never becomes the string "none".
    problems = []
    for alternative in sorted(alternatives, key=lambda kind: kind is not type(None)):
        try:
            return parse(text, alternative)
        except ValueError as error:
            problems.append(str(error))
    told = (problem.removeprefix(f"got {text!r}, expected ") for problem in dict.fromkeys(problems))
    raise ValueError(f"got {text!r}, expected {' or '.join(told)}")


def documented(kind: type) -> list[Option]:
    """Return the fields of a class, those of its bases first, with their defaults and what comments say of them."""
    meanings: dict[str, str] = {}
    for owner in reversed(kind.__mro__):
        if owner is not object:
            meanings |= _comments(owner)
    fields = {field.name: field.default for field in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else {}
    return [
        Option(name, text(fields.get(name, getattr(kind, name, dataclasses.MISSING))), meaning)
        for name, meaning in meanings.items()
    ]


def _comments(kind: type) -> dict[str, str]:
    """Return field -> the comment at the end of its line, "" for none, from the source of a class; {} without one."""
    try:
        source = inspect.getsource(kind)
    except (OSError, TypeError):
        return {}
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    body = ast.parse(source).body[0]
    return {
        node.target.id: comments.get(node.end_lineno or 0, "")
        for node in getattr(body, "body", ())
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


def changes(config: Any) -> dict[str, str]:
    """Return the options that differ from the defaults of their class, and the training set: name -> text."""
    return {
        field.name: text(getattr(config, field.name))
        for field in dataclasses.fields(config)
        if getattr(config, field.name) != field.default or field.name == "trained_on"
    }


def text(value: Any) -> str:
    """Return an option's value as `--set` takes it; a training recipe in words; "" for no value."""
    if value is dataclasses.MISSING or isinstance(value, property):
        return ""
    if dataclasses.is_dataclass(value):
        stages = [f"{counted(stage.epochs, 'epoch')} at {stage.lr:g}" for stage in getattr(value, "stages", ())]
        return ", then ".join(stages) or f"{type(value).__name__}()"
    if isinstance(value, tuple):
        return ",".join(map(text, value))
    return f'"{value}"' if value == "" else str(value)
