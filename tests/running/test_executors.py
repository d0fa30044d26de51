"""Cells on workers give the records of a single process, also when a worker is killed in the middle."""

from __future__ import annotations

import pickle
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from toy_tree import write_tree

from zsadbench.errors import ExecutorError, UnknownName, UsageError
from zsadbench.protocol import EvaluationProtocol
from zsadbench.running import backends, executors, plan, runner
from zsadbench.running.backends import Backend
from zsadbench.running.request import Request
from zsadbench.support import plugins

METHOD = """
import os, signal
from dataclasses import dataclass
from pathlib import Path
from zsadbench.methods import Method, MethodCard, Prediction, register
from zsadbench.data.images import Preprocess

@dataclass(frozen=True)
class Config:
    deadly: bool = False

@register
class Mortal(Method):
    card = MethodCard(title="Mortal", reference="none", scope="image")
    presets = {"default": Config()}
    preprocess = Preprocess(size=32)

    def predict(self, batch):
        marker = Path("MARKER")
        if batch.category.name == "CATEGORY" and (self.config.deadly or not marker.exists()):
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        maps = batch.images.mean(1)
        return Prediction(maps.amax((1, 2)), maps)
"""


class Watch:
    """A Progress that counts."""

    def __init__(self) -> None:
        self.cells = self.images = self.expected = 0

    def begin(self, cells: int, images: int) -> None:
        self.expected = images

    def step(self, label: str, images: int) -> None:
        self.images += images

    def skip(self, images: int) -> None:
        self.expected -= images

    def finish_cell(self, recorded: object) -> None:
        self.cells += 1


@pytest.fixture(scope="module")
def marker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a plugin whose worker dies once, unless the marker exists, and return the marker's path."""
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "methods").mkdir()
    marker = folder / "died"
    source = METHOD.replace("MARKER", str(marker)).replace("CATEGORY", "gear")
    (folder / "methods" / "mortal.py").write_text(source)
    plugins.add_folder(folder)
    return marker


def run(out: Path, backend: Backend | None, **changes: object) -> tuple[executors.Summary, Watch]:
    request = Request(
        ["mortal", "constant"],
        ["demo"],
        out,
        changes={"mortal": changes},
        protocol=EvaluationProtocol(limit=2, batch_size=2),
    )
    watch = Watch()
    return executors.run(plan.make_plan(request), request, watch, backend), watch


def records(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*") if path.name != "log.jsonl"
    }


@pytest.fixture(scope="module")
def single(marker: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Return the files of a run in this process."""
    marker.touch()
    out = tmp_path_factory.mktemp("single")
    run(out, None)
    return records(out)


def check(out: Path, backend: Backend, marker: Path, single: dict[str, bytes]) -> None:
    """Run while one worker is killed once, and compare everything with the single process."""
    marker.unlink()
    summary, watch = run(out, backend)
    assert marker.exists(), "no worker died; expected one to"
    assert records(out) == single
    assert summary.counts == {"done": watch.cells} and watch.images == watch.expected
    assert len(list(out.glob("*/*/*.json"))) == watch.cells


@pytest.mark.slow
def test_local_workers_give_the_records_of_one_process_though_one_is_killed(
    marker: Path, single: dict[str, bytes], tmp_path: Path
) -> None:
    check(tmp_path, Backend("loky", workers=2), marker, single)


@pytest.mark.slow
def test_workers_that_die_again_and_again_end_the_run_with_a_sentence(
    marker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors, "TRIES", 2)
    with pytest.raises(ExecutorError, match="ended 2 times without finishing a cell"):
        run(tmp_path, Backend("loky", workers=2), deadly=True)


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[str]:
    """Start a dask scheduler and two workers as processes of their own; returns the scheduler's address."""
    pytest.importorskip("distributed", reason='needs the extra "dask"')
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    started = [dask("scheduler", "--host", "127.0.0.1", "--port", address.rpartition(":")[2], "--no-dashboard")]
    for number in range(2):
        options = ("--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", str(tmp_path / str(number)))
        started.append(dask("worker", address, *options))
    yield address
    for process in started:
        process.kill()
        process.wait()


def dask(*arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "distributed.cli.dask_" + arguments[0], *arguments[1:]]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.mark.slow
def test_a_dask_cluster_gives_the_records_of_one_process_though_a_worker_is_killed(
    scheduler: str, marker: Path, single: dict[str, bytes], tmp_path: Path
) -> None:
    from distributed import Client

    with Client(scheduler, timeout=30) as client:
        client.wait_for_workers(2, timeout=60)
        check(tmp_path / "out", Backend("dask", address=scheduler), marker, single)
        assert len(client.scheduler_info()["workers"]) == 1, "one of the two workers was killed"


def test_a_scheduler_that_does_not_answer_is_a_sentence(
    marker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed", reason='needs the extra "dask"')
    monkeypatch.setattr(executors, "PATIENCE", 0.5)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ExecutorError, match=f"No dask scheduler answers at {re.escape(address)}"):
        run(tmp_path, Backend("dask", address=address))


def parts(root: Path, *categories: str) -> dict[str, bytes]:
    """Return what a worker gets of each category of a data set with an index and a few-shot method."""
    write_tree(root / "parts", categories, good=2, bad=1, side=8)
    rows = [
        f"{path.relative_to(root)},{int('good' not in path.parts)},{path.parts[-4]},{path.parts[-3]}"
        for path in sorted(root.glob("parts/*/t*/*/*.png"))
    ]
    (root / "index.csv").write_text("\n".join(["image,label,category,split", *rows]))
    request = Request(["constant", "patchcore"], [f"folder={root / 'index.csv'}"], root / "out", encoder="tiny")
    planned = plan.make_plan(replace(request, categories=categories))
    cells = [part for group in planned.groups for part in runner.by_category(group)]
    assert len(cells) == 2 * len(categories) and any(cell.references for part in cells for cell in part)
    return {f"{p[0].planned.name} {p[0].category.name}": executors.pack(p, request) for p in cells}


def test_what_a_worker_gets_does_not_depend_on_other_categories(tmp_path: Path) -> None:
    alone = parts(tmp_path, "a")
    among = parts(tmp_path, "a", "b", "c", "d")
    assert {name: among[name] for name in alone} == alone
    assert len({len(part) for name, part in among.items() if name.startswith("constant")}) == 1


def test_parts_are_made_when_they_are_sent(marker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import joblib

    made, finished = 0, []
    original = executors.pack

    def pack(*arguments: object) -> bytes:
        nonlocal made
        made += 1
        return original(*arguments)

    marker.touch()
    monkeypatch.setattr(executors, "pack", pack)
    monkeypatch.setattr(executors, "_joblib", lambda backend: joblib.parallel_config("threading"))
    monkeypatch.setattr(executors.runner, "run_cells", lambda *_: finished.append(made))
    request = Request(["mortal", "constant"], ["demo"], tmp_path)
    planned = plan.make_plan(request)
    left = [executors._key(cell) for group in planned.groups for cell in group]
    list(executors._records(planned, left, request, Backend("loky", workers=1)))
    assert made == len(finished) == 4 and finished[0] < 4, "not all parts are pickled before the first is done"


@pytest.mark.parametrize(
    ("text", "backend"),
    [
        ("", None),
        ("loky:4", Backend("loky", workers=4)),
        ("dask://node1:8786", Backend("dask", address="node1:8786")),
        ("ray", Backend("ray")),
    ],
)
def test_executors_are_named_as_the_help_says(text: str, backend: Backend | None) -> None:
    assert backends.parse(text) == backend


@pytest.mark.parametrize("text", ["loky", "loky:0", "loky:x", "dask://host", "dask:host:1", "ray:3", "slurm"])
def test_an_unknown_executor_is_refused_with_what_is_expected(text: str) -> None:
    with pytest.raises(UsageError, match=rf"--executor {text}: expected loky:N"):
        backends.parse(text)


def test_a_device_is_claimed_by_one_process_until_it_ends(tmp_path: Path) -> None:
    held = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, pathlib; from zsadbench.running import executors\n"
            "print(executors.claim(('a', 'b'), pathlib.Path(sys.argv[1]))[0], flush=True)\n"
            "sys.stdin.read()",
            str(tmp_path),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert held.stdout.readline() == "0\n"
        assert executors.claim(("a", "b"), tmp_path)[0] == 1
        with pytest.raises(ExecutorError, match="no free GPU: 1 in all"):
            executors.claim(("a",), tmp_path)
    finally:
        held.kill()
        held.wait()
    for _ in range(100):  # the system drops the lock with the process
        try:
            assert executors.claim(("a",), tmp_path)[0] == 0
            return
        except ExecutorError:
            time.sleep(0.05)
    pytest.fail("the lock of a killed process was not dropped")


def test_other_devices_are_kept_as_they_are() -> None:
    assert [executors.own_device(name) for name in ("cpu", "cuda:3")] == ["cpu", "cuda:3"]


def test_errors_travel_between_processes_as_class_and_message() -> None:
    error = UnknownName("method", "winclop", ["winclip"])
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is UnknownName and str(again) == str(error)
