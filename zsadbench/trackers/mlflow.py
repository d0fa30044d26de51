"""MLflow: a run a method, where MLFLOW_TRACKING_URI says, in the experiment MLFLOW_EXPERIMENT_NAME or "zsadbench"."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from zsadbench.records.results import Record
from zsadbench.running.progress import Recorded
from zsadbench.tables.quality import Number
from zsadbench.trackers import RunFacts, Tracker, metrics_of, register

if TYPE_CHECKING:
    from zsadbench.training.checkpoints import Epoch

EXPERIMENT = "zsadbench"
LONGEST = 500  # characters of a parameter's value, in every version of MLflow


@register
class MLflow(Tracker):
    """Metrics in percent: DATASET/CATEGORY/image_auroc at the step of the seed, and DATASET/mean/... of whole sets."""

    def start(self, facts: RunFacts) -> None:
        """Find the experiment or make it."""
        self._client, self._facts = MlflowClient(), facts
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        found = self._client.get_experiment_by_name(name)
        self._experiment = found.experiment_id if found is not None else self._client.create_experiment(name)
        self._runs: dict[str, str] = {}  # name -> id
        self._described: set[str] = set()

    def cell(self, recorded: Recorded) -> None:
        """Send a cell's metrics and time, or why there are none; with a method's first numbers its options."""
        record = recorded.record
        run, place = self._run(record.method), f"{record.dataset}/{record.category}"
        if record.status != "done":
            self._client.set_tag(run, _key(f"{place}/{record.status}"), record.reason)
        elif record.method not in self._described:
            self._described.add(record.method)
            self._client.log_batch(run, params=[Param(_key(k), str(v)[:LONGEST]) for k, v in _params(record).items()])
        values = {**metrics_of(recorded), "seconds": recorded.seconds}
        self._send(run, {f"{place}/{name}": value for name, value in values.items()}, recorded.seed)

    def epoch(self, training: str, epoch: Epoch) -> None:
        """Send the mean loss of an epoch and of its terms."""
        stage, values = f"stage {epoch.stage + 1}", {"loss": epoch.loss, **epoch.terms}
        losses = {f"training/{stage}/{name}": value for name, value in values.items()}
        self._send(self._run(f"training of {training}"), losses, epoch.epoch)

    def end(self, numbers: Sequence[Number], complete: bool) -> None:
        """Send the means of data sets all of whose categories are there, and end the runs."""
        for one in numbers:
            if one.method in self._runs and one.value is not None and one.n_defined == one.n_total:
                mean = {f"{one.dataset}/mean/{one.level}_{one.metric}": one.value}
                self._send(self._runs[one.method], mean, self._facts.seeds[0])
        for run in self._runs.values():
            self._client.set_terminated(run, "FINISHED" if complete else "KILLED")

    def _run(self, name: str) -> str:
        if name not in self._runs:
            facts = self._facts
            tags = {"zsadbench.out": str(facts.out), "zsadbench.version": facts.version, "device": facts.device}
            self._runs[name] = self._client.create_run(self._experiment, run_name=name, tags=tags).info.run_id
        return self._runs[name]

    def _send(self, run: str, values: Mapping[str, float], step: int) -> None:
        now = int(1000 * time.time())
        self._client.log_batch(run, metrics=[Metric(_key(name), value, now, step) for name, value in values.items()])


def _params(record: Record) -> dict[str, Any]:
    """Return what a method's numbers stand for, by dotted names."""
    parts = {"options": record.options, "protocol": record.protocol, "encoder": record.encoder}
    return {"method": record.method} | {f"{part}.{k}": v for part, values in parts.items() for k, v in values.items()}


def _key(name: str) -> str:
    """Return a name with an underscore for what MLflow takes in no name."""
    return re.sub(r"[^\w\-. /]", "_", name)
