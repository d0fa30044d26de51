"""Where something happened, in the user's words: `my/methods/m6.py:27`, and a traceback without absolute paths."""

from __future__ import annotations

import inspect
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from zsadbench.support import installed

MESSAGE = 1000  # characters of an error's message that are kept
FRAMES = 12  # innermost frames that are kept of each exception of a chain
LINES, WIDTH = 60, 300  # of a traceback that is kept


def spoken(file: str) -> str:
    """Return a source file's path as a user would look for it, never absolute.

    Below the working directory it is relative to that, a plugin's starts with the folder that holds `methods/`, and any
    other with the name of its package.
    """
    path, here = Path(file), Path.cwd()
    if path.is_relative_to(here):
        return path.relative_to(here).as_posix()
    for source in plugin_sources():
        if path.is_relative_to(source):
            return Path(*source.parts[-2:], path.relative_to(source)).as_posix()
    for entry in sorted(filter(None, sys.path), key=len, reverse=True):
        if path.is_relative_to(entry):
            return path.relative_to(entry).as_posix()
    return "/".join(path.parts[-2:])


def plugin_sources() -> list[Path]:
    """Return the folders of methods and datasets, and the files or folders of installed plugins that are imported."""
    found = []
    for contract in ("zsadbench.methods", "zsadbench.datasets"):
        found += [Path(folder) for folder in getattr(sys.modules.get(contract), "__path__", ())]
        for point in installed.plugins(contract).values():
            file = getattr(sys.modules.get(point.module), "__file__", None)
            if file:
                found.append(Path(file).parent if Path(file).name == "__init__.py" else Path(file))
    return found


def is_below(file: str, sources: Iterable[Path]) -> bool:
    """Tell whether a source file is one of these or lies in one of them."""
    return any(Path(file).is_relative_to(source) for source in sources)


def spoken_line(file: str, line: int) -> str:
    """Return "my/methods/m6.py:27"."""
    return f"{spoken(file)}:{line}"


def of(function: Callable[..., Any]) -> str:
    """Return "my/methods/m6.py:20", the line where a function's definition starts; "" where it has no source."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return spoken_line(code.co_filename, code.co_firstlineno) if code is not None else ""


def plugin_line(error: BaseException) -> str:
    """Return "my/methods/m6.py:27" of the innermost frame of a plugin that an exception passed; "" if there is none."""
    sources = plugin_sources()
    lines = [line for line in _frames(error) if is_below(line[0], sources)]
    return spoken_line(*lines[-1]) if lines else ""


def sentence(error: BaseException) -> str:
    """Return one line: the kind of an error, what it says (cut where it is long) and where it happened."""
    where = plugin_line(error) or "".join(spoken_line(*line) for line in _frames(error)[-1:])
    return f"{type(error).__name__}{_said(error)}" + (f" (at {where})" if where else "")


def report(error: BaseException) -> str:
    """Return the `sentence` of an error, and below it its traceback, cut to what can be read."""
    try:
        chain = traceback.TracebackException.from_exception(error, limit=-FRAMES)
        _shorten(chain)
        lines = [line[:WIDTH] for line in "".join(chain.format()).splitlines()]
    except Exception as other:  # an exception of a plugin may fail to say what it is
        lines = [f"(Its traceback cannot be printed: {type(other).__name__}.)"]
    if len(lines) > LINES:
        lines = [*lines[: LINES // 2], "  ...", *lines[-LINES // 2 :]]
    return "\n".join([sentence(error), *lines])


def _frames(error: BaseException) -> list[tuple[str, int]]:
    return [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]


def _said(error: BaseException) -> str:
    """Return ": " and the message on one line, or that there is none."""
    try:
        text = str(error)
    except Exception as other:
        return f" (its message cannot be read: {type(other).__name__})"
    if not text.strip():
        return " without a message"
    more = f"... ({len(text):,} characters)" if len(text) > MESSAGE else ""
    return f": {' '.join(text[:MESSAGE].split())}{more}"


def _shorten(chain: traceback.TracebackException) -> None:
    """Let an exception, and those that caused it, start at the plugin; give their frames the paths of `spoken`."""
    sources = plugin_sources()
    pending, seen = [chain], set()
    while pending:
        one = pending.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        pending += [other for other in (one.__cause__, one.__context__) if other is not None]
        first = next((i for i, frame in enumerate(one.stack) if is_below(frame.filename, sources)), 0)
        del one.stack[:first]
        for frame in one.stack:
            _ = frame.line  # reads the source, which needs the real path
            frame.filename = spoken(frame.filename)
