"""Which weights a trained method runs with: those given, those in a folder that suit, or those to be trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from zsadbench import datasets, methods
from zsadbench.errors import NeedsCheckpoint, UsageError, ZsadError
from zsadbench.methods import TrainableMethod
from zsadbench.support import files, plugins
from zsadbench.training import checkpoints, cross_dataset
from zsadbench.training.request import TrainRequest

if TYPE_CHECKING:
    from zsadbench.running.request import Request

FOLDER = Path("checkpoints")  # where commands that users are told write theirs


class Choice(NamedTuple):
    """The weights of a trained method, or why there are none."""

    path: Path | None = None  # the file
    trained_on: frozenset[str] | None = None  # from the card of our own; None: what the method says
    problem: ZsadError | None = None
    training: TrainRequest | None = None  # what would solve the problem, and can be done here


def preset(name: str, target: str, request: Request) -> str:
    """Return the method that a stem or family means on a target: its checkpoint's if one is given, else what suits.

    A name with a preset is kept. Raises UnknownName, PluginError, or WeightsError for a damaged checkpoint.
    """
    given = request.checkpoints.get(name)
    if given is None:
        return cross_dataset.suited(name, target)
    stem, _, family = name.partition(".")
    trained = checkpoints.load(given).method if given.is_dir() else name
    kept = family in methods.lookup(name)[0].presets or trained.partition(".")[0] != stem  # `choose` refuses another's
    return name if kept else trained


def choose(
    name: str,
    method: type[TrainableMethod],
    config: Any,
    weights: Sequence[str],
    given: Path | None,
    request: Request,
) -> Choice:
    """Choose the weights of a method under its full name and final options.

    weights: sha256 of the encoders'; given: the user's --checkpoint, a file or a folder of ours. Raises UsageError for
    a given folder of another kind, and WeightsError for a damaged one.
    """
    if not getattr(config, "trained_on", ""):  # an untrained preset of a method that has trained ones
        useless = f"{name} has no trained weights; got --checkpoint {given}. Give it to one of its trained presets."
        return Choice(problem=UsageError(useless) if given is not None else None)
    wanted = checkpoints.subject(name, method, asdict(config), weights)
    if given is not None:
        return _given(name, method, config, given, wanted) if given.is_dir() else Choice(given)
    folder = request.checkpoint_folder
    found = checkpoints.find(folder, method, wanted) if folder is not None else None
    if found is not None:
        return _ours(found)
    training = _training(name, method, config, files.fingerprint(wanted)[:8], request)
    possible = folder is not None and request.train and _is_there(training)
    where = f"no checkpoint in {folder} suits" if folder is not None else "got none"
    one = config.trained_on.partition(".")[0] in plugins.names("zsadbench.datasets")  # not two joined by a plus sign
    advice = f"Train them with `{training.command}`, or give" if one else "Give"
    problem = NeedsCheckpoint(
        f"{name} needs trained weights; {where}. {advice} an official checkpoint with --checkpoint {name}=PATH."
    )
    return Choice(problem=problem, training=training if possible else None)


def _given(name: str, method: type[TrainableMethod], config: Any, folder: Path, wanted: dict[str, Any]) -> Choice:
    card = checkpoints.load(folder)
    checkpoints.check(folder, card, method, wanted)
    if card.trained_on != [config.trained_on] and card.method != name:
        raise UsageError(
            f"Checkpoint {folder} was trained on {', '.join(card.trained_on)}, but {name} means trained on "
            f"{config.trained_on}. Give it to {card.method}."
        )
    return _ours(folder)


def _ours(folder: Path) -> Choice:
    return Choice(folder / checkpoints.WEIGHTS, frozenset(checkpoints.load(folder).trained_on))


def _training(name: str, method: type[TrainableMethod], config: Any, kind: str, request: Request) -> TrainRequest:
    """Return the training that makes the weights; `kind` tells folders of different options and encoders apart."""
    folders = (given for given in request.datasets if given.partition("=")[0] == config.trained_on)
    return TrainRequest(
        method=name,
        dataset=next(folders, config.trained_on),
        out=(request.checkpoint_folder or FOLDER) / f"{name}-{kind}",
        data_root=request.data_root,
        encoder=request.encoder,
        weights=request.weights,
        changes=request.changes_of(method, name),
        device=request.device,
        precision=request.protocol.precision,
    )


def _is_there(training: TrainRequest) -> bool:
    """Tell whether the images of a training can be found."""
    try:
        datasets.create(training.dataset, training.data_root)
    except ZsadError:
        return False
    return True
