"""Faults made on purpose, in child processes: kills, a disk that is full from some write on; and what came of them."""

from __future__ import annotations

import errno
import os
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from zsadbench.errors import ZsadError

REFUSED, CRASHED = 3, 4  # exit codes of a child: a sentence for the user, and a bug
PATIENCE = 300.0  # seconds that a child may take


@dataclass
class Tally:
    """What came of one kind of fault."""

    attempts: int = 0
    survived: int = 0  # afterwards everything was as if nothing had happened
    lost: int = 0  # something that was finished was gone, or had to be done again; or nobody said what happened
    wrong: int = 0  # a number was another one, or something that cannot be true was believed
    harmed: list[str] = field(default_factory=list)  # which attempts did not survive

    def add(self, name: object, lost: bool, wrong: bool) -> None:
        """Count an attempt."""
        self.attempts += 1
        self.lost += lost
        self.wrong += wrong
        self.survived += not (lost or wrong)
        self.harmed += [str(name)] * (lost or wrong)


TALLIES: dict[str, Tally] = {}


def start(action: Callable[[], object], log: Path) -> int:
    """Do something in a child process; returns its id. What it says is appended to `log`."""
    child = os.fork()
    if child:
        return child
    code = CRASHED
    try:
        said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(said, 1)
        os.dup2(said, 2)
        action()
        code = 0
    except ZsadError as error:
        code = REFUSED
        os.write(2, f"Error: {error}\n".encode())
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)


def end(child: int) -> int:
    """Wait for a child; returns its exit code, negative for a signal. One that takes too long is killed."""
    deadline = time.monotonic() + PATIENCE
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.005)


def kill_after(child: int, seconds: float) -> bool:
    """Kill a child after a time; tell whether it was still at work."""
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)  # one that has ended is not gone before `end`
    return end(child) == -signal.SIGKILL


class _Full:
    """A disk that takes so many writes and no more."""

    def __init__(self, writes: int | None) -> None:
        self.left, self.done = writes, 0

    def write(self) -> None:
        self.done += 1
        if self.left is not None and self.done > self.left:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextmanager
def full_disk(writes: int | None = None) -> Iterator[_Full]:
    """Let new files, their content and their way to the disk fail from some write on; None: only count them."""
    disk = _Full(writes)
    opened, synced, mkdir, temporary = os.open, os.fsync, os.mkdir, tempfile.TemporaryFile

    def open_(path: Any, flags: int, *rest: Any, **options: Any) -> int:
        if flags & os.O_CREAT:
            disk.write()
        return opened(path, flags, *rest, **options)

    def fsync(descriptor: int) -> None:
        disk.write()
        synced(descriptor)

    def make_folder(*arguments: Any, **options: Any) -> None:
        disk.write()
        mkdir(*arguments, **options)

    def temporary_file(*arguments: Any, **options: Any) -> Any:
        disk.write()
        return _Counted(temporary(*arguments, **options), disk)

    with (
        mock.patch.object(os, "open", open_),
        mock.patch.object(os, "fsync", fsync),
        mock.patch.object(os, "mkdir", make_folder),
        mock.patch.object(tempfile, "TemporaryFile", temporary_file),
    ):
        yield disk


class _Counted:
    """A temporary file whose writes count."""

    def __init__(self, file: Any, disk: _Full) -> None:
        self._file, self._disk = file, disk

    def write(self, content: Any) -> int:
        self._disk.write()
        return int(self._file.write(content))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
