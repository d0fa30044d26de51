"""Checkpoints of our own trainings: a folder with `weights.safetensors` and a `card.json` that says what they are.

The card is written last: a folder with a card is a finished checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zsadbench.errors import UsageError, WeightsError
from zsadbench.methods import TrainableMethod
from zsadbench.support import documents, files, variants

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1  # of the card; raised when a field changes its meaning
WEIGHTS, CARD = "weights.safetensors", "card.json"
STATE = "training.pt"  # of an unfinished training
SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")  # of official weights


@dataclass(frozen=True)
class Epoch:
    """One epoch of a loss curve."""

    stage: int  # 0-based index into the recipe's stages
    epoch: int  # 0-based, within the stage
    loss: float  # mean over the images
    terms: dict[str, float]  # of the loss, means over the images
    seconds: float
    peak_bytes: int | None  # as `zsadbench.support.meters` measures it


@dataclass(frozen=True)
class Card:
    """Everything known about a training."""

    method: str  # CLI name with preset
    trained_on: list[str]  # dataset names
    options: dict[str, Any]  # of the method, the recipe included
    encoder: dict[str, Any]  # identity, with the sha256 of the weights
    data: dict[str, Any]  # dataset, split, counts, hashes of the samples, limit, marks of the dataset's images
    seed: int
    environment: dict[str, Any]  # versions and device
    epochs: list[dict[str, Any]]  # fields of Epoch
    weights_sha256: str
    seconds: float = 0.0  # of all epochs
    peak_bytes: int | None = None
    code: dict[str, str] = field(default_factory=dict)  # digests of what decided the weights (`support.source`)
    format: int = FORMAT

    @property
    def images(self) -> frozenset[str]:
        """Marks of the images of the dataset that it was trained on (`data.contents`); none on old cards."""
        return frozenset(self.data.get("images", "").split())


def save(folder: Path, tensors: Mapping[str, Tensor], card: dict[str, Any]) -> Card:
    """Write a checkpoint whole or not at all; `card` holds the fields of Card but the weights' hash.

    Raises RecordError when it cannot be written.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    files.write_atomically(folder / WEIGHTS, _encode(plain))
    complete = Card(**card, weights_sha256=files.sha256(folder / WEIGHTS))
    files.write_atomically(folder / CARD, json.dumps(asdict(complete), indent=1, allow_nan=False) + "\n")
    return complete


def _encode(tensors: dict[str, Tensor]) -> bytes:
    from safetensors.torch import save

    return save(tensors)


def load(folder: Path) -> Card:
    """Read the card of a finished checkpoint and check its weights. Raises WeightsError naming the file."""
    card = read_card(folder)
    try:
        found = files.sha256(folder / WEIGHTS)
    except UsageError as error:
        raise WeightsError(f"{folder} is no whole checkpoint: {error} Delete the folder and train it again.") from error
    if found != card.weights_sha256:
        raise WeightsError(
            f"{folder / WEIGHTS} has SHA-256 {found}, but its card says {card.weights_sha256}. Delete the folder and "
            "train it again."
        )
    return card


def read_card(folder: Path) -> Card:
    """Read the card of a finished checkpoint alone. Raises WeightsError naming the file."""
    path = folder / CARD
    if not path.exists():
        raise WeightsError(
            f"{folder} is no checkpoint: it has no {CARD}. Expected a folder that `zsadbench train` has finished."
        )
    try:
        data = documents.read(path)
        if isinstance(data, dict) and data.get("format") != FORMAT:
            raise documents.Malformed(f"its format is {str(data.get('format'))[:40]}; expected {FORMAT}")
        card = documents.build(Card, data)
        for epoch in card.epochs:
            documents.build(Epoch, epoch, "epochs")
        if card.data.get("limit") is not None and not isinstance(card.data["limit"], int):
            raise documents.Malformed("data.limit is no number")
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}. Check who may read it.") from error
    except documents.Malformed as error:
        raise WeightsError(
            f"{path} is no card of a checkpoint: {error}. Delete the folder and train it again."
        ) from error
    return card


def folder_of_ours(given: Sequence[Path]) -> Path | None:
    """Return the folder that a user gave, or whose weights, if it is that of one of our trainings; else None."""
    folder = given[0].parent if given[0].name == WEIGHTS and (given[0].parent / CARD).exists() else given[0]
    ours = len(given) == 1 and any((folder / name).exists() for name in (CARD, WEIGHTS, STATE))
    return folder if ours else None


def weight_files(given: Sequence[Path]) -> tuple[Path, ...]:
    """Return the files of official weights: those given, and all that lie in given folders. Raises WeightsError."""
    found: list[Path] = []
    for path in given:
        inside = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES) if path.is_dir() else [path]
        if not inside:
            raise WeightsError(
                f"{path} is no checkpoint: it has no {CARD}, as folders that `zsadbench train` has finished, and no "
                f"file that ends in {', '.join(SUFFIXES)}."
            )
        found += inside
    return tuple(found)


def subject(
    name: str, method: type[TrainableMethod], options: Mapping[str, Any], weights: Sequence[str]
) -> dict[str, Any]:
    """Return what trained weights depend on beside the data, as JSON values: checkpoints of equal ones are of a kind.

    name: CLI name of the method; options: the fields of its options; weights: sha256 of the encoders'.
    """
    ours = {field: value for field, value in options.items() if field not in method.free_options}
    return {"method": variants.stem_of(name), **files.as_json(ours), "encoder weights": list(weights)}


def of_card(card: Card, method: type[TrainableMethod]) -> dict[str, Any]:
    """Return the subject that a card speaks of."""
    weights = [card.encoder.get(name, "") for name in ("sha256", "text_sha256")]
    return subject(card.method, method, card.options, weights)


def shipped() -> Path:
    """Return where the demo's checkpoints lie: in a wheel inside the package, in a checkout `results/checkpoints/`."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "shipped_checkpoints"
    return inside if inside.is_dir() else package.parent / "results" / "checkpoints"


class Shelf:
    """The finished checkpoints below a folder, and those that ship. Cards are read once; a useless one is a note."""

    def __init__(self, root: Path | None) -> None:
        """Look below `root` when first asked; None: there is no such folder."""
        self.root = root
        self.notes: list[str] = []

    @cached_property
    def _cards(self) -> dict[Path, Card]:
        found = {}
        roots = [root for root in (self.root, shipped()) if root is not None]
        for path in (path for root in roots for path in sorted(root.glob(f"*/{CARD}"))):
            try:
                found[path.parent] = read_card(path.parent)
            except WeightsError as error:
                self.notes.append(f"a checkpoint is left out: {error}")
        return found

    def fitting(
        self, method: type[TrainableMethod], wanted: Mapping[str, Any], seed: int
    ) -> Iterator[tuple[Path, Card]]:
        """Yield folder and card of what was trained as wanted, on all of its data: of this seed, then of the least.

        What ships is for its own seed alone, because another one can be trained.
        """
        found = [
            (card.seed != seed, is_shipped(folder), card.seed, folder)
            for folder, card in self._cards.items()
            if card.data.get("limit") is None
            and of_card(card, method) == wanted
            and (card.seed == seed or not is_shipped(folder))
        ]
        for *_, folder in sorted(found):
            try:
                yield folder, load(folder)
            except WeightsError as error:
                self.notes.append(f"a checkpoint is left out: {error}")


def is_shipped(folder: Path) -> bool:
    """Tell whether a checkpoint came with zsadbench; it stands for itself, whatever code would train now."""
    return folder.parent == shipped()


def check(folder: Path, card: Card, method: type[TrainableMethod], wanted: Mapping[str, Any]) -> None:
    """Raise UsageError unless a checkpoint belongs to this method, encoder and options; data and recipe may differ."""
    found = of_card(card, method)
    for name in dict.fromkeys([*wanted, *found]):
        if name not in ("recipe", "trained_on") and found.get(name) != wanted.get(name):
            raise UsageError(
                f"Checkpoint {folder} is of another kind: {name} is {found.get(name)!r} on its card, but "
                f"{wanted.get(name)!r} here. Give the checkpoint that belongs to this method and encoder."
            )
