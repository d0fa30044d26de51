"""What a user gives is used by the run, or it is an error: no name, file or category is dropped in silence."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from zsadbench import encoders
from zsadbench.datasets import Dataset
from zsadbench.errors import DataError, UnknownName, UsageError
from zsadbench.methods import Method
from zsadbench.running import checkpoint_choice
from zsadbench.running.request import Request
from zsadbench.support import preset_names, variants

Chosen = Collection[tuple[str, type[Method], Any]]  # methods that take part: full name, class, final options


def check(request: Request, chosen: Chosen, sets: Collection[Dataset], left_out: Iterable[str] = ()) -> None:
    """Raise UsageError or UnknownName where something is given that no chosen method and no dataset has a use for.

    An encoder that was asked for is checked too, so that nothing is written before a wrong one is told. Reads no
    weights. left_out: methods that cannot be imported; what is given for them is no mistake.
    """
    names = {alias for full, method, _ in chosen for alias in preset_names.aliases(method.presets, full)}
    broken = {name.partition(".")[0] for name in left_out}
    _check_targets("--set", request.changes, names, broken)
    _check_targets("--sweep", request.sweep, names, broken)
    _check_targets("--checkpoint", request.checkpoints, names, broken)
    _check_folders(chosen)
    _check_files(sets)
    _check_checkpoints(request, chosen)
    _check_encoders(request, chosen)
    check_categories(request, sets)


def _check_folders(chosen: Chosen) -> None:
    """Raise UsageError for variants that no folder can be called, or that share one in some file systems."""
    found: dict[str, str] = {}
    for full, _, _ in chosen:
        folder = variants.to_folder(full)
        if len(folder) > variants.LONGEST:
            raise UsageError(
                f"{full} is too long for the name of a folder: {len(folder)} characters, at most {variants.LONGEST}. "
                "Set options that all variants share with --set."
            )
        other = found.setdefault(folder.casefold(), full)
        if other != full:
            raise UsageError(f"{other} and {full} differ in case alone; their folders are one in many file systems.")


def _check_files(sets: Iterable[Dataset]) -> None:
    """Raise DataError for the name of a dataset or category that no file can be called."""
    for dataset in sets:
        for name in (dataset.name, *(category.name for category in dataset.categories())):
            size = len(name.encode())
            if size > variants.LONGEST:
                raise DataError(
                    f"{dataset.name[:80]}: the name {name[:40]}... has {size} bytes; expected at most "
                    f"{variants.LONGEST}, because results are filed under it. Give it a shorter one."
                )


def _check_targets(option: str, targets: Iterable[str], names: Collection[str], broken: Collection[str]) -> None:
    for target in targets:
        if target not in names and target.partition(".")[0] not in broken:
            raise UsageError(
                f"{option} {target}: no such method in this run; expected one of {', '.join(sorted(names))}."
            )


def _check_checkpoints(request: Request, chosen: Chosen) -> None:
    trained = [(full, method) for full, method, config in chosen if checkpoint_choice.is_trained(method, config)]
    used = {request.checkpoint_name(method, full) for full, method in trained}
    for name in request.checkpoints:
        for path in request.checkpoint(name):
            if not path.exists():
                raise UsageError(f"--checkpoint {name}={path}: there is no such file or folder. Check the path.")
        if name not in used:
            told = ", ".join(sorted(full for full, _ in trained)) or "none"
            raise UsageError(
                f"--checkpoint {name}: no method of this run takes these weights. Those with trained weights: {told}; "
                "of several names that fit one of them, the longest counts."
            )


def _check_encoders(request: Request, chosen: Chosen) -> None:
    from zsadbench.encoders import checks  # here, because it imports torch

    needed = {spec for _, _, config in chosen for spec in encoders.specs(config)}
    if (
        request.encoder is not None and ":" in request.encoder and request.encoder not in needed
    ):  # others may come unasked
        told = ", ".join(sorted(needed)) or "none"
        raise UsageError(f"--encoder {request.encoder}: no method of this run uses it; encoders in use: {told}.")
    checks.check_weights(request.weights, needed)
    asked = [
        one
        for one in chosen
        if request.encoder is not None or request.changes_of(one[1], one[0]) or variants.suffix_of(one[0])
    ]
    checks.check_methods(asked, request.weights)


def check_categories(request: Request, sets: Collection[Dataset]) -> None:
    """Raise UnknownName for a category that no dataset of the request has."""
    known = {category.name for dataset in sets for category in dataset.categories()} if request.categories else set()
    for name in request.categories:
        if name not in known:
            raise UnknownName(f"category of {', '.join(dict.fromkeys(dataset.name for dataset in sets))}", name, known)
