"""Code that is not ours, run so that its failure is an answer."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

from zsadbench.errors import NeedsCheckpoint, RecordError, ZsadError


class Crash(ZsadError):
    """A bug in a method or in zsadbench: recorded with its traceback, while the other cells go on."""


def guard(action: Callable[[], Any], fail_fast: bool) -> Any:
    """Return what the action returns, or the ZsadError that says why it failed.

    Results that cannot be written still raise: going on would lose more of them.
    """
    try:
        return action()
    except RecordError:
        raise
    except NeedsCheckpoint as error:
        return error  # an answer, not a failure: --fail-fast does not stop for it
    except ZsadError as error:
        if fail_fast:
            raise
        return error
    except Exception as error:
        if fail_fast:
            raise
        return Crash("".join(traceback.format_exception(error)))
