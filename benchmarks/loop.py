"""What a researcher's second run, and the second value of an option, cost: ratios of CPU time measured in one run.

    python benchmarks/loop.py --methods clip_ad,april_gan,musc --images 40
    python benchmarks/loop.py --sweep --images 8

For each method: a run without a cache, one that fills a cache, and one that finds everything in it; ViT-B/16+ 240 with
random weights, 1024x1024 PNG. "head" is what the first run spends outside of encoding and decoding images: a warm run
cannot be faster than that, and should take at most 15 % more. The records of all three must be the same bytes.

--sweep: five variants of FiSeCLIP over one, and the five rows of its Table 3 over the first, on the demo set and on
those images; at most 1.5. Both sides are runs in this process, without the time that Python takes to start.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image
from safetensors.torch import save_file
from tabulate import tabulate

from zsadbench import encoders, methods
from zsadbench.data import contents, images
from zsadbench.encoders import open_clip, random
from zsadbench.encoders.text import TextEncoder
from zsadbench.encoders.transformer import TransformerEncoder
from zsadbench.methods import TrainableMethod
from zsadbench.running import runner, studies
from zsadbench.running.plan import make_plan
from zsadbench.running.progress import Recorded, Silent
from zsadbench.running.request import Request
from zsadbench.running.studies import Study

SPEC = "open_clip:ViT-B-16-plus-240/laion400m_e31"
SIDE = 1024


class Strict(Silent):
    """A Progress that shows nothing and stops at a cell that failed."""

    def finish_cell(self, recorded: Recorded) -> None:
        """Stop: the time of a failed cell would mean nothing."""
        if recorded.record.status != "done":
            raise SystemExit(recorded.record.error)


def cpu() -> float:
    """Return the CPU seconds of this process, all of its threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class Spent:
    """CPU seconds inside some functions."""

    def __init__(self) -> None:
        """Count from 0."""
        self.seconds = 0.0

    @contextmanager
    def counting(self, *places: tuple[Any, str]) -> Iterator[None]:
        """Count the named functions while the block runs."""

        def counted(function: Any) -> Any:
            def call(*args: Any, **options: Any) -> Any:
                began = cpu()
                try:
                    return function(*args, **options)
                finally:
                    self.seconds += cpu() - began

            return call

        patches = [mock.patch.object(owner, name, counted(getattr(owner, name))) for owner, name in places]
        for patch in patches:
            patch.start()
        try:
            yield
        finally:
            for patch in patches:
                patch.stop()


def write_images(root: Path, count: int) -> None:
    """Write a category in MVTec AD's layout: smooth pictures with some noise, half of them with a defect."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:SIDE, :SIDE] / SIDE
    for i in range(count):
        waves = np.sin(rows * rng.uniform(5, 40) + columns * rng.uniform(5, 40))[..., None]
        picture = (128 + 60 * waves + rng.normal(0, 4, (SIDE, SIDE, 3))).clip(0, 255).astype(np.uint8)
        mask = np.zeros((SIDE, SIDE), np.uint8)
        folder = "good" if i % 2 else "hole"
        if folder == "hole":
            top, left = rng.integers(0, SIDE - 200, 2)
            mask[top : top + 150, left : left + 150] = 255
            picture[mask > 0] //= 2
            _save(root / f"bottle/ground_truth/hole/{i:03}_mask.png", mask)
        _save(root / f"bottle/test/{folder}/{i:03}.png", picture)
    _save(root / "bottle/train/good/000.png", picture)


def _save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_weights(folder: Path) -> Path:
    """Write random weights of the encoder; a file, because a run takes no others."""
    model, tag = SPEC.removeprefix("open_clip:").split("/")
    config, _ = open_clip.trained_config(model, tag, SPEC)
    path = folder / "weights.safetensors"
    save_file(random.draw(open_clip.shapes(config)), path)
    return path


def write_checkpoint(name: str, folder: Path, weights: Path) -> dict[str, Path]:
    """Write initial weights of a trained method, and return them as a run takes them; {} for any other."""
    kind, full, config = methods.configure(name, SPEC, {})
    if not issubclass(kind, TrainableMethod) or not getattr(config, "trained_on", ""):
        return {}
    method = methods.build(kind, full, config, encoders.load_for(config, weights={SPEC: weights}))
    assert isinstance(method, TrainableMethod)
    method.initialise(0)
    assert method.trained is not None
    path = folder / f"{full}.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in method.trained.state_dict().items()}, path)
    return {name.partition(".")[0]: path}


def run(request: Request, out: Path) -> tuple[float, dict[str, bytes]]:
    """Return the CPU seconds of a run into an empty folder, and the files of its records."""
    began = cpu()
    asked = replace(request, out=out)
    runner.run(make_plan(asked), asked, Strict())
    return cpu() - began, {path.name: path.read_bytes() for path in out.glob("*/*/*.*")}


def measure(name: str, request: Request, folder: Path) -> list[object]:
    """Return a line of the table for one method."""
    spent = Spent()
    with spent.counting((TransformerEncoder, "encode"), (TextEncoder, "_encode"), (images, "_pixels")):
        bare, expected = run(request, folder / "bare")
    head = bare - spent.seconds
    request = replace(request, cache=folder / "cache")
    cold, first = run(request, folder / "cold")
    warm, second = run(request, folder / "warm")
    if not first == second == expected:
        raise SystemExit(f"{name}: records with a cache are not those without one.")
    return [name, bare, cold, warm, head, cold / bare, warm / bare, warm / head]


LAMBDAS = ("0.95", "1.0", "1.05", "1.1", "1.2")  # of FiSeCLIP's Table 3


def sweep_lines(vit: Request, folder: Path) -> Iterator[list[object]]:
    """Yield a line of the table for each data set, as variants and as rows of a study."""
    study = studies.load("fiseclip_table3")
    first = replace(study, rows=study.rows[:1])
    demo = replace(vit, methods=["fiseclip"], datasets=["demo"], encoder="demo", weights={}, data_root=None)
    run(demo, folder / "warm up")
    for told, request in (("demo", demo), ("ViT-B/16+ 240", replace(vit, methods=["fiseclip"]))):
        one = replace(request, sweep={"fiseclip": {"lambda_": LAMBDAS[:1]}})
        times = [run(replace(one, sweep={"fiseclip": {"lambda_": LAMBDAS}}), folder / f"{told} five")[0]]
        times.insert(0, run(one, folder / f"{told} one")[0])
        yield [f"fiseclip, {told}", *times, times[1] / times[0]]
        times = [run_study(which, request, folder / f"{told} {len(which.rows)}") for which in (first, study)]
        yield [f"Table 3, {told}", *times, times[1] / times[0]]


def run_study(study: Study, request: Request, out: Path) -> float:
    """Return the CPU seconds of a study into an empty folder."""
    began = cpu()
    planned = studies.make_run(study, replace(request, methods=(), out=out))
    runner.run(planned.plan, planned.request, Strict())
    return cpu() - began


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default="clip_ad,april_gan,musc")
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--sweep", action="store_true", help="measure variants instead")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(contents, "TICK", 0):
        root = Path(folder)
        with mock.patch.object(contents, "folder", lambda: root / "memory"):
            write_images(root / "data/mvtec", options.images)
            weights = write_weights(root)
            lines = []
            if options.sweep:
                vit = Request((), ["mvtec"], root, root / "data", SPEC, {SPEC: weights})
                print(tabulate(sweep_lines(vit, root), ("", "one s", "five s", "five / one"), "pipe", floatfmt=".2f"))
                return
            for name in options.methods.split(","):
                request = Request(
                    methods=[name],
                    datasets=["mvtec"],
                    data_root=root / "data",
                    out=root,
                    encoder=SPEC,
                    weights={SPEC: weights},
                    checkpoints=write_checkpoint(name, root, weights),
                )
                lines.append(measure(name, request, root / name))
    head = ("method", "no cache s", "cold s", "warm s", "head s", "cold / none", "warm / none", "warm / head")
    print(tabulate(lines, head, "pipe", floatfmt=".2f"))


if __name__ == "__main__":
    main()
