"""Spec files: what a run was asked for is kept in its folder, and runs again from there with the same results."""

import tomllib
from pathlib import Path

import pytest
from commands import zsadbench

import zsadbench as z
from zsadbench.errors import UsageError
from zsadbench.running import spec
from zsadbench.running.request import make_request

SMALL = ("--methods", "constant,fiseclip", "--categories", "gear", "--limit", 2, "--quiet")


def records(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in run.glob("demo/*/*.json")}


def test_a_run_is_repeated_from_its_spec(tmp_path):
    first, again = tmp_path / "first", tmp_path / "again"
    options = ("--set", "fiseclip.mu=0.5", "--sweep", "fiseclip.lambda_=1,1.1", "--order", "dataset")
    assert zsadbench("run", *SMALL, *options, "--out", first).returncode == 0
    kept = tomllib.loads((first / "spec.toml").read_text())
    assert (kept["methods"], kept["limit"], kept["set"]) == (["constant", "fiseclip"], 2, {"fiseclip.mu": "0.5"})
    assert "out" not in kept and str(tmp_path) not in (first / "spec.toml").read_text()
    done = zsadbench("run", "--spec", first / "spec.toml", "--out", again, "--quiet")
    assert done.returncode == 0, done.stderr
    assert len(records(first)) == 3 and records(again) == records(first)
    assert (again / "spec.toml").read_bytes() == (first / "spec.toml").read_bytes()


def test_python_keeps_the_same_spec_and_reads_it(tmp_path):
    one = z.evaluate(
        ["fiseclip"], "demo", categories="gear", limit=2, out=tmp_path / "a", sweep={"fiseclip.mu": [0.25, "0.5"]}
    )
    options = ("--sweep", "fiseclip.mu=0.25,0.5", "--categories", "gear", "--limit", 2, "--quiet")
    zsadbench("run", "--methods", "fiseclip", *options, "--out", tmp_path / "b")
    kept = (tmp_path / "a/spec.toml").read_bytes()
    assert kept == (tmp_path / "b/spec.toml").read_bytes()
    again = z.evaluate(spec=tmp_path / "a/spec.toml", out=tmp_path / "c", limit=3)
    assert {record.method for record in again.records} == {record.method for record in one.records}
    assert {record.protocol["limit"] for record in again.records} == {3}, "an argument beside the spec wins"


def test_options_beside_a_spec_win_and_are_told(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('methods = "fiseclip"\ncategories = ["gear"]\nlimit = 2\n[set]\n"fiseclip.mu" = 0.25\n')
    done = zsadbench(
        *("run", "--spec", path, "--limit", 3, "--set", "fiseclip.mu=0.5", "--out", tmp_path / "run", "--quiet")
    )
    assert done.returncode == 0, done.stderr
    assert f"Beside {path}: --limit 3 instead of 2" in done.stderr
    assert f"Beside {path}: --set fiseclip.mu 0.5 instead of 0.25" in done.stderr
    (record,) = z.load_run(tmp_path / "run").records
    assert (record.protocol["limit"], record.options["mu"]) == (3, 0.5)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('method = "winclip"', "Unknown option in .*'method'. Did you mean 'methods'"),
        ("batch-sizes = 4", "Did you mean 'batch-size'"),
        ('set = "a.b=1"', "set is 'a.b=1'; expected a table"),
        ("methods = 3", "methods is 3; expected a list of names"),
        ('no-train = "yes"', "no-train is 'yes'; expected true or false"),
        ("limit = [1]", r"limit is \[1\]; expected one value"),
        ("batch-size = 4\nbatch_size = 4", "stands there twice"),
        ("methods =", "cannot be read"),
    ],
)
def test_a_mistake_in_a_spec_is_a_sentence(tmp_path, text, told):
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(UsageError, match=told):
        spec.read(tmp_path / "a.toml")


def test_a_wrong_value_in_a_spec_is_told_as_that_of_the_option(tmp_path):
    (tmp_path / "a.toml").write_text("limit = 0")
    done = zsadbench("run", "--spec", tmp_path / "a.toml", "--out", tmp_path / "run")
    assert done.returncode == 2 and "--limit 0: expected a number above 0." in done.stderr


def test_paths_stand_as_given_and_what_the_environment_gave_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("ZSADBENCH_WEIGHTS", "open_clip:ViT-L-14/openai=/secret/weights")
    monkeypatch.setenv("ZSADBENCH_DATA", "/secret/data")
    request = make_request(
        methods="winclip", datasets="mvtec", out=tmp_path, data_root="/secret/data",
        checkpoints={"april_gan": ["~/a.pth", "b.pth"]}, weights={"open_clip:ViT-B-16/openai": "w.safetensors"},
    )  # fmt: skip
    kept = tomllib.loads(spec.of(request))
    assert "secret" not in spec.of(request) and "someone" not in spec.of(request)
    assert kept["checkpoint"] == {"april_gan": ["~/a.pth", "b.pth"]} and list(kept["weights"].values()) == [
        "w.safetensors"
    ]


def test_a_text_that_no_file_can_hold_as_it_is_is_spelt_out(tmp_path):
    request = make_request(datasets="demo", data_root='own"\\\x7f\udcff', out=tmp_path)
    assert tomllib.loads(spec.of(request))["data-root"] == 'own"\\\\x7f\\udcff'


def test_an_earlier_spec_of_a_folder_is_kept_under_a_number(tmp_path):
    for limit in (2, 3, 2, 4):
        spec.write(make_request(methods="constant", datasets="demo", out=tmp_path, protocol={"limit": limit}))
    kept = {path.name: tomllib.loads(path.read_text())["limit"] for path in tmp_path.iterdir()}
    assert kept == {"spec.toml": 4, "spec-1.toml": 2, "spec-2.toml": 3}
