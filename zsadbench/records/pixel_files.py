"""Pixel histograms of a cell, `CATEGORY.pixels.npz` beside its record: for intervals of pixel metrics."""

from __future__ import annotations

import io
import zipfile
import zlib
from dataclasses import asdict
from pathlib import Path

import numpy as np

from zsadbench.errors import RecordError
from zsadbench.metrics.histograms import Histograms
from zsadbench.records import results
from zsadbench.records.results import Record


def encode(histograms: Histograms) -> bytes:
    """Return the file of the histograms; row i is line i of the scores file. Equal ones give equal bytes."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **asdict(histograms))  # gives every member the date 1980-01-01
    return buffer.getvalue()


def load(run: Path, record: Record) -> Histograms:
    """Read the histograms of a record. Raises RecordError unless they are those that were written with it."""
    content = results.read_beside(run, record, results.PIXELS)
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            return Histograms(**archive)
    except (OSError, EOFError, ValueError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        path = results.path_of(run, record, results.PIXELS)
        raise RecordError(f"{path} does not hold pixel histograms: {error}. Run the cell again.") from error
