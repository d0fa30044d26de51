"""Cost of the pixel metrics beside np.sort of the same scores and beside other packages, as a Markdown table.

    python benchmarks/metrics.py --quick
    python benchmarks/metrics.py --quick --images 60 200 --gate 0.7
    python benchmarks/metrics.py --images 60 200

The maps are synthetic (noise on a ViT grid plus blobs), 70 % anomalous images with 1 to 6 defects,
15 % of them missed. `distance` has the scores of a distance; `probability` is a sigmoid of the same maps: the same
ranking with its mass near 0. Watch the ratio of CPU times: seconds depend on the machine, the ratio hardly does.
Every row runs in a process of its own; peak memory is what the process gains over the loaded maps and masks.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import resource
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from a checkout without installing it

from zsadbench.metrics.pixels import PixelCounts

STYLES = ("distance", "probability")
GRID = 37  # patch tokens on a side: 518 / 14
CHUNK = 8  # images in one update, as the runner sends them
EXACT = "zsadbench, all four"
SORT = "np.sort"


class Load(NamedTuple):
    """One synthetic category."""

    maps: NDArray[np.float32]  # [N, size, size]
    masks: NDArray[np.uint8]  # [N, size, size] 0 or 1


class Row(NamedTuple):
    """One measured implementation."""

    name: str
    seconds: float  # CPU, median
    bytes_per_pixel: float  # peak above the loaded arrays
    values: dict[str, float | None]


def make_load(images: int, size: int, style: str, seed: int = 0) -> Load:
    """Draw the maps and masks of a category: the same ranking for both styles."""
    random = np.random.default_rng(seed)
    maps = np.empty((images, size, size), np.float32)
    masks = np.zeros((images, size, size), np.uint8)
    for image in range(images):
        grid = random.normal(0.55, 0.16, (GRID, GRID)).astype(np.float32)
        map_ = cv2.resize(grid, (size, size), interpolation=cv2.INTER_LINEAR).astype(np.float32, copy=False)
        map_ += 0.02 * random.standard_normal((size, size), dtype=np.float32)
        if random.random() < 0.7:
            for _ in range(random.integers(1, 7)):
                _draw_defect(random, map_, masks[image])
        map_ = cv2.GaussianBlur(map_, (0, 0), 2.0)
        maps[image] = map_ + 1 if style == "distance" else 1 / (1 + np.exp(12 - 12.8 * map_.astype(np.float64)))
    return Load(maps, masks)


def _draw_defect(random: np.random.Generator, map_: NDArray[np.float32], mask: NDArray[np.uint8]) -> None:
    size = len(mask)
    centre = tuple(int(x) for x in random.integers(0, size, 2))
    axes = tuple(int(size * x) for x in random.uniform(0.008, 0.06, 2))
    shape = np.zeros_like(mask)
    cv2.ellipse(shape, centre, axes, float(random.uniform(0, 180)), 0, 360, 1, -1)
    mask |= shape
    if random.random() > 0.15:
        map_ += float(random.uniform(0.2, 0.7)) * cv2.GaussianBlur(shape.astype(np.float32), (0, 0), size / 60)


def exact(load: Load) -> dict[str, float | None]:
    """All four metrics of this project, in chunks."""
    counts = PixelCounts()
    for start in range(0, len(load.maps), CHUNK):
        counts.update(load.maps[start : start + CHUNK], load.masks[start : start + CHUNK])
    assert counts.facts()["bound"] is None, "the benchmark measures the exact path"
    return counts.compute()


def sort(load: Load) -> dict[str, float | None]:
    """The unit of the table."""
    np.sort(load.maps, axis=None)
    return {}


def sklearn_three(load: Load) -> dict[str, float | None]:
    """AUROC, AP and F1-max of scikit-learn, which has no AU-PRO."""
    from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

    labels, scores = load.masks.ravel(), load.maps.ravel()
    precision, recall, _ = precision_recall_curve(labels, scores)
    with np.errstate(invalid="ignore"):
        f1 = 2 * precision * recall / (precision + recall)
    return {
        "auroc": float(roc_auc_score(labels, scores)),
        "ap": float(average_precision_score(labels, scores)),
        "f1_max": float(np.nanmax(f1)),
    }


def torchmetrics_three(load: Load) -> dict[str, float | None]:
    """AUROC, AP and F1-max of torchmetrics with exact thresholds."""
    import torch
    import torchmetrics.functional.classification as peer

    torch.set_num_threads(1)
    scores, labels = torch.from_numpy(load.maps).flatten(), torch.from_numpy(load.masks).flatten().long()
    precision, recall, _ = peer.binary_precision_recall_curve(scores, labels)
    f1 = torch.nan_to_num(2 * precision * recall / (precision + recall))
    return {
        "auroc": float(peer.binary_auroc(scores, labels)),
        "ap": float(peer.binary_average_precision(scores, labels)),
        "f1_max": float(f1.max()),
    }


def adeval_three(load: Load) -> dict[str, float | None]:
    """AUROC, trapezoidal AUPR and AU-PRO of adeval with its default of 1000 bins: approximate, no F1-max."""
    if not hasattr(np, "trapz"):
        vars(np)["trapz"] = np.trapezoid  # adeval 1.1.0 needs the name that numpy 2.4 removed
    import adeval

    auroc, aupr, aupro = adeval.auroc_aupr_aupro(load.maps, load.masks)
    return {"auroc": auroc, "ap": aupr, "aupro": aupro}


IMPLEMENTATIONS: dict[str, tuple[Callable[[Load], dict[str, float | None]], str | None]] = {
    SORT: (sort, None),
    EXACT: (exact, None),
    "scikit-learn, without AU-PRO": (sklearn_three, "sklearn"),
    "torchmetrics, without AU-PRO": (torchmetrics_three, "torchmetrics"),
    "adeval 1000 bins, without F1-max": (adeval_three, "adeval"),
}  # name -> (function, package that must be importable)


def peak_bytes() -> int:
    """The high-water mark of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def measure(name: str, images: int, size: int, style: str, repeat: int, sender: Any) -> None:
    """Time one implementation and send its Row; runs in a process of its own."""
    cv2.setNumThreads(1)
    warnings.simplefilter("ignore")
    function = IMPLEMENTATIONS[name][0]
    function(make_load(2, size, style))  # imports, code and small buffers are not counted
    load = make_load(images, size, style)
    before = peak_bytes()
    values, seconds = {}, []
    for _ in range(repeat):
        start = time.process_time()
        values = function(load)
        seconds.append(time.process_time() - start)
    sender.send(Row(name, statistics.median(seconds), (peak_bytes() - before) / load.maps.size, values))


def run_row(name: str, images: int, size: int, style: str, repeat: int) -> Row:
    """Measure one implementation in a fresh process."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=measure, args=(name, images, size, style, repeat, sender))
    process.start()
    sender.close()
    try:
        row: Row = receiver.recv()
        return row
    except EOFError:
        raise SystemExit(f"The process that measured {name!r} died; its message is above.") from None
    finally:
        process.join()


def run_table(images: int, size: int, style: str, repeat: int, names: list[str]) -> dict[str, Row]:
    """Measure every implementation on one workload and print its table."""
    print(f"\n### {images} images of {size}x{size}, {style}-like scores\n")
    print("| implementation | CPU s | ratio to np.sort | extra bytes a pixel | AUROC | AP | F1-max | AU-PRO |")
    print("|---|---|---|---|---|---|---|---|")
    rows: dict[str, Row] = {}
    for name in names:
        row = rows[name] = run_row(name, images, size, style, repeat)
        values = [row.values.get(metric) for metric in ("auroc", "ap", "f1_max", "aupro")]
        cells = [name, f"{row.seconds:.2f}", f"{row.seconds / rows[SORT].seconds:.2f}", f"{row.bytes_per_pixel:.1f}"]
        cells += [f"{value:.5f}" if value is not None else "--" for value in values]
        print(f"| {' | '.join(cells)} |", flush=True)
    return rows


def main() -> int:
    """Print the tables; with --gate, exit 1 when the exact metrics are slower or larger than allowed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[60], help="workloads, in images")
    parser.add_argument("--size", type=int, default=518, help="pixels on a side")
    parser.add_argument("--repeat", type=int, default=5, help="runs of each row; the median counts")
    parser.add_argument("--quick", action="store_true", help="np.sort and zsadbench only: seconds instead of minutes")
    parser.add_argument("--gate", type=float, help="fail above this ratio to np.sort, or above 8 bytes a pixel")
    parser.add_argument("--json", type=Path, help="write the rows to this file, too")
    options = parser.parse_args()
    names = [SORT, EXACT]
    if not options.quick:
        names = [name for name, (_, needs) in IMPLEMENTATIONS.items() if not needs or importlib.util.find_spec(needs)]
    tables = {
        f"{images}x{options.size} {style}": run_table(images, options.size, style, options.repeat, names)
        for images in options.images
        for style in STYLES
    }
    if options.json:
        text = json.dumps({load: [row._asdict() for row in rows.values()] for load, rows in tables.items()}, indent=1)
        options.json.write_text(text + "\n", encoding="utf-8")
    return int(options.gate is not None and not passes(tables, options.gate))


def passes(tables: dict[str, dict[str, Row]], gate: float) -> bool:
    """Whether the exact metrics keep to the ratio and to 8 bytes a pixel (docs/metrics.md); says which do not."""
    good = True
    for load, rows in tables.items():
        ratio = rows[EXACT].seconds / rows[SORT].seconds
        memory = rows[EXACT].bytes_per_pixel
        if ratio > gate or memory > 8:
            good = False
            print(f"GATE: {load}: ratio {ratio:.2f} (allowed {gate}), {memory:.1f} bytes a pixel (allowed 8)")
    return good


if __name__ == "__main__":
    sys.exit(main())
