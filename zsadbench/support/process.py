"""How the command's process ends: Ctrl-C is one sentence and exit code 130, and no thread outlives the work.

Libraries lose a KeyboardInterrupt that falls into their imports, which take the first seconds. So Ctrl-C ends the
process at once: nothing is half-written, because files appear whole or not at all. Only where something must be tidied
up first, such as bars on a terminal, it is raised.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

INTERRUPTED = "Interrupted. What is finished is kept; the same command goes on from there."
INTERRUPTED_CODE = 130  # what shells give a command that Ctrl-C ended
GRACE = 2.0  # seconds that threads have to end once the command is done

_given_up: list[threading.Thread] = []


class Interrupted(KeyboardInterrupt):
    """Ctrl-C of the user, told apart from a KeyboardInterrupt that a plugin raises."""


def end_on_ctrl_c() -> None:
    """From now on let Ctrl-C end the process; one that was started to ignore Ctrl-C goes on to do so."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


@contextmanager
def ctrl_c_raised() -> Iterator[None]:
    """Raise Interrupted for Ctrl-C while the block runs, where it would end the process."""
    if signal.getsignal(signal.SIGINT) is not _end:
        yield
        return
    signal.signal(signal.SIGINT, _raise)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, _end)


def is_users(error: KeyboardInterrupt) -> bool:
    """Tell whether the user pressed Ctrl-C; without the command line's handler (in a notebook) that is assumed."""
    return isinstance(error, Interrupted) or signal.getsignal(signal.SIGINT) is signal.default_int_handler


def give_up(thread: threading.Thread) -> None:
    """Tell a daemon thread to end, and the end of the process not to wait for it.

    Python code ends at its next step; what sleeps or waits in a library ends when it comes back to Python.
    """
    _given_up.append(thread)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit))


def end_soon(code: int) -> None:
    """Let the process end with this exit code after some grace, even if a thread that somebody left behind goes on."""
    if any(thread.is_alive() for thread in _given_up):  # the interpreter must not be taken down below its feet
        atexit._run_exitfuncs()
        _flush()
        os._exit(code)
    timer = threading.Timer(GRACE, _end_without_threads, [code])
    timer.daemon = True
    timer.start()


def _end_without_threads(code: int) -> None:
    names = [thread.name for thread in threading.enumerate() if not thread.daemon and thread.is_alive()]
    left = ", ".join(name for name in names if name != threading.main_thread().name)
    _flush()
    os.write(2, f"Note: the work is done; a thread that a plugin left behind is ended ({left}).\n".encode())
    os._exit(code)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()


def _end(*_: Any) -> None:
    os.write(2, f"{INTERRUPTED}\n".encode())
    os._exit(INTERRUPTED_CODE)


def _raise(*_: Any) -> None:
    raise Interrupted
