"""Train the demo preset of every trained method on the demo family: train_demo_checkpoints.py FOLDER.

The weights ship, so that the demo prints the same numbers everywhere; about two minutes on one core.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import torch

from zsadbench.testing.gain import Course, trained_on
from zsadbench.training.loop import train
from zsadbench.training.request import TrainRequest

TRAINED_ON = "demo.train"


def main(folder: Path) -> None:
    """Train into one folder a method, named after its preset."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # sentences of the demo encoder form one cluster
    for name in trained_on(TRAINED_ON):
        course = Course()
        train(TrainRequest(name, TRAINED_ON, folder / name, encoder="demo"), course)
        print(f"{name}: {course.seconds:.0f} s")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
