"""The command line end to end, in temporary folders: exit codes, streams, and what a user reads."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import zsadbench
from toy_tree import write_tree

from zsadbench import __version__ as version
from zsadbench.cli.options import weights_of
from zsadbench.running.request import make_request


@pytest.fixture(scope="module")
def finished(mvtec_tree, tmp_path_factory) -> Path:
    """A finished run of three methods with the tiny encoder on two categories."""
    out = tmp_path_factory.mktemp("run")
    done = zsadbench(
        "run", "--methods", "constant,winclip,musc,april_gan", "--datasets", "mvtec", "--data-root", mvtec_tree,
        "--encoder", "tiny", "--out", out,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "", "progress and notes go to standard error"
    assert "6 done, 2 needs checkpoint, 0 skipped" in done.stderr
    return out


def test_a_finished_run_does_nothing_when_it_is_started_again(finished, mvtec_tree):
    done = zsadbench(
        "run", "--methods", "constant,winclip,musc", "--datasets", "mvtec", "--data-root", mvtec_tree,
        "--encoder", "tiny", "--out", finished, "--json",
    )  # fmt: skip
    assert done.returncode == 0
    assert json.loads(done.stdout) == {"out": str(finished), "skipped": 6}


def test_the_markdown_table_shows_every_method_and_its_setting(finished):
    done = zsadbench("table", finished)
    assert done.returncode == 0, done.stderr
    for words in ("WinCLIP", "MuSc", "Constant", "needs a checkpoint", "0-shot", "transductive"):
        assert words in done.stdout


def test_the_csv_is_tidy_and_agrees_with_the_records(finished):
    rows = list(
        csv.DictReader(io.StringIO(zsadbench("table", finished, "--format", "csv", "--level", "category").stdout))
    )
    record = json.loads((finished / "mvtec/musc/bottle.json").read_text())
    value = next(
        row["value"] for row in rows
        if (row["method"], row["category"], row["level"], row["metric"]) == ("musc", "bottle", "pixel", "aupro")
    )  # fmt: skip
    assert float(value) == pytest.approx(100 * record["pixel"]["aupro"], rel=1e-12), "percent, at full precision"
    assert {row["category"] for row in rows} == {"bottle", "grid", "mean"}


def test_the_latex_table_is_printed_alone_on_standard_output(finished):
    done = zsadbench("table", finished, "--format", "latex", "--level", "category")
    assert done.returncode == 0, done.stderr
    assert r"\toprule" in done.stdout and r"\bottomrule" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "--methods", "winclp"], "Did you mean 'winclip'"),
        (["run", "--datasets", "mvtek"], "Did you mean 'mvtec'"),
        (["run", "--datasets", "mvtec"], "--data-root"),
        (["run", "--datasets", "mvtec", "--data-root", "/nowhere"], "/nowhere"),
        (["run", "--methods", "winclip", "--set", "winclip.temprature=1"], "Did you mean 'temperature'"),
        (["run", "--methods", "winclip", "--set", "winclip.temperature=warm"], "a number"),
        (["run", "--methods", "winclip", "--set", "temperature=1"], "METHOD.FIELD=VALUE"),
        (["run", "--weights", "openai"], "SPEC=PATH"),
        (["run", "--precision", "fp8"], "--precision 'fp8'"),
        (["run", "--eval-size", "big"], "--eval-size big"),
        (["run", "--eval-size", "-3"], "--eval-size -3: expected a number above 0"),
        (["run", "--device", "cuda:x"], "--device cuda:x"),
        (["run", "--device", "tpu"], "--device tpu"),
        (["run", "--plugins", "/nowhere"], "--plugins /nowhere"),
        (["run", "--methods", ","], "--methods is empty"),
        (["data", "check", "mvtec=/nowhere"], "/nowhere"),
    ],
)
def test_a_wrong_name_path_or_option_exits_with_2_and_a_sentence(tmp_path, arguments, words):
    done = zsadbench(*arguments, *(["--out", tmp_path / "out"] if arguments[0] == "run" else []), ZSADBENCH_DATA="")
    assert done.returncode == 2, done.stderr
    assert words in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_encoder_without_network_and_file_fails_with_what_to_get(mvtec_tree, tmp_path):
    # A process of its own: the hub's library reads its offline switch when it is imported.
    done = subprocess.run(
        [sys.executable, "-m", "zsadbench", "run", "--methods", "winclip", "--datasets", "mvtec",
         "--data-root", mvtec_tree, "--out", tmp_path / "out"],
        capture_output=True, text=True, check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")},
    )  # fmt: skip
    assert done.returncode == 1
    assert "--weights" in done.stderr and "ViT-B-16-plus-240" in done.stderr and "Traceback" not in done.stderr


def test_a_failed_cell_makes_exit_code_1_and_is_explained_in_the_table(tmp_path):
    write_tree(tmp_path / "data/mvtec", categories=["grid"])
    (tmp_path / "data/mvtec/grid/test/good/001.png").write_bytes(b"not an image")
    done = zsadbench(
        "run",
        "--methods",
        "winclip",
        "--datasets",
        f"mvtec={tmp_path / 'data/mvtec'}",
        "--encoder",
        "tiny",
        "--out",
        tmp_path / "out",
    )
    assert done.returncode == 1 and "001.png" in done.stderr
    table = zsadbench("table", tmp_path / "out")
    assert table.returncode == 0 and "001.png" in table.stdout


def test_a_table_of_a_folder_without_records_is_an_error(tmp_path):
    done = zsadbench("table", tmp_path / "none")
    assert done.returncode == 1 and "not a run folder" in done.stderr


def test_lists_are_readable_by_people_and_scripts():
    listing = json.loads(zsadbench("list", "methods", "--json").stdout)
    assert {"constant", "winclip", "musc", "april_gan"} <= {row["name"] for row in listing}
    assert "winclip" in zsadbench("list").stdout
    assert "mvtec" in zsadbench("list", "datasets").stdout
    assert "open_clip:NAME/TAG" in zsadbench("list", "encoders").stdout


def test_data_check_reports_what_is_missing_and_exits_with_1(mvtec_tree):
    done = zsadbench("data", "check", "mvtec", "--data-root", mvtec_tree)
    assert done.returncode == 1
    assert "bottle" in done.stdout and "20" in done.stdout


def test_the_version_is_one_line():
    assert zsadbench("--version") == (0, f"zsadbench {version}\n", "")


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("zsadbench tab", "table"), ("zsadbench run --save", "--save-maps"), ("zsadbench data che", "check")],
)
def test_shells_complete_commands_and_options(typed, offered):
    request = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1), "_ZSADBENCH_COMPLETE": "complete_bash"}
    assert zsadbench(**request) == (0, f"{offered}\n", "")


def test_the_module_and_the_installed_command_are_the_same_program():
    for command in ([sys.executable, "-m", "zsadbench"], [str(Path(sys.executable).with_name("zsadbench"))]):
        done = subprocess.run([*command, "list", "methods"], capture_output=True, text=True, check=False)
        assert done.returncode == 0 and "winclip" in done.stdout, done.stderr


def test_the_variable_for_weights_holds_several_files_of_specs_with_colons(monkeypatch):
    monkeypatch.setenv("ZSADBENCH_WEIGHTS", "open_clip:ViT-B-16/openai=/w/b16.safetensors; timm:vit=/w/vit.safetensors")
    given = make_request(out="unused", weights=weights_of(["timm:vit=/mine.safetensors"]))
    assert given.weights == {
        "open_clip:ViT-B-16/openai": Path("/w/b16.safetensors"),
        "timm:vit": Path("/mine.safetensors"),
    }
