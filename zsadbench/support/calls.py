"""Calls of a plugin's code that leave everything as it was for the others, or say what the plugin changed.

Settings of torch and numpy are compared and set back, random numbers are the plugin's own, what it prints goes to
standard error, and a call can be given up after some time. One call costs some 0.1 ms.
"""

from __future__ import annotations

import inspect
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import cache, partial
from types import FrameType
from typing import Any, NamedTuple, Protocol

import torch

from zsadbench.errors import ZsadError
from zsadbench.support import process, traces
from zsadbench.support.shared_state import Settings, visit

SEARCH = 10.0  # seconds that looking for a line may take


class Plugin(NamedTuple):
    """Whose code is called."""

    name: str  # of the method
    kind: type  # its class


class Harm(ZsadError):
    """A plugin changed what others use: its own result is void, and they must get everything anew."""


class Overdue(Harm):
    """A call took too long: its thread may go on, so others must share nothing with it any more."""

    thread: threading.Thread | None = None


class Shared(Protocol):
    """What a plugin shares with others beside settings, looked at after a call."""

    def changed(self) -> list[str]:
        """Return what is not as it was, in words."""

    def renew(self) -> None:
        """Make it as it was, or take it as it is now, so that the call can be repeated to find the line."""


def call(
    plugin: Plugin, action: Callable[[], Any], seed: int, seconds: float | None = None, shared: Shared | None = None
) -> Any:
    """Return what an action of a plugin returns, and raise what it raises.

    seed: of what it draws without a generator, in 0..2**32-1. seconds: the call is given up after so many and Overdue
    raised; None waits. Raises Harm, whatever else was raised, if settings or `shared` are not what they were; settings
    are by then.
    """
    outer = Settings() if seconds is not None else None
    held: list[Settings] = []  # of the thread and the modes that the action runs in
    run = partial(_visiting, plugin, partial(_outcome, action, held), seed, seconds)

    try:
        result, problem, found = run()
    except Overdue:
        assert outer is not None
        outer.restore()
        raise
    try:
        if isinstance(problem, KeyboardInterrupt) and process.is_users(problem):
            raise problem
        if found:
            raise _harm(
                plugin, found, line_that_changes(run, lambda: set(found) <= set(held[0].changed()))
            ) from problem
        if shared is not None and (found := shared.changed()):
            shared.renew()
            raise _harm(plugin, found, line_that_changes(run, shared.changed)) from problem
        if problem is not None:
            raise problem
    finally:
        del problem  # its frames hold tensors
    return result


def _harm(plugin: Plugin, changed: Sequence[str], line: str) -> Harm:
    where = f" at {line}" if line else f" in {traces.spoken(inspect.getfile(plugin.kind))}"
    more = f", and {len(changed) - 3} things more" if len(changed) > 3 else ""
    return Harm(
        f"method {plugin.name} changed {', '.join(changed[:3])}{more}{where}. Others use it too: work on a copy "
        "(x = x / n instead of x /= n), or set it back before returning."
    )


def line_that_changes(action: Callable[[], Any], changed: Callable[[], Any]) -> str:
    """Do an action again and return the line of a plugin after which `changed` is true: "my/methods/m6.py:27".

    Returns "" if there is none, or none within some seconds. Whatever the action raises is dropped.
    """
    found: list[tuple[str, int]] = []
    last: list[tuple[str, int]] = []
    end = time.process_time() + SEARCH
    is_plugin = cache(partial(traces.is_below, sources=traces.plugin_sources()))

    def enter(frame: FrameType, event: str, argument: Any) -> Any:
        if not is_plugin(frame.f_code.co_filename):
            return None
        own: list[tuple[str, int]] = []  # the line of this frame that was last begun

        def step(frame: FrameType, event: str, argument: Any) -> Any:
            if changed():
                found.extend(own or last)
            if found or time.process_time() > end:
                raise _Enough
            own[:] = last[:] = [(frame.f_code.co_filename, frame.f_lineno)]
            return step

        return step

    tracers = sys.gettrace(), threading.gettrace()
    sys.settrace(enter)
    threading.settrace(enter)  # a call with a limit of time has a thread of its own
    try:
        action()
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and process.is_users(error):
            raise
    finally:
        sys.settrace(tracers[0])
        threading.settrace(tracers[1])
    return traces.spoken_line(*found[0]) if found else ""


class _Enough(BaseException):
    """Ends an action whose line is found."""


def _outcome(action: Callable[[], Any], held: list[Settings]) -> tuple[Any, BaseException | None, list[str]]:
    """Return what an action returns or raises, and which settings it changed; they are set back."""
    held[:] = [Settings()]
    result, problem = None, None
    try:
        result = action()
    except BaseException as error:
        problem = error
    changed = held[0].changed()
    held[0].restore()
    return result, problem, changed


def _visiting(plugin: Plugin, action: Callable[[], Any], seed: int, seconds: float | None) -> Any:
    mode = torch.is_inference_mode_enabled()
    with visit(seed), torch.inference_mode(mode):  # entered again, so that a mode which is left open ends here
        return action() if seconds is None else _within(plugin, action, seconds, mode)


def _within(plugin: Plugin, action: Callable[[], Any], seconds: float, mode: bool) -> Any:
    """Do an action in a thread of its own. Raises Overdue after so many seconds, and then tells the thread to end."""
    outcome: Future[Any] = Future()
    cuda: Any = torch.cuda  # partly untyped
    gpu = cuda.current_device() if cuda.is_initialized() else None

    def work() -> None:
        if gpu is not None:
            cuda.set_device(gpu)
        with torch.inference_mode(mode):  # modes and the current GPU belong to a thread
            outcome.set_result(action())

    thread = threading.Thread(target=work, name=f"method {plugin.name}", daemon=True)
    thread.start()
    try:
        return outcome.result(seconds)
    except TimeoutError:
        process.give_up(thread)
        overdue = Overdue(
            f"method {plugin.name} took longer than the {seconds:g} s of --timeout-per-batch. The batch was given up: "
            "its thread is told to end, and shares nothing with what goes on. Allow more time, or see where it waits."
        )
        overdue.thread = thread
        raise overdue from None
