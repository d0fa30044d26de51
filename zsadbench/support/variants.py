"""A method with options of its own in its name, `fiseclip[lambda_=1.05]`: how such names are read and written.

A name is METHOD or METHOD.PRESET, and a variant of it is NAME[OPTION=VALUE,...]. A part between commas that names no
option belongs to the value before it: `clip_ad[layers=6,12,18]` has one option. `zsadbench.methods.lookup` checks
options and values and gives the one name that equal variants have.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from urllib.parse import quote, unquote

from zsadbench.errors import UsageError

LONGEST = 200  # bytes of a folder name; file systems take 255, and files of a write have longer names
SAFE = " !#$&'()+,-.;=@[]^_`{}~"  # characters that every file system takes in a folder name, beside letters and digits
_OPTION = re.compile(r"\s*([A-Za-z_]\w*)\s*=(.*)", re.DOTALL)


def split(name: str) -> tuple[str, dict[str, str]]:
    """Return the method with its preset, and the options in the brackets. Raises UsageError for what cannot be read."""
    base, bracket, rest = name.partition("[")
    if not bracket:
        return name, {}
    found: dict[str, str] = {}
    option = ""
    for part in rest.removesuffix("]").split(",") if rest.endswith("]") else [""]:
        match = _OPTION.fullmatch(part)
        if match and match[1] in found:
            raise UsageError(f"{name}: {match[1]} is given twice; give it once.")
        if match:
            option = match[1]
            found[option] = match[2].strip()
        elif option:
            found[option] += f",{part.strip()}"
        else:
            raise UsageError(f"got the method {name!r}; expected METHOD[OPTION=VALUE], e.g. fiseclip[lambda_=1.05].")
    return base.strip(), found


def join(base: str, options: Mapping[str, str]) -> str:
    """Return the name of a variant; that of the method itself where there are no options."""
    return f"{base}[{','.join(f'{name}={value}' for name, value in options.items())}]" if options else base


def base_of(name: str) -> str:
    """Return a name without the options of a variant. Raises nothing: names in records of others may be anything."""
    return name.partition("[")[0]


def stem_of(name: str) -> str:
    """Return the method alone, without preset and options."""
    return base_of(name).partition(".")[0]


def preset_of(name: str) -> str:
    """Return the preset in a name; "" where there is none."""
    return base_of(name).partition(".")[2]


def suffix_of(name: str) -> str:
    """Return the options of a variant as they stand in its name, "[lambda_=1.05]"; "" where there are none."""
    return name.removeprefix(base_of(name))


def is_called(method: str, name: str) -> bool:
    """Tell whether a user who types `name` means a method of a record: it, its base or stem, or an equal variant."""
    if name in (method, base_of(method), stem_of(method)):
        return True
    (base, own), (asked, wanted) = split(method), split(name)
    return asked == base and own.keys() == wanted.keys() and all(_equal(own[one], wanted[one]) for one in own)


def _equal(one: str, other: str) -> bool:
    try:
        return one == other or float(one) == float(other)
    except ValueError:
        return False


def to_folder(name: str) -> str:
    """Return the folder that a method's records lie in: its name, with %-codes for what no folder may be called."""
    return quote(name, safe=SAFE)


def from_folder(folder: str) -> str:
    """Return the method whose records lie in a folder."""
    return unquote(folder)


def parts(text: str) -> Iterator[str]:
    r"""Yield what stands between commas; a comma in brackets, or written "\,", separates nothing."""
    for part in re.split(r",(?![^\[(]*[\])])", text.replace("\\,", "\0")):
        yield part.replace("\0", ",").strip()
