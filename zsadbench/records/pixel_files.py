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
from zsadbench.support import files


def path_of(run: Path, record: Record) -> Path:
    """Return where the histograms of a cell lie."""
    return results.record_path(run, record.dataset, record.method, record.category).with_suffix(".pixels.npz")


def save(run: Path, record: Record, histograms: Histograms) -> None:
    """Write the histograms; row i is line i of the scores file. Equal ones give equal bytes. Raises RecordError."""
    buffer = io.BytesIO()
    # np.savez gives every member the date 1980-01-01, so the bytes depend on the content alone.
    np.savez_compressed(buffer, fingerprint=np.array(record.fingerprint), **asdict(histograms))
    files.write_atomically(path_of(run, record), buffer.getvalue())


def load(run: Path, record: Record) -> Histograms:
    """Read the histograms of a record. Raises RecordError."""
    path = path_of(run, record)
    advice = f"Delete {path.with_name(f'{record.category}.json').name} there and run the cell again."
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = dict(archive)
        if str(arrays.pop("fingerprint", "")) != record.fingerprint:
            raise ValueError("they are of an earlier run of the cell")
        return Histograms(**arrays)
    except FileNotFoundError:
        raise RecordError(
            f"{path} does not exist, so pixel metrics have no intervals: an older zsadbench ran the cell. {advice}"
        ) from None
    except (OSError, EOFError, ValueError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise RecordError(f"{path} does not hold the pixel histograms of its record: {error}. {advice}") from error
