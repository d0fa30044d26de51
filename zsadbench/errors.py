"""Errors a user can cause and mend. Each message says what, got, expected and the next step.

The command line prints a ZsadError without a traceback; every other exception is a bug and keeps its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any


class ZsadError(Exception):
    """Base of every error whose message is meant for the user."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Let an error travel between processes as its class and message, whatever its constructor takes."""
        return Exception.__new__, (type(self), str(self))


class UsageError(ZsadError):
    """A wrong name, option or path on the command line or in a call: exit code 2."""


class OptionError(UsageError):
    """A method option that does not exist or has a value of the wrong type."""


class UnknownName(UsageError):
    """A name that no plugin, preset, category or option has; the message offers close matches."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        known = sorted(known)
        close = get_close_matches(name, known, n=3, cutoff=0.5)
        if close:
            hint = f"Did you mean {' or '.join(repr(match) for match in close)}?"
        else:
            hint = (
                f"Known: {', '.join(known[:20])}{', ...' if len(known) > 20 else ''}." if known else "None are known."
            )
        super().__init__(f"Unknown {kind} {name!r}. {hint}")


class PluginError(ZsadError):
    """A plugin file that cannot be read, imported or registered."""


class MissingDependency(ZsadError):
    """A package that a plugin or encoder needs is not installed."""


class DataError(ZsadError):
    """A dataset folder, image or mask that is missing, unreadable or contradicts its layout."""


class DatasetNotFound(DataError):
    """A dataset folder that is not where it was looked for: a wrong path, not a wrong content."""


class NotPossible(DataError):
    """A few-shot method without the reference images that it needs: its row reads "not possible on this set"."""


class FetchError(ZsadError):
    """A download that failed, or an archive that is damaged or not safe to unpack."""


class WeightsError(ZsadError):
    """Encoder weights or a checkpoint that are missing, unreadable, unsafe or of another architecture."""


class MissingWeights(WeightsError):
    """Weights that are not on this machine and must not be downloaded now."""


class NeedsCheckpoint(WeightsError):
    """A trained method was asked for without trained weights: its row reads "needs a checkpoint"."""


class ContractError(ZsadError):
    """A method or dataset broke its contract: wrong shape, dtype, device, or a value that is not finite."""


class MetricError(ZsadError):
    """Scores or masks that no metric can be computed from, such as NaN; names the image."""


class ExecutorError(ZsadError):
    """Workers that cannot be reached, or that end again and again."""


class RecordError(ZsadError):
    """A result file that cannot be read, or results that must not be mixed in one table."""


def counted(number: int, one: str, many: str = "") -> str:
    """Return a number with its noun: "1 cell", "2 cells"; `many` where the plural is not formed with an s."""
    return f"{number} {one if number == 1 else many or one + 's'}"
