"""What docs/robustness.md promises, tried many times: `make chaos` prints attempts, survived, lost, wrong."""

from __future__ import annotations

import json
import random
import shutil
import time
import warnings
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import faults
import hostile
import misbehaving
import pytest
from faults import REFUSED, TALLIES, Tally
from toy_trained import write_method

from zsadbench.errors import RecordError, WeightsError
from zsadbench.protocol import EvaluationProtocol
from zsadbench.records import results
from zsadbench.running import runner
from zsadbench.running.plan import make_plan
from zsadbench.running.progress import Silent
from zsadbench.running.request import Request
from zsadbench.support import plugins
from zsadbench.tables import quality
from zsadbench.training import checkpoints
from zsadbench.training import loop as training
from zsadbench.training.request import TrainRequest

KILLS, TRAINING_KILLS, FULL_DISKS, PAIRS = 50, 10, 20, 10
METHODS = ("good_mean", "good_slow", "good_pair", "constant")


@pytest.fixture(scope="module", autouse=True)
def known(toy_plugins, tmp_path_factory) -> None:
    """Make the plugins of all tests known in this process."""
    trained, catalogue = map(tmp_path_factory.mktemp, ("trained", "catalogue"))
    for own in (toy_plugins, write_method(trained), misbehaving.write(catalogue)):
        plugins.add_folder(own)


@pytest.fixture
def tally(request) -> Tally:
    """Return the tally of a test, which is named by its docstring and fails it if anything was lost or wrong."""
    return TALLIES.setdefault(request.function.__doc__.splitlines()[0].rstrip("."), Tally())


def run(root: Path, out: Path, names: Any = METHODS, **options: Any) -> runner.Summary:
    protocol = options.pop("protocol", EvaluationProtocol(batch_size=2))
    wanted = Request(methods=names, datasets=["mvtec"], data_root=root, out=out, protocol=protocol, **options)
    return runner.run(make_plan(wanted), wanted, Silent())


def kept(out: Path) -> dict[str, bytes]:
    """Return the files of the cells of a run, byte by byte."""
    paths = [path for path in sorted(out.glob("*/*/*")) if path.suffix in (".json", ".csv", ".npz")]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in paths if not path.name.startswith(".")}


def of_the_calm(out: Path) -> dict[str, bytes]:
    """Return what the two methods that behave have recorded."""
    return {name: content for name, content in kept(out).items() if name.split("/")[1] in misbehaving.GOOD}


def finished(out: Path) -> dict[Path, int]:
    """Return the records of a run, and when they were written. Raises RecordError for one that is torn."""
    if not out.is_dir():
        return {}
    found = [results.path_of(out, one) for one in results.load_run(out)]
    return {path: path.stat().st_mtime_ns for path in found}


@pytest.fixture(scope="module")
def reference(mvtec_tree, tmp_path_factory) -> tuple[dict[str, bytes], float]:
    """What a run that nothing happens to writes, and the seconds that it takes."""
    folder = tmp_path_factory.mktemp("reference")
    faults.end(faults.start(lambda: run(mvtec_tree, folder / "first"), folder / "log"))  # imports, caches
    began = time.monotonic()
    assert faults.end(faults.start(lambda: run(mvtec_tree, folder / "out"), folder / "log")) == 0
    return kept(folder / "out"), time.monotonic() - began


def goes_on(root: Path, out: Path, whole: dict[str, bytes], tally: Tally) -> None:
    """Run again what a fault ended, and count what came of it."""
    try:
        before = finished(out)
    except RecordError:
        tally.add(out.name, lost=True, wrong=False)
        return
    cells = {name: content for name, content in kept(out).items() if name.endswith(".json")}
    wrong = any(content != whole[name] for name, content in cells.items())
    ended = faults.end(faults.start(lambda: run(root, out), out.parent / "log"))
    again = any(path.stat().st_mtime_ns != at for path, at in before.items())
    left = [path.name for path in out.rglob("*.part")]
    tally.add(out.name, lost=ended != 0 or again or bool(left), wrong=wrong or kept(out) != whole)


def judge(tally: Tally, attempts: int) -> None:
    assert not tally.harmed
    assert (tally.attempts, tally.survived, tally.lost, tally.wrong) == (attempts, attempts, 0, 0)


def test_kills(mvtec_tree, tmp_path, reference, tally):
    """run, killed at any moment and started again."""
    whole, seconds = reference
    draw = random.Random(0)
    for attempt in range(10 * KILLS):
        out = tmp_path / str(attempt)
        child = faults.start(lambda out=out: run(mvtec_tree, out), tmp_path / "log")
        if faults.kill_after(child, draw.uniform(0, seconds)):
            goes_on(mvtec_tree, out, whole, tally)
        shutil.rmtree(out, ignore_errors=True)
        if tally.attempts == KILLS:
            break
    judge(tally, KILLS)


def trained(folder: Path) -> tuple[bytes, dict[str, Any]]:
    """Return what a training wrote, but for times and memory."""
    card = json.loads((folder / "card.json").read_text())
    for part in (card, *card["epochs"]):
        del part["seconds"], part["peak_bytes"]
    return (folder / "weights.safetensors").read_bytes(), card


def test_training_kills(mvtec_tree, tmp_path, tally):
    """train, killed at any moment and started again."""

    def train(out: Path) -> None:
        request = TrainRequest("toy_trained.mvtec", "mvtec", out, mvtec_tree)
        training.train(request, training.SilentTraining(), save_every=2)

    began = time.monotonic()
    assert faults.end(faults.start(lambda: train(tmp_path / "whole"), tmp_path / "log")) == 0
    seconds, draw = time.monotonic() - began, random.Random(0)
    for attempt in range(10 * TRAINING_KILLS):
        out = tmp_path / str(attempt)
        child = faults.start(lambda out=out: train(out), tmp_path / "log")
        if faults.kill_after(child, draw.uniform(0, seconds)):
            ended = faults.end(faults.start(lambda out=out: train(out), tmp_path / "log"))
            left = ended != 0 or sorted(path.name for path in out.iterdir()) != ["card.json", "weights.safetensors"]
            tally.add(attempt, lost=left, wrong=not left and trained(out) != trained(tmp_path / "whole"))
        if tally.attempts == TRAINING_KILLS:
            break
    judge(tally, TRAINING_KILLS)


def test_full_disks(mvtec_tree, tmp_path, reference, tally):
    """run on a disk that becomes full, and again with room."""
    count = tmp_path / "count"

    def counted() -> None:
        with faults.full_disk() as disk:
            run(mvtec_tree, tmp_path / "whole")
        count.write_text(str(disk.done))

    assert faults.end(faults.start(counted, tmp_path / "log")) == 0
    writes = int(count.read_text())
    assert writes > FULL_DISKS

    def on_a_full_disk(out: Path, room: int) -> None:
        with faults.full_disk(room):
            run(mvtec_tree, out)

    for point in range(FULL_DISKS):
        out, log = tmp_path / str(point), tmp_path / f"{point}.log"
        ended = faults.end(
            faults.start(lambda out=out, point=point: on_a_full_disk(out, point * writes // FULL_DISKS), log)
        )
        said = log.read_text()
        failed = [one for one in (results.load_run(out) if out.is_dir() else []) if one.status != "done"]
        steps = ("Free some space", "Choose another folder")  # the latter where not even --out could be made
        told = "No space left on device" in said and any(step in said for step in steps)
        if ended != REFUSED or not told or failed:
            tally.add(point, lost=True, wrong=False)
        else:
            goes_on(mvtec_tree, out, reference[0], tally)
    judge(tally, FULL_DISKS)


def test_hostile_records(tmp_path, tally):
    """records of strangers, beside a good one."""
    for number, (name, harm) in enumerate(hostile.of_records().items()):
        out = tmp_path / str(number)
        for category in ("bad", "good"):
            results.save(out, hostile.record(category))
        harm(out / "d/m/bad.json")
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            found = results.load_run(out)
            table = quality.render(found)
        said = any("bad.json is not a zsadbench record" in str(one.message) for one in told)
        tally.add(name, lost=not said or "75.0" not in table, wrong=[one.category for one in found] != ["good"])
    judge(tally, len(hostile.of_records()))


def test_hostile_cards(tmp_path, tally):
    """checkpoints of strangers, beside a good one."""
    for number, (name, harm) in enumerate(hostile.of_cards().items()):
        root = tmp_path / str(number)
        for folder in ("bad", "good"):
            checkpoints.save(root / folder, {}, hostile.CARD)
        harm(root / "bad/card.json")
        try:
            checkpoints.read_card(root / "bad")
            believed = True
        except WeightsError as error:
            believed = "bad/card.json" not in str(error)
        found = [folder.name for folder in checkpoints.Shelf(root)._cards if folder.parent == root]
        tally.add(name, lost="good" not in found, wrong=believed or "bad" in found)
    judge(tally, len(hostile.of_cards()))


def test_misbehaving_methods(mvtec_tree, tmp_path, tally):
    """methods that misbehave, between two that do not."""
    options: dict[str, Any] = {"categories": ("bottle",), "protocol": EvaluationProtocol(batch_size=2, limit=6)}
    assert (
        faults.end(
            faults.start(
                lambda: run(mvtec_tree, tmp_path / "calm", list(misbehaving.GOOD), **options), tmp_path / "log"
            )
        )
        == 0
    )
    for name, one in misbehaving.ALL.items():
        out = tmp_path / name
        limit = 0.5 if name in misbehaving.SLOW else None
        order = ["calm", name, "calm_all"]
        ended = faults.end(
            faults.start(
                lambda out=out, order=order, limit=limit: run(
                    mvtec_tree, out, order, timeout_per_batch=limit, **options
                ),
                tmp_path / "log",
            )
        )
        wrong = of_the_calm(out) != of_the_calm(tmp_path / "calm")
        own = results.load(out / f"mvtec/{name}/bottle.json") if ended == 0 else None
        told = own is not None and (one.words in own.reason if one.words else own.status == "done")
        tally.add(name, lost=not told, wrong=wrong)
    judge(tally, len(misbehaving.ALL))


def test_two_processes(mvtec_tree, tmp_path, reference, tally):
    """two processes with different options in one folder."""
    asked = [{"good_mean": {"level": level}, "good_slow": {"level": level}} for level in ("0.5", "0.7")]
    names = ["good_mean", "good_slow"]
    wholes = []
    for index, changes in enumerate(asked):
        whole = tmp_path / f"whole{index}"
        action = partial(run, mvtec_tree, whole, names, changes=changes)
        assert faults.end(faults.start(action, tmp_path / "log")) == 0
        wholes.append(kept(whole))
    draw = random.Random(0)
    for pair in range(PAIRS):
        out, children = tmp_path / str(pair), []
        for changes in asked:
            action = partial(run, mvtec_tree, out, names, changes=changes)
            children.append(faults.start(action, tmp_path / f"{pair}.log"))
            time.sleep(draw.uniform(0, reference[1] / 4))
        ended = [faults.end(child) for child in children]
        found = kept(out)
        cells = {PurePosixPath(name).with_suffix("").as_posix().removesuffix(".pixels") for name in found}
        mixed = [
            cell
            for cell in cells
            if not any(
                all(found[name] == whole.get(name) for name in found if name.startswith(f"{cell}.")) for whole in wholes
            )
        ]
        tally.add(pair, lost=any(code not in (0, REFUSED) for code in ended) or len(cells) != 4, wrong=bool(mixed))
    judge(tally, PAIRS)
