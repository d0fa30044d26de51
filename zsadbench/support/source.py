"""Digests of the code that decides numbers: of zsadbench itself, and of a plugin.

They are part of what a record or a checkpoint stands for. Text counts with Unix line ends, under names below the
package: a checkout, a wheel and another machine agree. What is listed, drawn, printed or planned decides no number: its
results (options, samples, weights) have digests of their own. Each digest is taken once a process, at about the time
when the code is imported: an edit counts from the next process on, as it does for Python.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from zsadbench.support import files

PACKAGE = Path(__file__).resolve().parents[1]
SHARED = (  # modules and wings that decide the numbers of records and of trainings
    "components",
    "data/images.py",
    "data/masks.py",
    "data/pictures.py",
    "data/reading.py",
    "data/sampling.py",
    "datasets.py",
    "encoders",
    "method_base.py",
    "methods.py",
    "support/calls.py",
    "support/installed.py",
    "support/process.py",
    "support/shared_state.py",
    "support/spill.py",
    "support/store.py",
    "support/traces.py",
)
RESULTS = (
    *SHARED, "metrics",
    *(f"running/{name}.py" for name in ("cells", "contract", "evaluation", "isolation", "loading", "runner")),
)  # fmt: skip
TRAININGS = (*SHARED, "recipes.py", *(f"training/{name}.py" for name in ("augment", "data", "job", "loop")))
TEXT = (".json", ".py", ".toml", ".txt")  # by suffix; other files count byte for byte


@cache
def of_harness(parts: tuple[str, ...], package: Path = PACKAGE) -> str:
    """Return the SHA-256 of the modules and wings of zsadbench that decide a kind of number, RESULTS or TRAININGS."""
    found = (file for part in parts for file in (_files(package / part) or [package / part]))
    return _sha256((file for file in found if file.suffix in TEXT), package)  # shipped weights have their own digest


@cache
def of_plugin(plugin: type) -> str:
    """Return the SHA-256 of the file of an imported plugin class, or of its folder, wherever it lies."""
    main, *others = files_of(plugin)
    return _sha256([main, *others], main.parent)


def files_of(plugin: type) -> list[Path]:
    """Return the file of an imported plugin class, or all files of its folder with `__init__.py` first."""
    main = Path(str(sys.modules[plugin.__module__].__file__))
    return [main, *(path for path in _files(main.parent) if path != main)] if main.name == "__init__.py" else [main]


def _files(folder: Path) -> list[Path]:
    """Return all files of a folder but hidden and compiled ones; none if it is no folder."""
    return [
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith((".", "__pycache__")) for part in path.relative_to(folder).parts)
    ]


def _sha256(paths: Iterable[Path], root: Path) -> str:
    """Return a digest of files by their names below a folder."""
    digest = hashlib.sha256()
    for name, path in sorted((path.relative_to(root).as_posix(), path) for path in paths):
        if path.suffix in TEXT:
            content = hashlib.sha256(path.read_bytes().replace(b"\r\n", b"\n")).hexdigest()
        else:
            content = files.sha256(path)
        digest.update(f"{name}\0{content}\n".encode())
    return digest.hexdigest()
