"""What plugins do while they are imported, and what they print anywhere, as the command line answers it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import misbehaving
import pytest
from commands import zsadbench
from misbehaving import Misbehaviour

from zsadbench.profiling import measure
from zsadbench.records import efficiency, results

ROOT = Path(__file__).parents[2]
AT_IMPORT = {  # what a method does, and words of the sentence about it
    "exits": Misbehaviour("SystemExit without a message (at", at_import="sys.exit()"),
    "ends": Misbehaviour("GeneratorExit", at_import="raise GeneratorExit"),
    "no_memory": Misbehaviour("MemoryError", at_import="raise MemoryError"),
    "own": Misbehaviour("BaseException: mine", at_import="raise BaseException('mine')"),
    "needy": Misbehaviour("pip install no_such_package", at_import="import no_such_package"),
    "doubles": Misbehaviour("changed torch's default dtype", at_import="torch.set_default_dtype(torch.float64)"),
    "moves": Misbehaviour("changed the working directory", at_import="os.chdir('/')"),
}
PRINTS = Misbehaviour(
    "",
    "print('python, predict'); os.write(1, b'C, predict')",
    "print('python, import'); os.write(1, b'C, import')\n"
    "import threading; threading.Thread(target=time.sleep, args=(600,), name='mine').start()",
)
INTERRUPTS = Misbehaviour("KeyboardInterrupt", at_import="raise KeyboardInterrupt")  # not the user's Ctrl-C


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return misbehaving.write(tmp_path_factory.mktemp("at_import"), AT_IMPORT)


def test_a_method_that_cannot_be_imported_is_left_out_by_name_and_the_others_run(folder, tmp_path):
    names = ",".join([*AT_IMPORT, "constant"])
    options = ["--plugins", folder, "--set", "exits.shots=1", "--limit", "2", "--categories", "gear", "-q", "--json"]
    done = zsadbench("run", "--methods", names, *options, "--out", tmp_path)
    assert done.returncode == 1, "some cells that were asked for do not exist"
    assert json.loads(done.stdout) == {"out": str(tmp_path), "skipped": 0, "done": 1}
    for name, one in AT_IMPORT.items():
        told = [line for line in done.stderr.splitlines() if line.startswith(f"PROBLEM: Without {name}: ")]
        assert len(told) == 2 and one.words in told[0], done.stderr
    again = zsadbench("run", "--methods", names, *options, "--out", tmp_path)
    assert (again.returncode, json.loads(again.stdout)["skipped"]) == (1, 1)
    assert zsadbench("run", "--methods", "constant", *options[:2], *options[4:], "--out", tmp_path).returncode == 0


@pytest.mark.parametrize("more", [["exits,needy"], ["exits,constant", "--fail-fast"]], ids=["none left", "fail fast"])
def test_where_none_is_left_or_one_suffices_it_is_an_error_and_nothing_is_written(folder, tmp_path, more):
    done = zsadbench("run", "--plugins", folder, "--out", tmp_path / "run", "--methods", *more)
    assert done.returncode == 1 and "Error: zsadbench.methods plugin 'exits'" in done.stderr
    assert not (tmp_path / "run").exists()


def test_profile_measures_the_others_and_says_that_it_failed(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "_apart", lambda action, *arguments: action(*arguments))  # a process takes seconds
    options = ["--out", tmp_path, "--batches", "1", "--repeat", "1", "--warmup", "0", "-q"]
    done = zsadbench("profile", "--methods", "exits,constant", "--plugins", folder, *options)
    assert done.returncode == 1
    found = {record.method: record for record in efficiency.load_run(tmp_path)}
    assert (found["exits"].status, found["constant"].status) == ("failed", "done")
    assert "SystemExit" in found["exits"].error


def test_standard_output_holds_the_result_alone_whatever_plugins_print_and_leave_behind(tmp_path):
    folder = misbehaving.write(tmp_path / "own", {"prints": PRINTS, "interrupts": INTERRUPTS})
    done = subprocess.run(
        [sys.executable, "-m", "zsadbench", "run", "--methods", "prints,interrupts", "--plugins", folder, "--json",
         "--limit", "2", "--categories", "gear", "-q", "--out", tmp_path / "run", "--executor", "loky:1"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1 and "Without interrupts: " in done.stderr, done.stderr
    assert json.loads(done.stdout) == {"out": str(tmp_path / "run"), "skipped": 0, "done": 1}
    assert len(results.load_run(tmp_path / "run")) == 1
    for words in ("python, import", "C, import", "python, predict", "C, predict"):
        assert words in done.stderr


def test_help_that_nobody_reads_to_its_end_is_no_crash():
    command = f"{sys.executable} -m zsadbench run --help | head -n 1"
    done = subprocess.run(
        command, shell=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr
