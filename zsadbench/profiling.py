"""How long work takes and how much memory it needs, measured in one way wherever it is reported."""

from __future__ import annotations

import sys
import time


class Meter:
    """Measures wall time and peak memory of work on a device from its creation on."""

    def __init__(self, device: str) -> None:
        """Start measuring on "cpu", "cuda" or "cuda:N"."""
        self.device = device
        reset_peak(device)
        self._last = clock(device)

    def lap(self) -> float:
        """Return the seconds since the last lap or the start, work that a GPU has queued included."""
        now = clock(self.device)
        seconds, self._last = now - self._last, now
        return seconds

    @property
    def peak_bytes(self) -> int | None:
        """The peak memory so far, see `peak_memory`."""
        return peak_memory(self.device)


def clock(device: str) -> float:
    """Return seconds of a clock that never goes back, once the device has done all work that is queued."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)
    return time.perf_counter()


def peak_memory(device: str) -> int | None:
    """Return the peak of bytes allocated on a GPU since `reset_peak`, else of the whole process since it started.

    None where the system does not tell (Windows).
    """
    if device.startswith("cuda"):
        import torch

        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


def reset_peak(device: str) -> None:
    """Forget a GPU's peak of allocated memory; a CPU's cannot be forgotten."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.reset_peak_memory_stats(device)
