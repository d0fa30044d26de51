"""How far `zsadbench run` is from the bare encoder, where the rest goes, and how time and memory grow.

    python benchmarks/runner.py --quick
    python benchmarks/runner.py ratio --encoder open_clip:ViT-B-16/openai --images 100 --threads 1
    python benchmarks/runner.py ratio --encoder open_clip:ViT-L-14-336/openai --size 518 --precision bf16 --device cuda
    python benchmarks/runner.py images --images 50,200,800
    python benchmarks/runner.py methods

ratio: images per second of a run over those of its encoder passes alone, on batches of the same size, which gates say
must be at least 0.85 on a GPU (ViT-L/14 at 518, bf16) and 0.95 on a CPU. The run is timed from the end of its first
batch, when weights and text features are there, to its last record. Pictures are synthetic JPEG files of VisA's size;
weights are random where none ship. "CPU" is the time of all threads of the process, decoding included.

images, methods: time and peak memory of whole runs with more images a category, or more methods, each in a process of
its own. Memory is above that of the process before the run; features beyond a budget of 1 GiB go to disk.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from safetensors.torch import save_file
from tabulate import tabulate

from zsadbench import encoders
from zsadbench.components import postprocess
from zsadbench.data import synthetic
from zsadbench.encoders.base import Encoder
from zsadbench.encoders.features import FeatureRequest
from zsadbench.encoders.text import TextEncoder
from zsadbench.metrics import histograms
from zsadbench.metrics.pixels import PixelCounts
from zsadbench.protocol import EvaluationProtocol
from zsadbench.records import pixel_files, results
from zsadbench.running import evaluation, plan, runner
from zsadbench.running.loading import ChunkStore
from zsadbench.running.planned import Plan
from zsadbench.running.progress import Recorded
from zsadbench.running.request import Request
from zsadbench.support import spill
from zsadbench.support.meters import clock, peak_memory, reset_peak

PHASES = {  # what the main thread does, as (where, name of the function); one inside another counts for the outer
    "loading weights": (encoders, "load_for"),
    "text features": (TextEncoder, "encode"),
    "encoder": (Encoder, "encode"),
    "waiting for decoded images": (ChunkStore, "images"),
    "maps to the spill file": (spill.Spill, "write"),
    "maps back from it": (spill.Spill, "read"),
    "ground truth masks": (evaluation.GroundTruth, "masks"),
    "finishing maps": (postprocess, "finish"),
    "pixel metrics, batch by batch": (PixelCounts, "update"),
    "pixel metrics, at the end": (PixelCounts, "compute"),
    "pixel histograms": (histograms, "_count"),
    "pixel histograms to disk": (pixel_files, "save"),
    "records": (results, "save"),
}


# Plain CLIP, a cosine and nothing else. Its own image score would wait for the whole category.
METHOD = "clip_surgery.direct"
CHANGES = {METHOD: {"image_score": "class_token"}}


class Watch:
    """A Progress that notes when the first batch and the last record were done; a cell that failed ends all."""

    def __init__(self, device: str) -> None:
        self.device, self.images = device, 0
        self.first: tuple[float, float] | None = None
        self.last = (0.0, 0.0)

    def begin(self, cells: int, images: int) -> None:
        """Ignore the announcement."""

    def step(self, label: str, images: int) -> None:
        """Start after the first batch."""
        if self.first is None:
            self.first = clock(self.device), time.process_time()
        else:
            self.images += images

    def skip(self, images: int) -> None:
        """Ignore it: the cell has failed."""

    def finish_cell(self, recorded: Recorded) -> None:
        """Stop at a cell that failed: its time would mean nothing."""
        if recorded.record.status != "done":
            raise SystemExit(recorded.record.error)
        self.last = clock(self.device), time.process_time()

    @property
    def seconds(self) -> tuple[float, float]:
        """Return wall and CPU time between."""
        assert self.first is not None
        return self.last[0] - self.first[0], self.last[1] - self.first[1]


class Growth(NamedTuple):
    """What one whole run took."""

    seconds: float
    cpu_seconds: float
    bytes: int


def make_request(options: argparse.Namespace, folder: Path, dataset: str, methods: Sequence[str]) -> Request:
    """Return the run that is measured; encoders that would be downloaded get a file of random weights."""
    weights = {}
    if ":" in options.encoder:
        weights[options.encoder] = folder / "random.safetensors"
        write_weights(options.encoder, weights[options.encoder])
    size = {"size": options.size} if options.size else {}
    changes = {name.partition(".")[0]: {**CHANGES.get(name, {}), **size} for name in methods}
    return Request(
        methods=methods,
        datasets=[dataset],
        out=folder / "run",
        encoder=options.encoder,
        weights=weights,
        changes=changes,
        device=options.device,
        protocol=EvaluationProtocol(precision=options.precision, batch_size=options.batch_size),
    )


def write_weights(spec: str, path: Path) -> None:
    """Write random weights of an open_clip encoder."""
    from zsadbench.encoders import open_clip, random

    name, tag = spec.partition(":")[2].split("/")
    config, _ = open_clip.trained_config(name, tag, spec)
    save_file(random.draw(open_clip.shapes(config)), path)


def encoder_seconds(work: Plan, request: Request, images: int) -> tuple[float, float]:
    """Return wall and CPU time of the encoder passes of so many images of a run, and of nothing else."""
    planned = work.groups[0][0].planned
    encoder = encoders.load_for(
        planned.config, device=request.device, precision=request.protocol.precision, weights=request.weights
    )
    assert encoder is not None
    wanted = planned.method(planned.config, encoder).request
    batch = torch.randn(request.protocol.batch_size, 3, encoder.size, encoder.size).to(request.device)
    with torch.inference_mode():
        encode(encoder, batch, wanted, 1)
        start = clock(request.device), time.process_time()
        encode(encoder, batch, wanted, images // len(batch))
        return clock(request.device) - start[0], time.process_time() - start[1]


def encode(encoder: Encoder, batch: torch.Tensor, wanted: FeatureRequest, times: int) -> None:
    """Encode a batch some times."""
    for _ in range(times):
        encoder.encode(batch, wanted)


@contextmanager
def timed_phases(device: str) -> Iterator[dict[str, float]]:
    """Sum up the seconds that the main thread spends in each of PHASES."""
    seconds: dict[str, float] = {}
    active: list[str] = []
    with ExitStack() as stack:
        for phase, (owner, name) in PHASES.items():
            wrapped = _timed(getattr(owner, name), phase, seconds, active, device)
            stack.enter_context(mock.patch.object(owner, name, wrapped))
        yield seconds


def _timed(
    function: Callable[..., Any], phase: str, seconds: dict[str, float], active: list[str], device: str
) -> Callable[..., Any]:
    def wrapper(*arguments: Any, **named: Any) -> Any:
        if active or threading.current_thread() is not threading.main_thread():
            return function(*arguments, **named)
        start = clock(device)
        active.append(phase)
        try:
            return function(*arguments, **named)
        finally:
            active.pop()
            seconds[phase] = seconds.get(phase, 0.0) + clock(device) - start

    return wrapper


def measure_ratio(options: argparse.Namespace) -> None:
    """Print the ratio of a run to its encoder, and the shares of the run's time."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root = synthetic.write_folder(folder / "pictures", options.images[0])
        request = make_request(options, folder, f"folder={root}", [options.method])
        walls, cpus = [], []
        for turn in range(options.repeat):
            work = plan.make_plan(Request(**{**vars(request), "out": folder / f"run_{turn}"}))
            watch = Watch(options.device)
            runner.run(work, Request(**{**vars(request), "out": folder / f"run_{turn}"}), watch)
            bare = encoder_seconds(work, request, watch.images)
            walls.append(bare[0] / watch.seconds[0])
            cpus.append(bare[1] / watch.seconds[1])
            print(
                f"round {turn + 1}: run {watch.images / watch.seconds[0]:.2f} images/s, bare encoder "
                f"{watch.images / bare[0]:.2f} images/s, ratio {walls[-1]:.3f} of wall time, {cpus[-1]:.3f} of CPU time"
            )
        print(f"\nbest ratio of {options.repeat} rounds: {max(walls):.3f} of wall time, {max(cpus):.3f} of CPU time")
        apart = Request(**{**vars(request), "out": folder / "phases"})
        with timed_phases(options.device) as seconds:
            start = clock(options.device)
            runner.run(plan.make_plan(apart), apart, Watch(options.device))
            whole = clock(options.device) - start
    seconds["everything else, the method's head included"] = whole - sum(seconds.values())
    rows = [[phase, spent, 100 * spent / whole] for phase, spent in sorted(seconds.items(), key=lambda item: -item[1])]
    print("\nWhere the main thread of a whole run is:\n")
    print(tabulate(rows, ["phase", "seconds", "% of the run"], tablefmt="pipe", floatfmt=".2f"))


def one_run(options: argparse.Namespace, images: int | None, methods: Sequence[str]) -> Growth:
    """Run once in this process, on so many synthetic images of one category, or on the demo set."""
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")  # representative vectors of similar text collapse to the mean
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset = "demo"
        if images is not None:
            dataset = f"folder={synthetic.write_folder(folder / 'pictures', images, size=(256, 256))}"
        request = make_request(options, folder, dataset, methods)
        work = plan.make_plan(request)
        reset_peak(options.device)
        before = peak_memory(options.device) or 0
        start = clock(options.device), time.process_time()
        runner.run(work, request, Watch(options.device))
        seconds = clock(options.device) - start[0], time.process_time() - start[1]
        return Growth(*seconds, (peak_memory(options.device) or 0) - before)


def measure_growth(options: argparse.Namespace) -> None:
    """Print time and memory of runs with more images a category."""
    rows = []
    for images in options.images:
        found = _apart(one_run, options, images, [options.method])
        rows.append([images, found.seconds, found.cpu_seconds, 1000 * found.cpu_seconds / images, found.bytes / 2**20])
    head = ["images a category", "seconds", "CPU seconds", "CPU ms an image", "peak MiB"]
    print(f"\n{options.method} on one category of synthetic images:\n")
    print(tabulate(rows, head, tablefmt="pipe", floatfmt=".1f"))


def measure_methods(options: argparse.Namespace) -> None:
    """Print time and memory of runs with more methods."""
    everything = [name for name in _trainless() if name != options.method]
    rows = []
    for count in (0, 1, 3, len(everything)):
        found = _apart(one_run, options, None, [options.method, *everything[:count]])
        rows.append([count + 1, found.seconds, found.cpu_seconds, found.bytes / 2**20])
    print("\nMethods that need no training, on the demo set:\n")
    print(tabulate(rows, ["methods", "seconds", "CPU seconds", "peak MiB"], tablefmt="pipe", floatfmt=".1f"))


def _trainless() -> list[str]:
    from zsadbench import methods

    names = [listing.name for listing in methods.available() if listing.card is not None]
    return [name for name in names if not issubclass(methods.lookup(name)[0], methods.TrainableMethod)]


def _apart(action: Callable[..., Growth], *arguments: Any) -> Growth:
    """Call in a fresh process, whose memory is the call's."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(action, *arguments).result()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("ratio", "images", "methods", "all"), default="all")
    parser.add_argument("--encoder", default="demo", help="SPEC")
    parser.add_argument("--method", default=METHOD, help="a cheap one")
    parser.add_argument("--size", type=int, help="input side in pixels; by default the encoder's own")
    parser.add_argument("--images", default="50,200,800", help="a category; the ratio is measured on the first")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--quick", action="store_true", help="smoke test: few images, one round")
    options = parser.parse_args()
    if options.quick:
        options.images, options.repeat = "24,32", 1
    options.images = [int(count) for count in options.images.split(",")]
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")  # as in one_run
    facts = f"{options.precision}, {options.device}, {options.threads} threads"
    print(f"Encoder {options.encoder}, {facts}, {options.method}.", flush=True)
    actions = {"ratio": measure_ratio, "images": measure_growth, "methods": measure_methods}
    for action in actions.values() if options.what == "all" else [actions[options.what]]:
        action(options)


if __name__ == "__main__":
    main()
