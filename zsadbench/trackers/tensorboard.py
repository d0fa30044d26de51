"""TensorBoard: event files in `RUN/tensorboard`, a folder a method, so that methods lie over each other."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from torch.utils.tensorboard import SummaryWriter

from zsadbench.running.progress import Recorded
from zsadbench.support import files, variants
from zsadbench.tables.quality import Number
from zsadbench.trackers import RunFacts, Tracker, metrics_of, register

if TYPE_CHECKING:
    from zsadbench.training.checkpoints import Epoch


@register
class TensorBoard(Tracker):
    """Scalars in percent: DATASET/CATEGORY/image_auroc at the step of the seed, and DATASET/mean/... of whole sets."""

    def start(self, facts: RunFacts) -> None:
        """Write the run's facts as a text."""
        self._folder = facts.out / "tensorboard"
        self._writers: dict[str, SummaryWriter] = {}
        self._first_seed = facts.seeds[0]
        text = json.dumps(files.as_json(asdict(facts)), indent=4)
        self._writer("run").add_text("facts", "\n".join(f"    {line}" for line in text.splitlines()))

    def cell(self, recorded: Recorded) -> None:
        """Write a cell's metrics and time, or why there are none."""
        record, seed = recorded.record, recorded.seed
        writer, place = self._writer(record.method), f"{record.dataset}/{record.category}"
        for name, value in metrics_of(recorded).items():
            writer.add_scalar(f"{place}/{name}", value, seed)
        writer.add_scalar(f"{place}/seconds", recorded.seconds, seed)
        if record.status != "done":
            writer.add_text(f"{place}/{record.status}", record.reason, seed)
        writer.flush()

    def epoch(self, training: str, epoch: Epoch) -> None:
        """Write the mean loss of an epoch and of its terms, a tag a stage."""
        writer = self._writer(f"training of {training}")
        for name, value in {"loss": epoch.loss, **epoch.terms}.items():
            writer.add_scalar(f"training/stage {epoch.stage + 1}/{name}", value, epoch.epoch)
        writer.flush()

    def end(self, numbers: Sequence[Number], complete: bool) -> None:
        """Write the means of data sets all of whose categories are there, and close the files."""
        for one in numbers:
            if one.value is not None and one.n_defined == one.n_total:
                tag = f"{one.dataset}/mean/{one.level}_{one.metric}"
                self._writer(one.method).add_scalar(tag, one.value, self._first_seed)
        for writer in self._writers.values():
            writer.close()

    def _writer(self, name: str) -> SummaryWriter:
        if name not in self._writers:
            self._writers[name] = SummaryWriter(str(self._folder / variants.to_folder(name)))
        return self._writers[name]
