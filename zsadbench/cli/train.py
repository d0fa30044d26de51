"""`zsadbench train`, and the trainings that `zsadbench run` does first. No logic lives here."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from zsadbench.cli.options import (
    DATA,
    METHODS,
    OUTPUT,
    Cache,
    CacheLimit,
    DataRoot,
    Device,
    Encoder,
    Limit,
    Plugins,
    Precision,
    Quiet,
    Set,
    Weights,
    add_plugins,
    changes_of,
    option,
    say,
    say_encoder,
    weights_of,
)
from zsadbench.errors import UsageError
from zsadbench.support import variants

if TYPE_CHECKING:
    from zsadbench.running.planned import Plan
    from zsadbench.running.request import Request
    from zsadbench.trackers import Trackers

CHECKPOINTS = Path("checkpoints")


def train(
    method: Annotated[str, option(METHODS, "NAME", "A trained one, such as april_gan or april_gan.visa.")],
    dataset: Annotated[str, option(DATA, "NAME", "Or NAME=FOLDER; its test split is trained on.")],
    out: Annotated[Path, option(OUTPUT, "DIR", "The checkpoint's; an unfinished training goes on.")],
    set_: Set = None,
    epochs: Annotated[int | None, option(METHODS, "N", "Of every stage; otherwise the recipe's.", min=1)] = None,
    seed: Annotated[int, option(METHODS, "N", "Draws initial weights, order, augmentation.")] = 0,
    data_root: DataRoot = None,
    limit: Limit = None,
    encoder: Encoder = None,
    weights: Weights = None,
    precision: Precision = "fp32",
    device: Device = "auto",
    cache: Cache = None,
    cache_limit: CacheLimit = None,
    plugins: Plugins = None,
    quiet: Quiet = False,
) -> None:
    """Train a method on the test split of an auxiliary dataset; a killed training goes on where it stopped."""
    add_plugins(plugins)
    from zsadbench.running.request import make_train_request

    request = make_train_request(
        method,
        dataset,
        out=out,
        data_root=data_root,
        encoder=encoder,
        weights=weights_of(weights or []),
        changes=_own_changes(method, set_ or []),
        device=device,
        precision=precision,
        seed=seed,
        epochs=epochs,
        limit=limit,
        cache=cache,
        cache_limit=cache_limit,
    )
    say_encoder(encoder, request.encoder)
    from zsadbench.api.progress import console_training
    from zsadbench.training import loop

    with console_training(quiet) as progress:
        loop.train(request, progress)
    use = shlex.join(["zsadbench", "run", "--methods", method, "--checkpoint", f"{method}={out}"])
    say(f"Checkpoint: {out}. Use it: {use}")


def train_missing(plan: Plan, request: Request, quiet: bool, trackers: Trackers | None = None) -> Plan:
    """Say which checkpoints a run lacks and can train, train them, and return the plan with them."""
    if not plan.trainings:
        return plan
    from zsadbench.api.progress import console_training
    from zsadbench.running import trainings

    for finding in plan.findings:
        if finding.kind == "checkpoint":
            say(f"Note: {finding.message}")
    names: dict[str, list[str]] = {}  # by the data set that they are trained on
    for one in plan.trainings:
        names.setdefault(one.request.dataset, []).extend(one.names)
    for dataset, waiting in names.items():
        told, each = ", ".join(waiting), "it" if len(waiting) == 1 else "each"
        say(f"{told}: no checkpoint in {request.checkpoint_folder} suits; will first train {each} on {dataset}")
    say("Trainings go on after an interruption; --no-train leaves them out.")
    with console_training(quiet) as progress:
        return trainings.train_missing(plan, request, trackers.training(progress) if trackers else progress)


def _own_changes(method: str, items: list[str]) -> dict[str, str]:
    """Return the changed options of the method; a --set for another one is a typing error."""
    stem = variants.stem_of(method)
    found = {}
    for target, value in changes_of(items).items():
        name, _, option = target.rpartition(".")
        if name not in (method, stem):
            raise UsageError(f"--set {target}: only {method} is trained; expected --set {stem}.FIELD=VALUE.")
        found[option] = value
    return found
