"""Texts that users give, and texts from files of others, made harmless where they are shown."""

from __future__ import annotations

import re
from collections.abc import Sequence

from zsadbench.errors import UsageError
from zsadbench.support import variants

# What moves the cursor, changes colours or the window's title, or turns the direction of writing, and half characters,
# which cannot be written at all (file names that are no text have them).
_COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_FORMULA = re.compile(r"\s*[=+\-@]|[\t\r]")


def names_of(names: str | Sequence[str], option: str) -> tuple[str, ...]:
    r"""Return names that were given one by one, or as one text with commas.

    A comma in brackets, or written "\,", is part of a name. Raises UsageError naming the option where there is none.
    """
    parts = variants.parts(names) if isinstance(names, str) else names
    found = tuple(part.strip() for part in parts if part.strip())
    if not found:
        raise UsageError(f"{option} is empty; expected names separated by commas.")
    return found


def printable(text: str) -> str:
    r"""Return a text in which characters that command a terminal are spelt out, as in "\x1b"; lines and tabs stay."""
    return _COMMANDS.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode(), text)


def no_formula(text: str) -> str:
    """Return a text that a spreadsheet does not take for a formula; it gets an apostrophe, as a user would type."""
    return f"'{text}" if _FORMULA.match(text) and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
