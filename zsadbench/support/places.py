"""Where something happened, in the user's words: `my/methods/m6.py:27`, and a traceback without absolute paths."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

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
    for source in _plugin_sources():
        if path.is_relative_to(source):
            return Path(*source.parts[-2:], path.relative_to(source)).as_posix()
    for entry in sorted(filter(None, sys.path), key=len, reverse=True):
        if path.is_relative_to(entry):
            return path.relative_to(entry).as_posix()
    return "/".join(path.parts[-2:])


def is_plugin(file: str) -> bool:
    """Tell whether a source file belongs to a method or dataset, of ours or of anyone."""
    return any(Path(file).is_relative_to(source) for source in _plugin_sources())


def plugin_place(error: BaseException) -> str:
    """Return "my/methods/m6.py:27" of the innermost frame of a plugin that an exception passed; "" if there is none."""
    places = [place for place in _frames(error) if is_plugin(place[0])]
    return _joined(places[-1]) if places else ""


def sentence(error: BaseException) -> str:
    """Return one line: the kind of an error, what it says (cut where it is long) and where it happened."""
    where = plugin_place(error) or "".join(map(_joined, _frames(error)[-1:]))
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


def _joined(place: tuple[str, int]) -> str:
    return f"{spoken(place[0])}:{place[1]}"


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
    """Give the frames of an exception, and of those that caused it, the paths of `spoken`."""
    pending, seen = [chain], set()
    while pending:
        one = pending.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        pending += [other for other in (one.__cause__, one.__context__) if other is not None]
        for frame in one.stack:
            _ = frame.line  # reads the source, which needs the real path
            frame.filename = spoken(frame.filename)


def _plugin_sources() -> Iterator[Path]:
    """Yield the folders of methods and datasets, and the files or folders of installed plugins that are imported."""
    for contract in ("zsadbench.methods", "zsadbench.datasets"):
        yield from map(Path, getattr(sys.modules.get(contract), "__path__", ()))
        for point in entry_points(group=contract):
            file = getattr(sys.modules.get(point.module), "__file__", None)
            if file:
                yield Path(file).parent if Path(file).name == "__init__.py" else Path(file)
