"""JSON files that others wrote, strangers among them: read strictly, and checked against the fields that are expected.

Python's own reader takes NaN, lets the last of two equal keys win and waits for ever at a pipe; and a field that is not
what its type says goes wrong far from the file.
"""

from __future__ import annotations

import json
import math
import os
import stat
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any, Literal, TypeVar, Union, cast

SIZE = 2**26  # bytes of a JSON file: records and cards have some kilobytes
_NUMBER = 2**63  # larger whole numbers do not fit where they are used
_SHOWN = 40  # characters of a wrong value
_WORDS = {str: "a text", bool: "true or false", int: "a whole number", float: "a number", types.NoneType: "null"}

T = TypeVar("T")


class Malformed(ValueError):
    """What a file holds is not what was expected: the message says where, what and what else, but names no file."""


def open_file(path: Path) -> IO[bytes]:
    """Open a file for reading. Raises OSError, and Malformed for a folder, pipe or device."""
    flags = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)  # a pipe that nobody writes to would never open
    file = os.fdopen(os.open(path, os.O_RDONLY | flags), "rb", closefd=True) if not path.is_dir() else None
    if file is None or not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        if file is not None:
            file.close()
        raise Malformed("it is no file but a folder, a pipe or a device")
    return file


def read(path: Path) -> Any:
    """Return what a JSON file holds. Raises OSError when it cannot be read, and Malformed."""
    with open_file(path) as file:
        content = file.read(SIZE + 1)
    if len(content) > SIZE:
        raise Malformed(f"it has more than {SIZE} bytes")
    try:
        return parse(content.decode())
    except UnicodeDecodeError as error:
        raise Malformed(f"it is no text: {error}") from error


def parse(text: str) -> Any:
    """Return the value of a JSON text whose numbers are finite and whose keys stand once. Raises Malformed."""
    try:
        value = json.loads(
            text, object_pairs_hook=unique, parse_constant=_number, parse_float=_number, parse_int=_integer
        )
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()  # half a character cannot be printed
    except RecursionError:
        raise Malformed("it is nested too deeply") from None
    except UnicodeEncodeError:
        raise Malformed("it holds half a character") from None
    except Malformed:
        raise
    except ValueError as error:
        raise Malformed(f"it is not JSON: {error}") from error
    return value


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of a JSON file. Raises Malformed if a key is there twice."""
    values = dict(pairs)
    if len(values) < len(pairs):
        raise Malformed(f"one object has a key twice, among {', '.join(list(values)[:8])}")
    return values


def build(kind: type[T], value: Any, place: str = "") -> T:
    """Return a JSON value as the dataclass `kind`, every field checked against its type. Raises Malformed.

    place: where the value stands in its file, "" for the whole of it.
    """
    if not isinstance(value, Mapping):
        raise _wrong(place, value, "an object")
    dot, hints = f"{place}." if place else "", _hints(cast(Any, kind))
    known = {field.name: field for field in fields(cast(Any, kind))}
    for name in value:
        if name not in known:
            raise Malformed(f"{dot}{_short(name)} is a field that is not known")
    for name, field in known.items():
        if name not in value and field.default is MISSING and field.default_factory is MISSING:
            raise Malformed(f"{dot}{name} is missing")
    return kind(**{name: checked(one, hints[name], f"{dot}{name}") for name, one in value.items()})


def checked(value: Any, hint: Any, place: str) -> Any:
    """Return a JSON value as its type, which may be a dataclass or hold some. Raises Malformed."""
    kind, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if is_dataclass(hint):
        return build(cast(Any, hint), value, place)
    if kind in (Union, types.UnionType):
        return checked(value, _member(value, arguments, hint, place), place)
    if kind is Literal and isinstance(value, str) and value in arguments:
        return value
    if kind is dict and isinstance(value, dict):
        return {name: checked(one, arguments[1], f"{place}.{_name(name)}") for name, one in value.items()}
    if kind in (list, tuple) and isinstance(value, list):
        return kind(checked(one, arguments[0], f"{place}[{i}]") for i, one in enumerate(value))
    if hint is float and type(value) is int:
        return float(value)
    if hint in _WORDS and type(value) is hint:  # true is no number
        return value
    raise _wrong(place, value, _words(hint))


def _member(value: Any, hints: tuple[Any, ...], whole: Any, place: str) -> Any:
    """Return the one of several types that a value is meant to be: null is null, the others differ in JSON."""
    for hint in hints:
        try:
            checked(value, hint, place)
        except Malformed:
            if value is not None and is_dataclass(hint):
                return hint  # whose message is the better one
            continue
        return hint
    raise _wrong(place, value, _words(whole))


def _words(hint: Any) -> str:
    kind, arguments = typing.get_origin(hint), typing.get_args(hint)
    if kind in (Union, types.UnionType):
        return " or ".join(map(_words, arguments))
    if kind is Literal:
        return " or ".join(map(repr, arguments))
    return {dict: "an object", list: "a list", tuple: "a list"}.get(kind) or _WORDS.get(hint, "an object")


def _wrong(place: str, value: Any, expected: str) -> Malformed:
    return Malformed(f"{place or 'the whole'} is {_short(value)}; expected {expected}")


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _name(name: str) -> str:
    return name if name.isidentifier() else _short(name)


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise Malformed(f"it holds {text[:_SHOWN]}; expected finite numbers")
    return value


def _integer(text: str) -> int:
    value = int(text)
    if abs(value) >= _NUMBER:
        raise Malformed(f"it holds {text[:_SHOWN]}; expected smaller numbers")
    return value
