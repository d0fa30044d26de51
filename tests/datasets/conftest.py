"""Tiny replicas of datasets: a tree of real image files from a mapping of paths to sizes or values."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from zsadbench import datasets
from zsadbench.data.images import decode_image
from zsadbench.data.masks import read_mask
from zsadbench.protocol import EvaluationProtocol
from zsadbench.records import results
from zsadbench.running import runner
from zsadbench.running.plan import make_plan
from zsadbench.running.request import Request
from zsadbench.testing import check_dataset


@pytest.fixture
def paint(tmp_path):
    """A function (name, height, width, value=None) that writes a file; a value makes a mask with one marked pixel."""

    def write(name, height=6, width=9, value=None):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if value is None:
            seed = len(list(tmp_path.rglob("*")))  # every image differs, because equal bytes are a finding
            array = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
        else:
            array = np.zeros((height, width), np.uint8)
            array[1, 2] = value
        Image.fromarray(array).save(path)
        return path

    return write


@pytest.fixture
def store(tmp_path):
    """A function (name, pixels, format=None, **options) that writes given pixels, if asked under a name that lies."""

    def write(name, pixels, format=None, **options):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
        image.save(path, format, **options)
        return path

    return write


@pytest.fixture
def blob():
    """A function (height, width, value=255) that returns a mask [H, W] uint8 with one marked square of 3 x 3 pixels."""

    def draw(height, width, value=255):
        mask = np.zeros((height, width), np.uint8)
        mask[1:4, 1:4] = value
        return mask

    return draw


@pytest.fixture
def verify(summary):
    """A function (name, root, rows) that holds a replica to the contract and to its expected samples; returns it."""

    def check(name, root, rows):
        dataset = datasets.create(name, root)
        check_dataset(dataset)
        assert summary(dataset) == rows
        return dataset

    return check


@pytest.fixture
def summary():
    """A function that lists (sample name, split, label, defect, mask path below the root) of every sample."""

    def summarise(dataset):
        rows = []
        for category in dataset.categories():
            for split in ("train", "test"):
                for sample in dataset.samples(category.name, split):
                    mask = sample.masks[0].relative_to(dataset.root).as_posix() if sample.masks else None
                    rows.append((dataset.sample_id(sample), sample.split, sample.label, sample.defect, mask))
        return rows

    return summarise


@pytest.fixture
def marked_pixels():
    """A function (dataset, category) that reads all test masks natively and counts their foreground."""

    def count(dataset, category):
        masks = [
            read_mask(sample, dataset.card.mask_rule, decode_image(sample.image).shape[:2])
            for sample in dataset.samples(category)
        ]
        return [int(mask.sum()) for mask in masks]

    return count


class Finished(NamedTuple):
    """The record of one cell, and the score of every image."""

    record: results.Record
    scores: list[float]


@pytest.fixture
def run_method(tmp_path_factory, toys):
    """A function (method, dataset, data root, **protocol) that runs the whole harness and returns every cell."""

    def run(method, dataset, root, **protocol):
        out = tmp_path_factory.mktemp("run")
        request = Request(
            [method], [dataset], data_root=root, out=out, protocol=EvaluationProtocol(batch_size=4, **protocol)
        )
        progress = Mock()
        runner.run(make_plan(request), request, progress)
        records = [call.args[0].record for call in progress.finish_cell.call_args_list]
        return [Finished(record, [row.score for row in results.load_scores(out, record)]) for record in records]

    return run


@pytest.fixture
def shared_data():
    """The folder of real images beside the project."""
    folder = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real images are not there: {folder}")
    return folder


@pytest.fixture
def listed():
    """A function that returns the card of a dataset as `zsadbench list datasets` reads it, importing nothing."""

    def card(name):
        return next(listing.card for listing in datasets.available() if listing.name == name)

    return card
