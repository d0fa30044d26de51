"""How what a run does beside measuring grows: the exponents of time and of bytes, fitted over some sizes.

    python benchmarks/scale.py --quick
    python benchmarks/scale.py planning dry_run index typo parts

planning: CPU seconds of a plan whose images are known already, by cells (categories of 8 images, all methods).
dry_run: likewise of a finished run, by cells (categories of 2 images, one method). index: likewise by rows of an index
file, one method. typo: CPU seconds of the whole command until it says that there is no such category, by rows. parts:
bytes of what one worker is sent, by categories of the run.

An exponent of 1 means that twice as much takes twice as long, 0 that it takes the same. Seconds depend on the machine.
"""

from __future__ import annotations

import argparse
import io
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
from PIL import Image
from tabulate import tabulate

from zsadbench.data import contents
from zsadbench.running import executors, plan, runner
from zsadbench.running.progress import Silent
from zsadbench.running.request import Request

IMAGES = 8  # a category, half of them anomalous


class Measure(NamedTuple):
    """What is measured, at which sizes, and what it should be at the largest."""

    unit: str
    sizes: tuple[int, ...]
    quick: tuple[int, ...]
    aim: float
    take: Callable[[int, Path], float]  # (size, empty folder) -> value


def main() -> None:
    """Print a table of values and exponents."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *MEASURES], help="by default all")
    parser.add_argument("--quick", action="store_true", help="small sizes, where constant costs hide the exponent")
    options = parser.parse_args()
    lines = []
    for name in options.names or MEASURES:
        measure = MEASURES[name]
        sizes = measure.quick if options.quick else measure.sizes
        values = [_taken(measure.take, size) for size in sizes]
        told = ", ".join(f"{size:,}: {value:.3g}" for size, value in zip(sizes, values, strict=True))
        lines.append((name, measure.unit, told, round(exponent(sizes, values), 2), f"{measure.aim:g}"))
    print(tabulate(lines, ("what", "unit", "by size", "exponent", "aim at the largest"), "pipe", disable_numparse=True))


def exponent(sizes: Sequence[int], values: Sequence[float]) -> float:
    """Return the slope of a line through the logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(np.maximum(values, math.ulp(1.0))), 1)[0])


def _taken(take: Callable[[int, Path], float], size: int) -> float:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(mock.patch.object(contents, "folder", lambda: folder / "memory"))
        stack.enter_context(mock.patch.object(contents, "TICK", 0))  # files of a moment ago are remembered too
        return take(size, folder)


def planning(cells: int, folder: Path) -> float:
    """Return the CPU seconds of planning all methods on known images."""
    from zsadbench.training import cross_dataset

    write_images(folder / "data", max(1, cells // len(cross_dataset.everything()[0])))
    return _planned(Request(["all"], [f"folder={folder / 'data'}"], folder / "out", encoder="demo"))


def dry_run(cells: int, folder: Path) -> float:
    """Return the CPU seconds of planning a finished run of one method, and of saying that there is nothing to do."""
    from zsadbench.running import forecast

    write_images(folder / "data", cells, images=2)
    request = Request(["constant"], [f"folder={folder / 'data'}"], folder / "out")
    runner.run(plan.make_plan(request), request, Silent())
    began = time.process_time()
    found = forecast.of(plan.make_plan(request, may_download=False), request)
    assert not found.cells and found.done == cells
    return time.process_time() - began


def index(rows: int, folder: Path) -> float:
    """Return the CPU seconds of planning one method on an index file."""
    return _planned(Request(["constant"], [f"folder={write_index(folder, rows)}"], folder / "out"))


def typo(rows: int, folder: Path) -> float:
    """Return the CPU seconds of a command that names a category which is not there."""
    command = [sys.executable, "-m", "zsadbench", "run", "--datasets", f"folder={write_index(folder, rows)}"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = subprocess.run([*command, "--categories", "c9999"], check=False, capture_output=True)
    assert done.returncode == 2, done.stderr
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before


def parts(categories: int, folder: Path) -> float:
    """Return the bytes of the largest part that a worker is sent."""
    write_images(folder / "data", categories)
    request = Request(["constant"], [f"folder={folder / 'data'}"], folder / "out")
    cells = [part for group in plan.make_plan(request).groups for part in runner.by_category(group)]
    return max(len(executors.pack(part, request)) for part in cells)


def _planned(request: Request) -> float:
    plan.make_plan(request)  # reads the images, and imports methods
    began = time.process_time()
    plan.make_plan(request)
    return time.process_time() - began


def write_images(root: Path, categories: int, images: int = IMAGES) -> None:
    """Write categories in MVTec AD's layout, all of one tiny picture."""
    picture = _encoded(np.zeros((8, 8, 3), np.uint8))
    for category in range(categories):
        for number in range(images):
            kind = "good" if number % 2 else "bad"
            _write(root / f"c{category:04}" / "test" / kind / f"{number:03}.png", picture)
            if kind == "bad":
                mask = root / f"c{category:04}" / "ground_truth" / "bad" / f"{number:03}.png"
                _write(mask, _encoded(np.full((8, 8), 255, np.uint8)))


def write_index(folder: Path, rows: int) -> Path:
    """Write an index file of categories of 100 images, and the images."""
    picture, lines = _encoded(np.zeros((8, 8, 3), np.uint8)), ["image,label,category"]
    for number in range(rows):
        path = Path(f"c{number // 100:04}") / f"{number:06}.png"
        _write(folder / "data" / path, picture)
        lines.append(f"{path.as_posix()},{number % 2},c{number // 100:04}")
    (folder / "data" / "index.csv").write_text("\n".join(lines) + "\n")
    return folder / "data" / "index.csv"


def _encoded(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


MEASURES = {
    "planning": Measure("s", (1000, 2000, 4000), (100, 200), 1.0, planning),
    "dry_run": Measure("s", (1000, 4000), (100, 200), 2.0, dry_run),
    "index": Measure("s", (25_000, 50_000, 100_000), (1000, 2000), 5.0, index),
    "typo": Measure("s", (1000, 2000), (100, 200), 0.5, typo),
    "parts": Measure("bytes", (10, 100, 1000), (2, 20), 5000, parts),
}

if __name__ == "__main__":
    main()
