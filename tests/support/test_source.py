"""The digests of code: what decides numbers counts, wherever it lies; what only plans, tells or draws does not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from commands import zsadbench
from test_house import imported, modules

from zsadbench.support import source

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "zsadbench"
KINDS = {"results": source.RESULTS, "trainings": source.TRAININGS}

# What code that decides numbers imports although it decides none itself: its results stand in the identity as values or
# digests (options, samples, weights), or it only tells, writes and plans.
NO_NUMBERS = {
    "data.contents", "errors", "protocol", "recipes", "records",
    "running.plan", "running.planned", "running.progress", "running.recording", "running.request",
    "support.environment", "support.files", "support.guard", "support.meters", "support.options", "support.plugins",
    "support.option_names", "support.preset_names", "support.source", "support.spelling", "support.texts",
    "support.variants",
    "training.checkpoints", "training.request",
}  # fmt: skip
EMPTY = {"data", "running", "support", "training"}  # wings whose own file holds nothing


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """The package in another folder."""
    return Path(shutil.copytree(PACKAGE, tmp_path_factory.mktemp("copy") / "elsewhere"))


def edited(copy: Path, file: str, old: str, new: str) -> dict[str, str]:
    """Return the digests with one file edited."""
    path = copy / file
    text = path.read_text()
    assert old in text, f"{file} has changed; choose another edit"
    path.write_text(text.replace(old, new, 1))
    source.of_harness.cache_clear()
    found = digests(copy)
    path.write_text(text)
    return found


def digests(package: Path) -> dict[str, str]:
    return {name: source.of_harness(parts, package) for name, parts in KINDS.items()}


@pytest.mark.parametrize(
    ("file", "old", "changed"),
    [
        ("components/similarity.py", "return ", {"results", "trainings"}),
        ("components/prompts.json", "photo", {"results", "trainings"}),
        ("metrics/ranking.py", "return ", {"results"}),
        ("running/evaluation.py", "return ", {"results"}),
        ("training/augment.py", "return ", {"trainings"}),
        ("tables/words.py", "return ", set()),
        ("cli/main.py", "return ", set()),
        ("running/executors.py", "return ", set()),
        ("errors.py", "return ", set()),
    ],
)
def test_an_edit_counts_where_the_code_decides_numbers(copy, file, old, changed):
    found = edited(copy, file, old, f"{old}-")
    assert {name for name in KINDS if found[name] != digests(PACKAGE)[name]} == changed


def test_digests_depend_on_neither_path_nor_line_ends_nor_compiled_files(copy):
    for path in copy.rglob("*.py"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    (copy / "components" / "__pycache__").mkdir(exist_ok=True)
    (copy / "components" / "__pycache__" / "losses.pyc").write_bytes(b"compiled")
    (copy / "components" / ".losses.py.swp").write_bytes(b"an editor's")
    source.of_harness.cache_clear()
    found = digests(copy)
    for path in copy.rglob("*.py"):
        path.write_bytes(path.read_bytes().replace(b"\r\n", b"\n"))
    assert found == digests(PACKAGE)


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_they_import_counts_too_or_decides_no_number(kind):
    """A new module that decides numbers must be listed, else its edits would leave old numbers standing."""
    known = {name: path for name, path in modules().items() if path.name != "__init__.py" or name not in EMPTY}
    counted = {name for name in known if is_part(name, KINDS[kind])}
    code = [*(known[name] for name in counted), *(ROOT / "methods").rglob("*.py")]
    targets = {target for path in code for one in imported(path) for target in (one, one.rpartition(".")[0])}
    missing = {name for name in targets & known.keys() - counted if not is_part(name, NO_NUMBERS)}
    assert not missing, f"imported by code that decides {kind}, but not in support/source.py: {sorted(missing)}"
    assert all((PACKAGE / part).exists() for part in KINDS[kind])


def is_part(module: str, parts: Iterable[str]) -> bool:
    names = [part.removesuffix(".py").replace("/", ".") for part in parts]
    return any(module == name or module.startswith(f"{name}.") for name in names)


def test_an_edit_of_a_shared_component_runs_finished_cells_again(copy, mvtec_tree, tmp_path):
    """The whole way, in another process: a sign is flipped in a copy of the package."""
    command = ["run", "--methods", "constant", "--datasets", "mvtec", "--data-root", mvtec_tree, "--device", "cpu"]
    assert zsadbench(*command, "--out", tmp_path / "out", "--quiet").returncode == 0
    (tmp_path / "site").mkdir()
    for name in ("methods", "datasets", "results"):
        (tmp_path / "site" / name).symlink_to(ROOT / name)
    package = Path(shutil.copytree(copy, tmp_path / "site" / "zsadbench"))
    again = [sys.executable, "-m", "zsadbench", *map(str, command), "--out", str(tmp_path / "out")]

    def run() -> str:
        environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
        done = subprocess.run(again, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        return done.stderr

    assert "0 cells to run, 2 already done" in run(), "another folder is no other code"
    similarity = package / "components" / "similarity.py"
    similarity.write_text(similarity.read_text().replace("return ", "return -", 1))
    told = run()
    assert "2 cells will run again, because the code of zsadbench changed (" in told and "2 cells to run" in told
