"""What the commands `run`, `train` and `profile` do, in Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zsadbench.api.runs import Run
from zsadbench.errors import RecordError
from zsadbench.records.efficiency import EfficiencyRecord, Options

Names = str | Sequence[str]


def evaluate(
    methods: Names = "all",
    datasets: Names = "demo",
    *,
    out: str | Path = "runs/default",
    root: str | Path | None = None,
    encoder: str | None = None,
    weights: Mapping[str, str | Path] | None = None,
    checkpoints: Mapping[str, str | Path] | None = None,
    checkpoint_folder: str | Path | None = "checkpoints",
    train: bool = True,
    options: Mapping[str, Any] | None = None,
    categories: Names = (),
    device: str = "auto",
    allow_leak: bool = False,
    fail_fast: bool = False,
    save_maps: bool = False,
    executor: str = "",
    plugins: Sequence[str | Path] = (),
    **protocol: Any,
) -> Run:
    """Run methods on data sets and return the run; finished cells in `out` are kept, as `zsadbench run` does.

    methods, datasets, categories: names, or one text separated by commas; "all" is every method, NAME=FOLDER names a
    data set's folder. root: the folder with one folder a data set. encoder: a SPEC for every method. weights: SPEC ->
    file. checkpoints: method -> trained weights. options: "METHOD.OPTION" -> value. device: "auto", "cpu", "cuda",
    "cuda:N". protocol: fields of `zsadbench.protocol.Protocol`, such as limit=4, seed=1 or eval_size="native".

    Cells that fail are in the result's `failed`. Raises UsageError, DataError or RecordError before anything runs.

    Example:
        >>> import zsadbench as z
        >>> run = z.evaluate("constant", "demo", out="runs/example", limit=2)
        >>> [record.status for record in run.records]
        ['done', 'done', 'done', 'done']
    """
    from zsadbench.running import executors, trainings
    from zsadbench.running.plan import make_plan
    from zsadbench.running.progress import Silent
    from zsadbench.running.request import make_request
    from zsadbench.training.loop import NoProgress

    request = make_request(
        methods=methods, datasets=datasets, out=out, data_root=root, encoder=encoder, weights=weights,
        checkpoints=checkpoints, checkpoint_folder=checkpoint_folder, train=train, options=options,
        categories=categories, device=device, allow_leak=allow_leak, fail_fast=fail_fast, save_maps=save_maps,
        plugin_folders=plugins, protocol=protocol,
    )  # fmt: skip
    backend = executors.parse(executor)
    plan = trainings.train_missing(make_plan(request), request, NoProgress())
    executors.run(plan, request, Silent(), backend)
    return Run((request.out,))
