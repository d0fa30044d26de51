"""Code that is not ours, run so that its failure is an answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zsadbench.errors import NeedsCheckpoint, RecordError, ZsadError
from zsadbench.support import process, traces


class Crash(ZsadError):
    """A bug in a method or in zsadbench: one sentence with its place, then its traceback; the other cells go on."""


def guard(action: Callable[[], Any], fail_fast: bool) -> Any:
    """Return what the action returns, or the ZsadError that says why it failed; with `fail_fast` raise that.

    Whatever a plugin raises is such an answer, SystemExit included. Only the user's Ctrl-C goes through, and results
    that cannot be written: going on would lose more of them.
    """
    try:
        return action()
    except RecordError:
        raise
    except NeedsCheckpoint as error:
        return error  # an answer, not a failure: --fail-fast does not stop for it
    except ZsadError as error:
        problem = _placed(error)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and process.is_users(error):
            raise
        problem = Crash(traces.report(error))
        problem.__cause__ = error
    if fail_fast:
        raise problem
    return problem


def _placed(error: ZsadError) -> ZsadError:
    """Say in the error which line of a plugin it came through, if any; an error without words gets some."""
    where = traces.plugin_line(error)
    if not str(error).strip():
        error.args = (traces.sentence(error),)
    elif where:
        error.args = (f"{error} (at {where})",)
    return error
