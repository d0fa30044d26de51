"""Finished maps of a cell kept for figures: `CATEGORY.maps.npz` beside its record, written by `run --save-maps`.

Maps are kept as 16-bit steps between the lowest and the highest value of each image, at most 256 pixels a side: that is
enough for print, and 131 kB an image. Metrics never read them.
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from zsadbench.errors import RecordError
from zsadbench.records import results
from zsadbench.records.results import Record

if TYPE_CHECKING:
    from torch import Tensor

SIDE = 256  # pixels of the longer side: 300 dpi at the 2 cm that a panel has in print
STEPS = 2**16 - 1
FINGERPRINT, RANGES = "fingerprint", "ranges"  # of the archive: the record's; [N, 2] float32, each map's extremes

_ADVICE = "Run the same command again with --save-maps: it makes the maps that are missing, and nothing else."


def encode(record: Record, names: Sequence[str], maps: Iterable[tuple[int, np.ndarray]]) -> bytes:
    """Return the file of a cell's maps (index of the first image, [B, H, W] float32, finite) by their samples' names.

    Equal maps give equal bytes.
    """
    buffer, ranges = io.BytesIO(), np.zeros((len(names), 2), np.float32)
    with zipfile.ZipFile(buffer, "w") as archive:
        for start, batch in maps:
            for index, values in enumerate(batch, start):
                small = shrink(values)
                low, high = ranges[index] = small.min(), small.max()
                steps = (small - low) / (high - low or 1) * STEPS
                _add(archive, names[index], np.rint(steps).astype(np.uint16))
        _add(archive, RANGES, ranges)
        _add(archive, FINGERPRINT, np.array(record.fingerprint))
    return buffer.getvalue()


def exist(run: Path, record: Record) -> bool:
    """Tell whether the maps of a record are there and whole; those of another run of its cell do not count."""
    try:
        with np.load(results.path_of(run, record, results.MAPS), allow_pickle=False) as archive:
            return str(archive[FINGERPRINT]) == record.fingerprint
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return False


def load(run: Path, record: Record, names: Sequence[str]) -> Mapping[str, np.ndarray]:
    """Return the maps of a cell's samples, [h, w] float32, by name; `names` are all of them. Raises RecordError."""
    path = results.path_of(run, record, results.MAPS)
    try:
        with np.load(path, allow_pickle=False) as archive:
            if str(archive[FINGERPRINT]) != record.fingerprint:
                raise ValueError("they are of an earlier run of the cell")
            ranges = archive[RANGES]
            return {
                name: low + archive[name] * ((high - low) / np.float32(STEPS))
                for name, (low, high) in zip(names, ranges, strict=True)
            }
    except FileNotFoundError:
        raise RecordError(f"{path} does not exist: the run kept no maps. {_ADVICE}") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise RecordError(f"{path} does not hold the maps of its record: {error}. {_ADVICE}") from error


def shrink(values: np.ndarray) -> np.ndarray:
    """Return a map [H, W] averaged over areas to at most 256 pixels a side, its aspect kept; a smaller one as it is."""
    import torch  # here, because drawing figures needs no torch

    scale = SIDE / max(values.shape)
    if scale >= 1:
        return values
    size = tuple(max(1, math.floor(side * scale)) for side in values.shape)
    pooled: Tensor = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(values)[None], size)
    return pooled[0].numpy()


def _add(archive: zipfile.ZipFile, name: str, values: np.ndarray) -> None:
    """Add an array as NumPy does, but always with the date 1980-01-01."""
    content = io.BytesIO()
    np.lib.format.write_array(content, values, allow_pickle=False)
    archive.writestr(zipfile.ZipInfo(f"{name}.npy"), content.getvalue())
