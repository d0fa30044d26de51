"""Runs below a folder: found, listed, shown together."""

import json

import pytest
from commands import zsadbench

import zsadbench as z


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    z.evaluate("constant", "demo", out=folder / "a", limit=2, categories=["wood"])
    z.evaluate("constant", "demo", out=folder / "deep/b", limit=2, categories=["gear"])
    return folder


def test_runs_are_listed(sweep):
    found = z.list_runs(sweep)
    assert [(one.folder, one.done, one.failed, one.planned) for one in found] == [
        ((sweep / "a").as_posix(), 1, 0, 4), ((sweep / "deep/b").as_posix(), 1, 0, 4),
    ]  # fmt: skip
    assert found[0].methods == ("constant",) and found[0].device == "cpu" and found[0].last
    as_json = json.loads(zsadbench("runs", sweep, "--json").stdout)
    assert as_json[1]["folder"] == found[1].folder
    assert "1 done, 0 failed of 4" in zsadbench("runs", sweep).stdout


def test_a_table_takes_a_folder_of_runs(sweep):
    whole, apart = zsadbench("table", sweep), zsadbench("table", sweep / "a", sweep / "deep/b")
    assert whole.returncode == 0 and whole.stdout == apart.stdout and "2 of 4 categories" in whole.stdout


def test_a_folder_without_runs_and_one_inside_a_run_are_sentences(sweep, tmp_path):
    empty, inside = zsadbench("table", tmp_path), zsadbench("runs", sweep / "a/demo")
    assert empty.returncode == 1 and "holds no run" in empty.stderr
    assert inside.returncode == 1 and f"lies inside the run {sweep / 'a'}" in inside.stderr
