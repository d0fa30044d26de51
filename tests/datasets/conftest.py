"""Tiny replicas of datasets: a tree of real image files from a mapping of paths to sizes or values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zsadbench import datasets
from zsadbench.masks import read_mask
from zsadbench.preprocess import decode_image


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
