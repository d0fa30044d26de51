"""What training gives on the demo set, and what it costs, for every trained method's preset of the demo family.

    python benchmarks/demo_training.py
    python benchmarks/demo_training.py --methods april_gan.demo,acr.demo --seeds 0

Loss: mean over the first and the last tenth of the steps, a pair a stage. Pixel AP and image AUROC, in percent: on the
demo set, which training has not seen, with the weights that the training started from and those that it ended with;
ACR's untrained network measures distances to the other images too, so that it is no low start. Seconds: CPU time of all
epochs. First / later epoch: CPU time of a stage's first epoch, which computes encoder features, over the median of its
later ones, which may find them kept. Values are means over the seeds (medians of the last column), with the smallest
and the largest in brackets.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from a checkout without installing it

from zsadbench.testing import gain
from zsadbench.testing.gain import Outcome, StageCourse
from zsadbench.training.request import TrainRequest

HEAD = ("method", "loss", "pixel AP", "image AUROC", "seconds", "first / later epoch")


def line(name: str, outcomes: Sequence[Outcome]) -> list[str]:
    """Return the table's line of a method: one outcome a seed."""
    stages = list(zip(*(outcome.stages for outcome in outcomes), strict=True))  # by stage, then by seed
    before, after = [one.untrained for one in outcomes], [one.trained for one in outcomes]
    return [
        name,
        "; ".join(
            change([one.first_loss for one in stage], [one.last_loss for one in stage], digits=3) for stage in stages
        ),
        change([100 * one.pixel_ap for one in before], [100 * one.pixel_ap for one in after]),
        change([100 * one.image_auroc for one in before], [100 * one.image_auroc for one in after]),
        spread([one.seconds for one in outcomes]),
        "; ".join(epoch_ratio(stage) for stage in stages),
    ]


def change(before: Sequence[float], after: Sequence[float], digits: int = 1) -> str:
    """Return the means before and after, with the range after."""
    return f"{statistics.fmean(before):.{digits}f} → {spread(after, digits)}"


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Return the mean, and the smallest and largest of several values."""
    ends = f" [{min(values):.{digits}f}, {max(values):.{digits}f}]" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{ends}"


def epoch_ratio(stage: Sequence[StageCourse]) -> str:
    """Return the time of a stage's first epoch over the median of its later ones, the median over seeds."""
    ratios = [one.epoch_seconds[0] / statistics.median(one.epoch_seconds[1:]) for one in stage if one.epoch_seconds[1:]]
    return f"{statistics.median(ratios):.2f}" if ratios else "–"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default=",".join(gain.trained_on("demo.train")))
    parser.add_argument("--seeds", default="0,1,2", help="of the initial weights and of the images' order")
    parser.add_argument("--limit", type=int, help="images a category of the demo family; by default all")
    options = parser.parse_args()
    torch.set_num_threads(1)  # CPU time means something then
    warnings.simplefilter("ignore")  # sentences of the demo encoder form one cluster
    seeds = [int(seed) for seed in options.seeds.split(",")]
    lines = []
    for name in options.methods.split(","):
        outcomes = []
        for seed in seeds:
            with tempfile.TemporaryDirectory() as folder:
                out = Path(folder)
                request = TrainRequest(name, "demo.train", out, encoder="demo", seed=seed, limit=options.limit)
                outcomes.append(gain.measure(request, "demo"))
        lines.append(line(name, outcomes))
        print(f"{name}: done", file=sys.stderr, flush=True)
    print(f"Demo family, seeds {options.seeds}, one thread, torch {torch.__version__}.\n")
    print(tabulate(lines, HEAD, tablefmt="pipe", disable_numparse=True))


if __name__ == "__main__":
    main()
