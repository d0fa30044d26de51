"""`zsadbench data` end to end: exit codes, streams, and what a user reads."""

from __future__ import annotations

import io
import json

import pytest
from commands import zsadbench
from PIL import Image

from zsadbench.data import fetch
from zsadbench.errors import FetchError


@pytest.fixture
def tumours(tmp_path):
    """A BrainMRI folder with one image a label."""
    for seed, name in enumerate(("yes/Y1.jpg", "no/1 no.jpg")):
        (tmp_path / "brainmri" / name).parent.mkdir(parents=True)
        Image.new("L", (8, 6), seed).save(tmp_path / "brainmri" / name)
    return tmp_path


def test_list_shows_counts_levels_and_what_fetch_can_get_and_as_json_the_licence():
    done = zsadbench("data", "list")
    assert done.returncode == 0
    head, _, *lines = done.stdout.splitlines()
    assert head.split() == "name title normal anomalous levels fetch".split()
    row = next(line for line in lines if line.startswith("visa "))
    assert row.split() == "visa VisA 962 1200 image pixel yes".split()
    facts = {row["name"]: row["facts"] for row in json.loads(zsadbench("data", "list", "--json").stdout)}
    assert facts["visa"]["licence"] == "CC BY 4.0" and facts["visa"]["categories"] == "12"
    assert facts["isic"]["levels"] == "pixel" and facts["headct"]["levels"] == "image"
    assert facts["mvtec"]["fetch"] == "" and facts["folder"]["normal"] == "?"


def test_check_as_json_names_every_finding_and_keeps_the_exit_code(tumours):
    done = zsadbench("data", "check", "brainmri", "--data-root", tumours, "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 1 and not report["ok"] and report["findings"] == []
    (count,) = report["counts"]
    assert (count["test"], count["expected_test"], count["state"]) == ([1, 1], [98, 155], "test incomplete")
    (tumours / "brainmri/yes/Y1.jpg").write_bytes(b"")
    report = json.loads(zsadbench("data", "check", "brainmri", "--data-root", tumours, "--json").stdout)
    assert [(found["kind"], found["wrong"]) for found in report["findings"]] == [("unreadable image", True)]


def test_index_writes_the_list_and_refuses_the_users_folder(tumours):
    done = zsadbench("data", "index", "brainmri", "--data-root", tumours, "--out", tumours / "list.jsonl")
    assert done.returncode == 0 and done.stdout == "" and "2 samples of brainmri" in done.stderr
    assert len((tumours / "list.jsonl").read_text().splitlines()) == 2
    done = zsadbench("data", "index", "brainmri", "--data-root", tumours, "--out", tumours / "brainmri/list.jsonl")
    assert done.returncode == 2 and "own folder" in done.stderr


def test_fetch_without_a_download_says_where_to_apply_and_exits_with_2(tmp_path):
    done = zsadbench("data", "fetch", "mvtec", "--data-root", tmp_path)
    assert done.returncode == 2 and "mvtec.com" in done.stderr and "CC BY-NC-SA 4.0" in done.stderr


def test_fetch_shows_the_licence_first_and_downloads_nothing_until_it_is_accepted(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO())  # nobody sits there
    monkeypatch.setattr(fetch, "fetch", lambda *arguments: pytest.fail("nobody accepted"))
    done = zsadbench("data", "fetch", "visa", "--data-root", tmp_path)
    assert done.returncode == 2 and "Licence: CC BY 4.0" in done.stderr and "--accept-licence" in done.stderr
    assert not list(tmp_path.iterdir())


def test_accepted_fetch_ends_with_the_command_that_checks_it(tmp_path, monkeypatch):
    def fetched(plan, progress):
        (plan.folder / "split_csv").mkdir(parents=True)
        (plan.folder / "split_csv/1cls.csv").write_text("object,split,label,image,mask\n")
        return plan.folder

    monkeypatch.setattr(fetch, "fetch", fetched)
    done = zsadbench("data", "fetch", "visa", "--data-root", tmp_path, "--accept-licence")
    assert done.returncode == 0 and f"zsadbench data check visa --data-root {tmp_path}" in done.stderr


@pytest.mark.parametrize(
    ("raised", "code", "words"),
    [(FetchError("the server is down"), 1, "the server is down"), (KeyboardInterrupt(), 130, "goes on from there")],
)
def test_failed_and_interrupted_fetches_are_sentences(tmp_path, monkeypatch, raised, code, words):
    def fail(*arguments):
        raise raised

    monkeypatch.setattr(fetch, "fetch", fail)
    done = zsadbench("data", "fetch", "visa", "--data-root", tmp_path, "--accept-licence")
    assert done.returncode == code and words in done.stderr and "Traceback" not in done.stderr
