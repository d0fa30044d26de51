"""What all code of a process shares, and a plugin may leave changed: torch's settings, random numbers, streams.

`Settings` notices a change and takes it back; `visit` gives a plugin random numbers of its own, and what it prints goes
to standard error.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import cache, partial
from typing import Any, NamedTuple, cast

import numpy as np
import torch

NO_NUMBERS = (  # settings that change no bit of what torch computes
    "grad mode",
    "anomaly detection",
    "the current GPU",
    "numpy's handling of floating-point errors",
    "the working directory",
    "the handler of Ctrl-C",
)
DENORMAL = 5e-324  # the least double: zero in arithmetic that flushes such numbers


class Setting(NamedTuple):
    """One thing that a process or thread has once."""

    name: str
    get: Callable[[], Any]
    put: Callable[[Any], Any]


class Settings:
    """The settings of this process and thread as they were when this was made."""

    def __init__(self) -> None:
        """Read them all, which takes some 0.02 ms."""
        self._before = [(setting, setting.get()) for setting in _settings()]

    def changed(self) -> list[str]:
        """Return what is different now, in words: "torch's default dtype (torch.float64, was torch.float32)"."""
        found = ((setting.name, setting.get(), before) for setting, before in self._before)
        return [f"{name} ({now}, was {before})" for name, now, before in found if now != before]

    def restore(self) -> None:
        """Set back what is different now."""
        for _ in range(2):  # the second time for what setting another one back has moved
            for setting, before in self._before:
                if setting.get() != before:
                    setting.put(before)


def of_numbers() -> dict[str, str]:
    """Return the settings that the bits of a computation may depend on, in words."""
    return {setting.name: str(setting.get()) for setting in _settings() if setting.name not in NO_NUMBERS}


@contextmanager
def visit(seed: int) -> Iterator[None]:
    """Let a plugin work inside the block: what it draws depends on `seed` alone, and all others draw as without it.

    seed: in 0..2**32-1. What it prints goes to standard error; streams and filters of warnings that it replaces come
    back.
    """
    numpy, cuda = cast("Any", np.random), cast("Any", torch.cuda)  # partly untyped
    states = torch.get_rng_state(), numpy.get_bit_generator(), random.getstate()
    on_gpus = cuda.get_rng_state_all() if cuda.is_initialized() else []
    torch.default_generator.manual_seed(seed)
    numpy.set_bit_generator(_plugins_bits())  # much faster than to copy its state and set it back
    numpy.seed(seed)
    random.seed(seed)
    if on_gpus:
        cuda.manual_seed_all(seed)
    try:
        with redirect_stdout(sys.stderr), redirect_stderr(sys.stderr), warnings.catch_warnings():
            yield
    finally:
        torch.set_rng_state(states[0])
        numpy.set_bit_generator(states[1])
        random.setstate(states[2])
        if on_gpus:
            cuda.set_rng_state_all(on_gpus)


@cache
def _plugins_bits() -> np.random.MT19937:
    return np.random.MT19937(0)


@cache
def _settings() -> tuple[Setting, ...]:
    backends: Any = torch.backends  # partly untyped
    cuda, cudnn, mkldnn = backends.cuda, backends.cudnn, backends.mkldnn
    precisions = {
        "": backends, "mkldnn.": mkldnn, "mkldnn.matmul.": mkldnn.matmul, "mkldnn.conv.": mkldnn.conv,
        "cuda.matmul.": cuda.matmul, "cudnn.": cudnn, "cudnn.conv.": cudnn.conv,
    }  # fmt: skip
    reductions = ("allow_fp16_reduced_precision_reduction", "allow_bf16_reduced_precision_reduction")
    attention = ("flash", "mem_efficient", "math", "cudnn")
    return (
        Setting("torch's default dtype", torch.get_default_dtype, torch.set_default_dtype),
        Setting("torch's default device", lambda: torch.empty(0).device.type, _set_default_device),
        Setting("the number of torch's function modes", torch._C._len_torch_function_stack, _leave_modes),
        Setting("grad mode", torch.is_grad_enabled, torch.set_grad_enabled),
        Setting("anomaly detection", torch.is_anomaly_enabled, torch.set_anomaly_enabled),
        *(Setting(f"autocast on {kind}", partial(_autocast, kind), partial(_set_autocast, kind))
          for kind in ("cpu", "cuda")),
        Setting("the number of threads", torch.get_num_threads, torch.set_num_threads),
        Setting("the current GPU", _gpu, torch.cuda.set_device),
        Setting("deterministic mode", torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
        Setting("flushing of denormal numbers", lambda: DENORMAL * float(1) == 0, torch.set_flush_denormal),
        *(_flag(f"{name}fp32_precision", owner) for name, owner in precisions.items()),
        Setting("float32 matmul precision", _matmul_precision, torch.set_float32_matmul_precision),
        _flag("cuda.matmul.allow_tf32", cuda.matmul),
        *(_flag(f"cuda.matmul.{name}", cuda.matmul) for name in reductions),
        *(_flag(f"cudnn.{name}", cudnn) for name in ("allow_tf32", "enabled", "benchmark", "deterministic")),
        _flag("mkldnn.enabled", mkldnn),
        *(Setting(f"{kind} attention", getattr(cuda, f"{kind}_sdp_enabled"), getattr(cuda, f"enable_{kind}_sdp"))
          for kind in attention),
        Setting("numpy's handling of floating-point errors", np.geterr, lambda before: np.seterr(**before)),
        Setting("the working directory", os.getcwd, os.chdir),
        Setting("the handler of Ctrl-C", partial(signal.getsignal, signal.SIGINT), _set_handler),
    )  # fmt: skip


def _flag(path: str, owner: Any) -> Setting:
    """Return an attribute of a part of torch.backends as a setting."""
    name = path.rpartition(".")[2]

    def get() -> Any:
        try:
            return getattr(owner, name)
        except RuntimeError:  # torch refuses to name a precision that was set by parts, in the words of another release
            return "mixed"

    return Setting(f"torch.backends.{path}", get, partial(setattr, owner, name))


def _matmul_precision() -> str:
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # as above
        return "mixed"


def _set_default_device(kind: str) -> None:
    torch.set_default_device(None if kind == "cpu" else kind)


def _leave_modes(count: int) -> None:
    """Leave the modes that were entered last, such as that of `torch.device` as a context."""
    while torch._C._len_torch_function_stack() > count:
        torch._C._pop_torch_function_stack()


def _autocast(kind: str) -> tuple[bool, torch.dtype]:
    return torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)


def _set_autocast(kind: str, value: tuple[bool, torch.dtype]) -> None:
    torch.set_autocast_enabled(kind, value[0])
    torch.set_autocast_dtype(kind, value[1])
    torch.clear_autocast_cache()


def _gpu() -> int:
    cuda: Any = torch.cuda  # partly untyped
    return int(cuda.current_device()) if cuda.is_initialized() else 0


def _set_handler(handler: Any) -> None:
    if threading.current_thread() is threading.main_thread():  # others cannot, and cannot have changed it
        signal.signal(signal.SIGINT, handler)
