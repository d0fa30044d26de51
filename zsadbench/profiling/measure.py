"""Measures what methods cost, each in a process of its own: memory is the method's, and a failure ends it alone."""

from __future__ import annotations

import multiprocessing
import os
import platform
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from functools import partial
from multiprocessing.context import ForkServerContext
from typing import Any

import torch

from zsadbench import __version__, encoders, methods
from zsadbench.encoders import open_clip, timm  # noqa: F401  # so that no method's memory holds their import
from zsadbench.encoders.base import PRECISIONS, Encoder
from zsadbench.errors import WeightsError, ZsadError
from zsadbench.methods import Method, TrainableMethod
from zsadbench.profiling import bench
from zsadbench.profiling.bench import Bench
from zsadbench.profiling.measure_training import measure_training
from zsadbench.records.efficiency import EfficiencyRecord, ProfileOptions
from zsadbench.running import plan
from zsadbench.running.request import Request
from zsadbench.support import files, plugins, process
from zsadbench.support.guard import guard
from zsadbench.support.meters import Stopwatch, peak_flops, peak_memory, processor


def profile(request: Request, options: ProfileOptions) -> Iterator[EfficiencyRecord]:
    """Measure the methods of a request one after another; yields a record each, failed ones with the reason.

    Raises UnknownName, UsageError or OptionError before anything is measured.
    """
    methods_, left_out = plan.resolve_methods(request)
    for name, problem in left_out.items():
        yield _failed(name, name, request, str(problem))
    possible = _apart(peak, request, options)
    for name, (method, _) in methods_.items():
        try:
            yield _apart(measure, name, request, options, possible)
        except BrokenProcessPool:
            yield _failed(
                name, method.card.title, request, "The system ended its process, usually because memory ran out."
            )


def _apart(action: Callable[..., Any], *arguments: Any) -> Any:
    """Return what an action returns in a process of its own."""
    # Forked from a server that has imported everything and never used the GPU: a fork of this process could not use it.
    context = multiprocessing.get_context("forkserver" if hasattr(os, "fork") else "spawn")
    if isinstance(context, ForkServerContext):
        context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(1, mp_context=context, initializer=_obey) as worker:
        return worker.submit(action, *arguments).result()


def _obey() -> None:
    """In a process that measures: end with this one, whose answer to signals is the only one."""
    for number in process.WORDS:
        signal.signal(number, signal.SIG_DFL)
    process.end_with_parent()


def peak(request: Request, options: ProfileOptions) -> float:
    """Return the floating-point operations a second of a large matrix product, on the device that is measured."""
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    watch = Stopwatch(request.device, _threads(request.device))
    return peak_flops(request.device, PRECISIONS[request.protocol.precision], watch)


def _threads(device: str) -> int | None:
    return None if device.startswith("cuda") else torch.get_num_threads()


def measure(name: str, request: Request, options: ProfileOptions, possible: float) -> EfficiencyRecord:
    """Measure one method in this process; whatever it raises becomes a failed record.

    possible: floating-point operations a second, from `peak`.
    """
    for folder in options.plugin_folders:
        plugins.add_folder(folder)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    method, full, config = plan.configure(name, request)
    outcome = guard(partial(_measure, method, full, config, request, options, possible), fail_fast=False)
    if isinstance(outcome, ZsadError):
        return _failed(full, method.card.title, request, str(outcome))
    measured: EfficiencyRecord = outcome
    return measured


def _failed(name: str, title: str, request: Request, reason: str) -> EfficiencyRecord:
    device, precision = processor(request.device), request.protocol.precision
    return EfficiencyRecord(name, title, "failed", device, precision, error=reason)


def _measure(
    kind: type[Method], name: str, config: Any, request: Request, options: ProfileOptions, possible: float
) -> EfficiencyRecord:
    device, precision = request.device, request.protocol.precision
    threads = _threads(device)
    baseline = 0 if threads is None else peak_memory(device)
    encoder = _load(config, request, options)
    prompts = bench.watch_prompts(encoder.text if encoder is not None else None)
    method = methods.build(kind, name, config, encoder)
    if isinstance(method, TrainableMethod):
        method.initialise(seed=0)
        assert method.trained is not None
        method.trained.eval().requires_grad_(False)
    watch = Stopwatch(device, threads)
    with torch.inference_mode():
        subject = Bench(method, device, options, watch)
        text_prompts, text_ms = subject.text(prompts)
        timings, stopped = subject.timings()
        flops = subject.flops()
        ends = dict.fromkeys((timings[0].batch, min(timings, key=lambda timing: timing.median_ms).batch))
        passes = [] if encoder is None else [subject.encoder_timing(encoder, batch) for batch in ends]
        encoder_flops = None if encoder is None else bench.encoder_flops(encoder)
    training = measure_training(method, request, options) if options.train else None
    trained = _trained_parameters(method)
    return EfficiencyRecord(
        method=name,
        title=kind.card.title,
        status="done",
        device=processor(device),
        precision=precision,
        threads=threads,
        clock=watch.clock,
        timed=bench.TIMED,
        setting={"scope": method.scope, "shots": method.shots},
        options=files.as_json(asdict(config)),
        changed=files.as_json(methods.changed(name, config)),
        encoder=encoder.identity if encoder is not None else {},
        random_weights=encoder is not None and encoders.RANDOM in encoder.identity.values(),
        text_prompts=text_prompts,
        text_ms=text_ms,
        parameters=trained + _frozen_parameters(encoder, uses_text=bool(prompts)),
        trained_parameters=trained,
        flops=flops,
        encoder_flops=encoder_flops,
        peak_flops=possible,
        timings=timings,
        encoder_timings=tuple(passes),
        stopped=stopped,
        baseline_bytes=baseline,
        training=training,
        environment={
            "zsadbench": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "cuda": (torch.version.cuda or "") if threads is None else "",
        },
    )


def _load(config: Any, request: Request, options: ProfileOptions) -> Encoder | None:
    try:
        return encoders.load_for(
            config,
            device=request.device,
            precision=request.protocol.precision,
            weights=request.weights,
            random_weights=options.random_weights,
        )
    except WeightsError as error:
        raise WeightsError(f"{error} Or pass --random-weights: values hardly change what a method costs.") from error


def _frozen_parameters(encoder: Encoder | None, uses_text: bool) -> int:
    if encoder is None:
        return 0
    return encoder.parameters + (encoder.text.parameters if uses_text and encoder.text is not None else 0)


def _trained_parameters(method: Method) -> int:
    trained = method.trained if isinstance(method, TrainableMethod) else None
    return 0 if trained is None else sum(parameter.numel() for parameter in trained.parameters())
