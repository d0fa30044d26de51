"""How long work takes and how much memory it needs, measured in one way wherever it is reported."""

from __future__ import annotations

import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from zsadbench.errors import UsageError

if TYPE_CHECKING:
    import torch

CORES = os.cpu_count() or 1
SMALL = 20_000_000  # weights of an encoder: below it one thread computes about as fast as several
CLEAR_PEAK = "5"  # written to clear_refs, Linux resets the process's peak of resident memory (man 5 proc)


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


@contextmanager
def few_threads(device: str, parameters: int) -> Iterator[None]:
    """Let torch compute a small encoder with one thread on a CPU while the block runs.

    Threads that wait for each other crawl on a busy machine: two of them made an epoch of the demo 60 times slower. Who
    has set OMP_NUM_THREADS is left alone. parameters: weights of the encoder.
    """
    before = (
        None if device.startswith("cuda") or parameters >= SMALL or "OMP_NUM_THREADS" in os.environ else _threads(1)
    )
    try:
        yield
    finally:
        if before is not None:
            _threads(before)


def _threads(count: int) -> int:
    """Set how many threads torch computes with, and return how many it did."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    return before


def peak_memory(device: str) -> int | None:
    """Return the peak of bytes since `reset_peak`: allocated on a GPU, else resident of the whole process.

    A CPU's peak is that since the process started where the system cannot reset it (anything but Linux), and None where
    the system does not tell (Windows).
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
    """Forget the peak of memory: it falls to what is held now, where the system can do that."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        Path("/proc/self/clear_refs").write_text(CLEAR_PEAK)
    except OSError:
        pass  # not Linux, or a container that forbids it: see peak_memory


class Spread(NamedTuple):
    """Repeated measurements of one thing, in seconds."""

    median: float
    p10: float
    p90: float


class Stopwatch:
    """Measures how long actions take on a device."""

    def __init__(self, device: str, threads: int | None = None) -> None:
        """Use CUDA events on a GPU, CPU time where one thread works (others hardly move it), else wall time."""
        self._device, self._single = device, threads == 1

    @property
    def clock(self) -> str:
        """Say what measures the time."""
        if self._device.startswith("cuda"):
            return "CUDA events"
        return "CPU time of one thread" if self._single else "wall time"

    def __call__(self, action: Callable[[], Any]) -> float:
        """Return the seconds that an action takes, work that it queues on a GPU included."""
        if self._device.startswith("cuda"):
            return self._on_gpu(action)
        now = time.process_time if self._single else time.perf_counter
        start = now()
        action()
        return now() - start

    def repeat(self, action: Callable[[], Any], warmup: int, repeats: int) -> Spread:
        """Return the spread over some measurements, after some runs that are not measured."""
        for _ in range(warmup):
            action()
        return spread([self(action) for _ in range(repeats)])

    def _on_gpu(self, action: Callable[[], Any]) -> float:
        import torch

        torch.cuda.synchronize(self._device)
        with torch.cuda.device(self._device):
            events: Any = torch.cuda.Event  # not typed
            start, end = (events(enable_timing=True) for _ in range(2))
            start.record()
            action()
            end.record()
        torch.cuda.synchronize(self._device)
        return float(start.elapsed_time(end)) / 1000  # from milliseconds


def spread(seconds: list[float]) -> Spread:
    """Return the median, and the 10th and 90th percentile, interpolated between measurements."""
    if len(seconds) == 1:
        return Spread(*seconds * 3)
    tenths = statistics.quantiles(seconds, n=10, method="inclusive")
    return Spread(statistics.median(seconds), tenths[0], tenths[-1])


def count_flops(action: Callable[[], Any]) -> int:
    """Return the floating-point operations of an action on any device: a multiply-add counts as two.

    Matrix products and convolutions are counted, element-wise work is not. Attention counts as its two products,
    whichever kernel computes it: for counting it is done the plain way, which takes more time and memory.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one fused operation, which the counter does not know
    try:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            action()
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return int(counter.get_total_flops())


def peak_flops(device: str, dtype: torch.dtype, watch: Stopwatch, repeats: int = 5) -> float:
    """Return the floating-point operations a second of a large square matrix product, the best of some repeats."""
    import torch

    side = 8192 if device.startswith("cuda") else 2048  # large enough that another doubling changes nothing
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))  # zeros would save power
    torch.mm(left, right)
    return 2 * side**3 / min(watch(lambda: torch.mm(left, right)) for _ in range(repeats))


def check_device_name(device: str) -> str:
    """Return a device that was asked for, whether it is there or not; imports no torch. Raises UsageError."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise UsageError(f"--device {device}: expected auto, cpu, cuda or cuda:N.")
    return device


def checked_device(device: str) -> str:
    """Resolve "auto" and refuse a device that is not there. Raises UsageError."""
    if check_device_name(device) == "cpu":
        return device
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        raise UsageError(f"--device {device}: torch finds no CUDA device here. Use --device cpu.")
    if int(device.partition(":")[2] or 0) >= count:
        raise UsageError(f"--device {device}: there are {count} here; expected cuda:0 to cuda:{count - 1}.")
    return device


def device_name(device: str) -> str:
    """Return "cpu" or the name of the GPU."""
    if not device.startswith("cuda"):
        return device
    import torch

    return torch.cuda.get_device_name(device)


def processor(device: str) -> str:
    """Return the name of a GPU, or of the processor as the system tells it."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
