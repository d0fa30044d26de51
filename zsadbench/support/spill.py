"""Tensors parked on disk: an unnamed temporary file that vanishes with the process, even after `kill -9`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import torch
from torch import Tensor

from zsadbench.errors import RecordError


class Parked(NamedTuple):
    """Where a tensor lies in the file, and how to give it back as it was."""

    offset: int
    shape: torch.Size
    dtype: torch.dtype
    device: torch.device


class Spill:
    """An append-only store of tensors below one folder."""

    def __init__(self, folder: Path) -> None:
        """Open the file; `folder` must exist and have room for what will be written."""
        self._folder = folder
        self._file = tempfile.TemporaryFile(dir=folder)
        self._end = 0
        self._lock = Lock()  # cells of one category are read back by several threads

    def write(self, tensor: Tensor) -> Parked:
        """Append a tensor of any shape and dtype. Raises RecordError when the disk is full."""
        try:
            with self._lock:
                parked = Parked(self._end, tensor.shape, tensor.dtype, tensor.device)
                self._file.seek(self._end)
                self._file.write(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
                self._end = self._file.tell()
        except OSError as error:
            raise RecordError(
                f"{self._folder} has no room for temporary results: {error.strerror or error}. "
                "Free some space or choose another --out, then run the same command again."
            ) from error
        return parked

    def read(self, parked: Parked) -> Tensor:
        """Return a tensor as it was written, on its device."""
        buffer = bytearray(parked.shape.numel() * parked.dtype.itemsize)
        with self._lock:
            self._file.seek(parked.offset)
            self._file.readinto(buffer)
        if not buffer:
            return torch.empty(parked.shape, dtype=parked.dtype, device=parked.device)
        return torch.frombuffer(buffer, dtype=parked.dtype).reshape(parked.shape).to(parked.device)

    def close(self) -> None:
        """Give the disk space back."""
        self._file.close()
