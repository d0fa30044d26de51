"""How the command's process ends: a signal is one sentence, no thread outlives the work, no worker its parent.

Ctrl-C gives exit code 130, SIGTERM (of `kill`, `timeout` and batch systems) 143. Libraries lose a KeyboardInterrupt
that falls into their imports, which take the first seconds. So a signal ends the process at once: nothing is
half-written, because files appear whole or not at all. Only where something must be tidied up first, such as bars on a
terminal, it is raised.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

WORDS = {signal.SIGINT: "Interrupted", signal.SIGTERM: "Terminated"}
GRACE = 2.0  # seconds that threads have to end once the command is done
WATCH = 1.0  # seconds between two looks of a worker at its parent

_given_up: list[threading.Thread] = []


class Interrupted(KeyboardInterrupt):
    """A signal of the user, told apart from a KeyboardInterrupt that a plugin raises."""

    def __init__(self, number: int = signal.SIGINT) -> None:
        """Remember the signal."""
        super().__init__()
        self.number = number


def sentence(number: int) -> str:
    """Return what is said of a signal that ends the command."""
    return f"{WORDS[signal.Signals(number)]}. What is finished is kept; the same command goes on from there."


def exit_code(number: int) -> int:
    """Return the exit code that shells give a command which a signal ended."""
    return 128 + number


def end_on_signals() -> None:
    """From now on let signals end the process; one that was started to ignore a signal goes on to do so."""
    for number in WORDS:
        if signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL):
            signal.signal(number, _end)


@contextmanager
def signals_raised() -> Iterator[None]:
    """Raise Interrupted for signals while the block runs, where they would end the process."""
    caught = [number for number in WORDS if signal.getsignal(number) is _end]
    for number in caught:
        signal.signal(number, _raise)
    try:
        yield
    finally:
        for number in caught:
            signal.signal(number, _end)


def keep_output_clean() -> None:
    """From now on let sys.stdout alone write to standard output.

    What C code and child processes write there goes to standard error, so that a table or JSON stays whole.
    """
    try:
        kept = os.dup(1)
        os.dup2(2, 1)
    except OSError:  # one of the two was closed by who started this
        return
    sys.stdout = os.fdopen(kept, "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors)


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
    os.write(2, f"Note: the work is done; a thread that was left behind is ended ({left}).\n".encode())
    os._exit(code)


def end_with_parent() -> None:
    """In a worker: let the process end soon after the one that started it, however that ended."""
    if not any(thread.name == end_with_parent.__name__ for thread in threading.enumerate()):
        threading.Thread(target=_watch, args=(os.getppid(),), name=end_with_parent.__name__, daemon=True).start()


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()


def _watch(parent: int) -> None:
    while os.getppid() == parent:  # an orphan is given another parent
        time.sleep(WATCH)
    os._exit(exit_code(signal.SIGTERM))


def _end(number: int, _: Any) -> None:
    os.write(2, f"{sentence(number)}\n".encode())
    os._exit(exit_code(number))


def _raise(number: int, _: Any) -> None:
    raise Interrupted(number)
