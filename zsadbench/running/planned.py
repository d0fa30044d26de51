"""What a plan holds: cells in groups that share an encoder, the methods of them with final options, and trainings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from zsadbench.data.findings import Finding
from zsadbench.datasets import Category, Dataset, Sample
from zsadbench.errors import ZsadError
from zsadbench.methods import Method
from zsadbench.records import results
from zsadbench.running.resume import Parts
from zsadbench.support import files
from zsadbench.training.request import TrainRequest


class EncoderChoice(NamedTuple):
    """The options that make an encoder, as `encoders.load_for` reads them; None where a method has no such option."""

    encoder: str | None
    size: int | None
    activation: str | None
    pos_embed: str | None
    text_encoder: str | None


@dataclass(frozen=True)
class PlannedMethod:
    """A method with its final options and the hashes of everything its numbers depend on."""

    name: str
    method: type[Method]
    config: Any
    checkpoint: tuple[Path, ...]  # files of trained weights
    weights_sha256: str
    checkpoint_sha256: str
    problem: ZsadError | None = None  # why it cannot run: weights that are missing, a checkpoint that is needed
    text_sha256: str = ""  # of the weights of a second encoder, whose text choice is used
    trained_on: frozenset[str] | None = None  # from the card of our own checkpoint; None: what the method says
    training: TrainRequest | None = None  # what would solve the problem, and can be done here
    checkpoint_differs: str = ""  # in what the checkpoint is not what a training with these options gives, in words

    @property
    def encoder_choice(self) -> EncoderChoice:
        """What methods must agree on to share an encoder and its passes."""
        return EncoderChoice(**{name: getattr(self.config, name, None) for name in EncoderChoice._fields})


@dataclass(frozen=True)
class Cell:
    """One (method, dataset, category) of a request."""

    planned: PlannedMethod
    dataset: Dataset
    category: Category
    samples: tuple[Sample, ...]
    parts: Parts  # everything that decides its numbers
    references: tuple[Sample, ...] = ()  # normal images that a few-shot method is given
    problem: ZsadError | None = None  # why it cannot run: references that the dataset lacks
    why: str = "new"  # what the run has to do with it, in words
    digests: Mapping[Path, str] = field(default_factory=dict)  # SHA-256 of image files, "" if unreadable
    seen: int | None = None  # its images that the checkpoint was trained on; None: the checkpoint does not say

    @property
    def fingerprint(self) -> str:
        """One digest of all parts: cells with equal ones have equal numbers."""
        return files.fingerprint(self.parts)

    def path(self, run: Path) -> Path:
        """Return where its record lies in a run folder."""
        return results.record_path(run, self.dataset.name, self.planned.name, self.category.name)


class Resolved(NamedTuple):
    """The datasets that a request names, and the methods that suit each."""

    sets: list[Dataset]
    suited: dict[str, dict[str, tuple[type[Method], Any]]]  # dataset name -> full name -> class and options
    left_out: Mapping[str, ZsadError] = {}  # methods that cannot be imported

    @property
    def chosen(self) -> list[tuple[str, type[Method], Any]]:
        """Return full name, class and options of every method that takes part."""
        found = {full: (full, *chosen) for methods_ in self.suited.values() for full, chosen in methods_.items()}
        return list(found.values())


@dataclass(frozen=True)
class Plan:
    """The cells to run, in groups that share an encoder and images, and the cells that are already done."""

    groups: tuple[tuple[Cell, ...], ...]  # one encoder each; inside, cells of one category are neighbours
    done: tuple[Path, ...]  # records that agree with the request and are left alone
    resolved: Resolved  # what was planned
    methods: Mapping[str, PlannedMethod]  # by full name
    findings: tuple[Finding, ...] = ()  # what the user should know before the run starts

    @property
    def datasets(self) -> list[Dataset]:
        """What the cells and records are of."""
        return self.resolved.sets

    @property
    def cells(self) -> int:
        """How many cells will run."""
        return sum(len(group) for group in self.groups)

    @property
    def images(self) -> int:
        """How many predictions of an image they are."""
        return sum(len(cell.samples) for group in self.groups for cell in group)

    @property
    def trainings(self) -> list[Training]:
        """What must be trained before the cells can run, each training once."""
        found: dict[Path, Training] = {}
        for planned in (cell.planned for group in self.groups for cell in group):
            if planned.training is not None:
                found.setdefault(planned.training.out, Training(planned.training, {})).names[planned.name] = None
        return list(found.values())


class Training(NamedTuple):
    """A training that cells wait for."""

    request: TrainRequest
    names: dict[str, None]  # full names of the methods that take its weights: variants may share them
