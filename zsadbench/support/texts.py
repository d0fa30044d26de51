"""Texts that users give, and texts from files of others, made harmless where they are shown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from zsadbench.errors import DataError, UsageError
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


def first_sentence(text: str) -> str:
    """Return a text up to its first full stop before another sentence."""
    return re.split(r"(?<=[.!?])\s+(?=[A-Z])", text, maxsplit=1)[0]


def duration(seconds: float) -> str:
    """Return a time as people say it: "0.4 s", "12 s", "4 m 05 s", "1 h 02 m", "2 d 03 h"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours:02} h"
    if hours:
        return f"{hours} h {minutes:02} m"
    return f"{minutes} m {seconds:02} s" if minutes else f"{seconds} s"


def grouped(told: Iterable[tuple[str, str]]) -> list[tuple[list[str], str]]:
    """Return what is said of several methods, (name, sentence) each, with like sentences once: (names, sentence).

    Sentences that differ in the method's name alone, or in a checkpoint folder that begins with it, get METHOD in its
    place; one that a single method has stays as it is.
    """
    found: dict[str, dict[str, str]] = {}  # the sentence with METHOD -> name -> its own sentence
    for name, sentence in told:
        found.setdefault(_without_name(sentence, name), {}).setdefault(name, sentence)
    return [([*own], common if len(own) > 1 else next(iter(own.values()))) for common, own in found.items()]


def _without_name(sentence: str, name: str) -> str:
    names = sorted({name, variants.base_of(name), variants.stem_of(name)}, key=len, reverse=True)
    either = "|".join(map(re.escape, names))
    return re.sub(rf"(?<![\w.])(?:{either})(?:-[0-9a-f]{{8}}(?:-seed\d+)?)?(?![\w\[]|\.\w)", "METHOD", sentence)


def no_formula(text: str) -> str:
    """Return a text that a spreadsheet does not take for a formula; it gets an apostrophe, as a user would type."""
    return f"'{text}" if _FORMULA.match(text) and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def require_utf8(name: str) -> None:
    """Raise DataError for the name of a file that cannot be written as UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise DataError(
            f"the name {name!r} is not UTF-8; rename the file, because results are filed under it."
        ) from None
