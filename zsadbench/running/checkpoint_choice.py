"""Which weights a trained method runs with: those given, those in a folder that suit, or those to be trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from zsadbench import datasets, encoders, methods
from zsadbench.errors import NeedsCheckpoint, UsageError, ZsadError
from zsadbench.methods import Method, TrainableMethod
from zsadbench.support import files, plugins, variants
from zsadbench.support.texts import grouped
from zsadbench.training import checkpoints, cross_dataset
from zsadbench.training.request import TrainRequest

if TYPE_CHECKING:
    from zsadbench.running.request import Request

FOLDER = Path("checkpoints")  # where commands that users are told write theirs


class Choice(NamedTuple):
    """The weights of a trained method, or why there are none."""

    paths: tuple[Path, ...] = ()  # the files
    trained_on: frozenset[str] | None = None  # from the card of our own; None: what the method says
    images: frozenset[str] = frozenset()  # marks of those that training has seen, from the same card
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
    base, own = variants.split(name)
    if own:
        return variants.join(preset(base, target, request), own)
    given, suited = request.checkpoint(name), cross_dataset.suited(name, target)
    if not given:
        return suited
    stem, _, family = name.partition(".")
    folder = checkpoints.folder_of_ours(given)
    trained = checkpoints.read_card(folder).method if folder is not None else name
    kept = family in methods.lookup(name)[0].presets or variants.stem_of(trained) != stem  # `choose` refuses another's
    if kept:
        return name
    alike = {getattr(methods.lookup(one)[2], "trained_on", "") for one in (suited, trained)}
    return suited if len(alike) == 1 and folder is not None else trained


class Chooser:
    """Chooses the weights of the trained methods of a plan; cards and training images are read once."""

    def __init__(self, request: Request) -> None:
        """Look below the request's checkpoint folder when first asked."""
        self._request, self._shelf = request, checkpoints.Shelf(request.checkpoint_folder)
        self._data: dict[tuple[Any, ...], dict[str, Any] | None] = {}
        self._notes: list[tuple[str, str]] = []  # of a method each: its name, a sentence

    @property
    def notes(self) -> list[str]:
        """What the user should know of the choices so far; what holds for several methods is said once."""
        said = grouped(self._notes)
        return [*self._shelf.notes, *(f"{', '.join(names)}: {text}" if names[1:] else text for names, text in said)]

    def choose(self, name: str, method: type[TrainableMethod], config: Any, weights: Sequence[str]) -> Choice:
        """Choose the weights of a method under its full name and final options.

        weights: sha256 of the encoders'. Raises UsageError for a given folder of another kind, and WeightsError for a
        damaged one.
        """
        if not is_trained(method, config):
            return Choice()
        wanted = checkpoints.subject(name, method, asdict(config), weights)
        given = self._request.checkpoint(self._request.checkpoint_name(method, name))
        if given:
            folder = checkpoints.folder_of_ours(given)
            if folder is None:
                unknown = "its trained weights are a file of unknown origin"
                return Choice(checkpoints.weight_files(given), differs=unknown)
            return _given(name, method, config, folder, wanted)
        return self._own(name, method, config, wanted)

    def _own(self, name: str, method: type[TrainableMethod], config: Any, wanted: Mapping[str, Any]) -> Choice:
        """Choose the checkpoint that a training would give now, or that training.

        One that other code made, or other images, is used only where it cannot be made anew here, and a note says so.
        """
        training, root = _training(name, method, config, self._request), self._shelf.root
        outdated: list[tuple[Path, checkpoints.Card, str]] = []
        for folder, card in self._shelf.fitting(method, wanted, self._request.protocol.seed):
            reason = "" if checkpoints.is_shipped(folder) else self._outdated(card, method, training, config)
            if self._request.is_one_of_several and card.seed != training.seed:
                reason = f"their training seed is {card.seed}"
            if not reason:
                return self._found(folder, card)
            outdated.append((folder, card, reason))
        data = self._data_of(training, config) if root is not None and self._request.train else None
        for folder, card, reason in outdated[:1] if data is None else ():
            self._notes.append((name, f"{name} runs with the weights in {folder}, although {reason}."))
            return self._found(folder, card)
        unused = [f"The weights in {folder} are not used, because {reason}." for folder, _, reason in outdated]
        self._notes += [(name, text) for text in unused]
        from zsadbench.training.job import code_of  # here, because it imports torch

        base = variants.base_of(name)
        kind, seed = files.fingerprint({**wanted, "code": code_of(method), "data": data})[:8], training.seed
        training = replace(training, out=training.out / (f"{base}-{kind}-seed{seed}" if seed else f"{base}-{kind}"))
        where = f"no checkpoint in {root} suits" if root is not None else "got none"
        one = config.trained_on.partition(".")[0] in plugins.names(
            "zsadbench.datasets"
        )  # not two joined by a plus sign
        advice = f"Train them with `{training.command}`, or give" if one else "Give"
        problem = NeedsCheckpoint(
            f"{name} needs trained weights; {where}. {advice} an official checkpoint with --checkpoint {base}=PATH."
        )
        return Choice(problem=problem, training=training if data is not None else None)

    def _found(self, folder: Path, card: checkpoints.Card) -> Choice:
        seed = self._request.protocol.seed
        if card.seed != seed:
            self._notes.append(
                (
                    card.method,
                    f"{card.method} runs with weights of the training seed {card.seed}, found in {folder}; to train "
                    f"with --seed {seed}, give a folder of its own with --checkpoints.",
                )
            )
        return _ours(folder, card)

    def _outdated(
        self, card: checkpoints.Card, method: type[TrainableMethod], training: TrainRequest, config: Any
    ) -> str:
        """Say why a training would give other weights now; "" if it would not, as far as can be told here."""
        if not card.code:
            return "an earlier version of zsadbench trained them"
        from zsadbench.training.job import code_of  # here, because it imports torch

        for part, digest in code_of(method).items():
            if card.code.get(part) != digest:
                owner = variants.stem_of(card.method) if part == "method" else "zsadbench"
                return f"the code of {owner} has changed since they were trained"
        data = self._data_of(training, config) or {}
        if any(card.data.get(name) != data[name] for name in ("sha256", "content_sha256") if name in data):
            return f"the images or masks of {card.trained_on[0]} have changed since they were trained"
        return ""

    def _data_of(self, training: TrainRequest, config: Any) -> dict[str, Any] | None:
        """Return what a card would say of the images of a training: {} if they do not do, None if they are not here."""
        from zsadbench.training.job import data_of, training_samples  # here, because it imports torch

        groups = config.recipe.groups and [config.recipe.group_size_of(i) for i in range(len(config.recipe.stages))]
        key = training.dataset, str(groups)
        if key not in self._data:
            try:
                dataset = datasets.create(training.dataset, training.data_root)
            except ZsadError:
                self._data[key] = None
                return None
            try:
                self._data[key] = data_of(training, dataset, training_samples(training, dataset, config.recipe))
            except ZsadError:
                self._data[key] = {}  # the training will say why
        return self._data[key]


def _given(name: str, method: type[TrainableMethod], config: Any, folder: Path, wanted: dict[str, Any]) -> Choice:
    card = checkpoints.load(folder)
    checkpoints.check(folder, card, method, wanted)
    if card.trained_on != [config.trained_on] and card.method != variants.base_of(name):
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
    return Choice((folder / checkpoints.WEIGHTS,), frozenset(card.trained_on), card.images)


def _training(name: str, method: type[TrainableMethod], config: Any, request: Request) -> TrainRequest:
    """Return the training that makes the weights, somewhere below the checkpoint folder.

    Of a variant's options those count that training reads: variants that differ in others share their weights.
    """
    base, own = variants.split(name)
    folders = (given for given in request.datasets if datasets.name_of(given) == config.trained_on)
    return TrainRequest(
        method=base,
        dataset=next(folders, config.trained_on),
        out=request.checkpoint_folder or FOLDER,
        data_root=request.data_root,
        encoder=request.encoder,
        weights={spec: request.weights[spec] for spec in encoders.specs(config) if spec in request.weights},
        changes=request.changes_of(method, name) | {o: v for o, v in own.items() if o not in method.free_options},
        device=request.device,
        precision=request.protocol.precision,
        seed=request.protocol.seed,
        cache=request.cache,
        cache_limit=request.cache_limit,
    )
