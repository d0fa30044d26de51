"""Which weights a trained method runs with: those given, those in a folder that suit, or those to be trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from zsadbench import datasets, encoders, methods
from zsadbench.errors import NeedsCheckpoint, UsageError, ZsadError
from zsadbench.methods import Method, TrainableMethod
from zsadbench.support import files, plugins
from zsadbench.training import checkpoints, cross_dataset
from zsadbench.training.request import TrainRequest

if TYPE_CHECKING:
    from zsadbench.running.request import Request

FOLDER = Path("checkpoints")  # where commands that users are told write theirs


class Choice(NamedTuple):
    """The weights of a trained method, or why there are none."""

    paths: tuple[Path, ...] = ()  # the files
    trained_on: frozenset[str] | None = None  # from the card of our own; None: what the method says
    problem: ZsadError | None = None
    training: TrainRequest | None = None  # what would solve the problem, and can be done here
    differs: str = ""  # in what the weights are not what a training with these options gives, in words


def is_trained(method: type[Method], config: Any) -> bool:
    """Tell whether a method with these options takes trained weights: some have presets that do not."""
    return issubclass(method, TrainableMethod) and bool(getattr(config, "trained_on", ""))


def preset(name: str, target: str, request: Request) -> str:
    """Return the method that a stem or family means on a target: its checkpoint's if one is given, else what suits.

    Of presets that share the checkpoint it is the one that suits. A name with a preset is kept. Raises UnknownName,
    PluginError, or WeightsError for a damaged checkpoint.
    """
    given, suited = request.checkpoint(name), cross_dataset.suited(name, target)
    if not given:
        return suited
    stem, _, family = name.partition(".")
    folder = checkpoints.folder_of_ours(given)
    trained = checkpoints.read_card(folder).method if folder is not None else name
    kept = family in methods.lookup(name)[0].presets or trained.partition(".")[0] != stem  # `choose` refuses another's
    if kept:
        return name
    alike = {getattr(methods.lookup(one)[2], "trained_on", "") for one in (suited, trained)}
    return suited if len(alike) == 1 and folder is not None else trained


def choose(
    name: str,
    method: type[TrainableMethod],
    config: Any,
    weights: Sequence[str],
    request: Request,
    shelf: checkpoints.Shelf,
) -> Choice:
    """Choose the weights of a method under its full name and final options.

    weights: sha256 of the encoders'; shelf: our own checkpoints, where one is looked for. Raises UsageError for a given
    folder of another kind, and WeightsError for a damaged one.
    """
    if not is_trained(method, config):
        return Choice()
    wanted = checkpoints.subject(name, method, asdict(config), weights)
    given = request.checkpoint(request.checkpoint_name(method, name))
    if given:
        folder = checkpoints.folder_of_ours(given)
        if folder is None:
            return Choice(checkpoints.weight_files(given), differs="its trained weights are a file of unknown origin")
        return _given(name, method, config, folder, wanted)
    found = shelf.find(method, wanted, request.protocol.seed)
    if found is not None:
        return _ours(*found)
    training = _training(name, method, config, files.fingerprint(wanted)[:8], request)
    possible = shelf.root is not None and request.train and _is_there(training)
    where = f"no checkpoint in {shelf.root} suits" if shelf.root is not None else "got none"
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
    limit, recipe = card.data.get("limit"), checkpoints.of_card(card, method).get("recipe")
    differs = [
        *(["its checkpoint has another recipe"] if recipe != wanted.get("recipe") else []),
        *([f"its checkpoint saw at most {limit} images a category"] if limit is not None else []),
    ]
    return _ours(folder, card)._replace(differs=" and ".join(differs))


def _ours(folder: Path, card: checkpoints.Card) -> Choice:
    return Choice((folder / checkpoints.WEIGHTS,), frozenset(card.trained_on))


def _training(name: str, method: type[TrainableMethod], config: Any, kind: str, request: Request) -> TrainRequest:
    """Return the training that makes the weights; `kind` tells folders of different options and encoders apart."""
    folders = (given for given in request.datasets if datasets.name_of(given) == config.trained_on)
    seed = request.protocol.seed
    return TrainRequest(
        method=name,
        dataset=next(folders, config.trained_on),
        out=(request.checkpoint_folder or FOLDER) / (f"{name}-{kind}-seed{seed}" if seed else f"{name}-{kind}"),
        data_root=request.data_root,
        encoder=request.encoder,
        weights={spec: request.weights[spec] for spec in encoders.specs(config) if spec in request.weights},
        changes=request.changes_of(method, name),
        device=request.device,
        precision=request.protocol.precision,
        seed=seed,
    )


def _is_there(training: TrainRequest) -> bool:
    """Tell whether the images of a training can be found."""
    try:
        datasets.create(training.dataset, training.data_root)
    except ZsadError:
        return False
    return True
