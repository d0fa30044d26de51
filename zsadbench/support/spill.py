"""Tensors parked on disk: an unnamed temporary file that vanishes with the process, even after `kill -9`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import torch
from torch import Tensor

from zsadbench.errors import RecordError
from zsadbench.support import files


class Parked(NamedTuple):
    """Where a tensor lies in the file, and how to give it back as it was."""

    offset: int
    shape: torch.Size
    dtype: torch.dtype
    device: torch.device

    @property
    def size(self) -> int:
        """How many bytes it takes."""
        return self.shape.numel() * self.dtype.itemsize


class Spill:
    """An append-only store of tensors below one folder. What goes wrong is a RecordError: no method is to blame."""

    def __init__(self, folder: Path) -> None:
        """Open the file; `folder` must exist. Raises RecordError when no file can be made there."""
        self._folder = folder
        try:
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # what is written is written, or told
        except OSError as error:
            raise self._failed(error) from error
        self._end = 0
        self._lock = Lock()  # cells of one category are read back by several threads

    def write(self, tensor: Tensor) -> Parked:
        """Append a tensor of any shape and dtype. Raises RecordError when that is impossible, as on a full disk."""
        left = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
        with self._lock:
            parked = Parked(self._end, tensor.shape, tensor.dtype, tensor.device)
            try:
                self._file.seek(self._end)
                while left:  # the system may take less than it is given
                    left = left[self._file.write(left) :]
            except OSError as error:
                raise self._failed(error) from error
            self._end = self._file.tell()
        return parked

    def read(self, parked: Parked) -> Tensor:
        """Return a tensor as it was written, on its device. Raises RecordError when it cannot be read back."""
        buffer = bytearray(parked.size)
        if not buffer:
            return torch.empty(parked.shape, dtype=parked.dtype, device=parked.device)
        left = memoryview(buffer)
        with self._lock:
            try:
                self._file.seek(parked.offset)
                while left and (count := self._file.readinto(left)):
                    left = left[count:]
            except OSError as error:
                raise RecordError(self._lost(error.strerror or str(error))) from error
        if left:
            raise RecordError(self._lost(f"{len(left)} of {len(buffer)} bytes are missing"))
        return torch.frombuffer(buffer, dtype=parked.dtype).reshape(parked.shape).to(parked.device)

    def close(self) -> None:
        """Give the disk space back."""
        self._file.close()

    def _failed(self, error: OSError) -> RecordError:
        return RecordError(
            f"{self._folder} takes no temporary results: {error.strerror or error}. {files.advice(self._folder, error)}"
        )

    def _lost(self, why: str) -> str:
        return (
            f"temporary results below {self._folder} cannot be read back: {why}. Check the disk and run the same "
            "command again."
        )
