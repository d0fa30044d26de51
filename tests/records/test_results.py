"""Records: atomic, complete, deterministic, and refused when they are not ours."""

import errno
import json
import os
from pathlib import Path

import pytest
from finished import PARTS, SETTING

from zsadbench.errors import RecordError
from zsadbench.records import results
from zsadbench.records.record import ImageScore
from zsadbench.records.results import Record
from zsadbench.support import files

RECORD = Record(
    method="winclip.4shot", dataset="mvtec", category="bottle", status="done", fingerprint="f" * 64, title="WinCLIP",
    image={"auroc": 1 / 3, "ap": None}, pixel={"aupro": 0.1 + 0.2},
    **{**PARTS, "setting": {**SETTING, "trained_on": frozenset({"b", "a"})}},
)  # fmt: skip
SCORES = [ImageScore("bottle/test/good/000.png", 0, "", 0.1), ImageScore("bottle/test/a, b/1.png", 1, "a, b", 1e-30)]
BESIDE = {results.SCORES: results.encode_scores(SCORES)}


def save(run: Path, record: Record = RECORD, beside=None) -> Path:
    """Save a record and return where it lies."""
    results.save(run, record, BESIDE if beside is None else beside)
    return results.path_of(run, record)


def test_a_record_comes_back_with_full_precision(tmp_path):
    path = save(tmp_path)
    assert path == tmp_path / "mvtec" / "winclip.4shot" / "bottle.json"
    loaded = results.load(path)
    assert loaded.image == {"auroc": 1 / 3, "ap": None}
    assert loaded.pixel == {"aupro": 0.1 + 0.2}
    assert loaded.setting == {**SETTING, "trained_on": ["a", "b"]}
    assert results.load_scores(tmp_path, loaded) == SCORES
    assert results.load_run(tmp_path) == [loaded]


def test_writing_leaves_no_temporary_file_and_replaces_whole_files(tmp_path):
    for _ in range(2):
        save(tmp_path)
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["bottle.csv", "bottle.json"]


def test_nan_never_gets_into_a_record(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        results.save(tmp_path, Record("m", "d", "c", "done", image={"auroc": float("nan")}))
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 99}', '{"format": 1, "colour": "red"}', "\x00\xff"])
def test_a_file_that_is_not_a_record_is_named(tmp_path, text):
    path = tmp_path / "mvtec" / "winclip" / "bottle.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(RecordError, match=r"bottle\.json"):
        results.load_run(tmp_path)


def test_a_run_folder_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(RecordError, match="not a run folder"):
        results.load_run(tmp_path / "nowhere")


def test_a_missing_or_damaged_scores_file_is_named(tmp_path):
    record = results.save(tmp_path, RECORD, BESIDE)
    scores = tmp_path / "mvtec" / "winclip.4shot" / "bottle.csv"
    scores.write_text("sample,label,defect,score\na.png,zero,,0.1\n")
    with pytest.raises(
        RecordError, match=r"bottle\.csv is not the file that was written with its record. Run the cell"
    ):
        results.load_scores(tmp_path, record)
    scores.unlink()
    with pytest.raises(RecordError, match=r"bottle\.csv cannot be read"):
        results.load_scores(tmp_path, record)


def test_a_full_disk_is_a_sentence_and_leaves_the_old_record(tmp_path, monkeypatch):
    path = save(tmp_path)
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RecordError, match=r"bottle\.json could not be written: No space left"):
        results.save(tmp_path, RECORD)
    assert path.read_bytes() == before
    assert sorted(p.name for p in path.parent.iterdir()) == ["bottle.csv", "bottle.json"]


@pytest.mark.parametrize(
    ("problem", "advice"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "Free some space"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory"), "A file stands where a folder is needed"),
        (FileExistsError(errno.EEXIST, "File exists"), "A file stands where a folder is needed"),
        (PermissionError(errno.EACCES, "Permission denied"), "a folder that you may write to"),
        (OSError(errno.EROFS, "Read-only file system"), "a folder that you may write to"),
    ],
)
def test_the_advice_fits_the_reason_why_a_file_cannot_be_written(tmp_path, problem, advice):
    path = tmp_path / "out.json"
    assert advice in str(files.unwritable(path, problem)) and str(path) in str(files.unwritable(path, problem))


def test_the_fingerprint_ignores_key_order_and_sees_every_value():
    one = files.fingerprint({"a": 1, "b": {"c": Path("x"), "d": frozenset({2, 1})}})
    assert one == files.fingerprint({"b": {"d": [1, 2], "c": "x"}, "a": 1})
    assert one != files.fingerprint({"a": 1.5, "b": {"c": Path("x"), "d": frozenset({2, 1})}})


def test_means_say_over_how_many():
    assert results.mean([0.5, None, 1.0]) == (0.75, 2, 3)
    assert results.mean([None, None]) == (None, 0, 2)
    assert results.mean([]) == (None, 0, 0)


def test_records_are_deterministic_text(tmp_path):
    first = save(tmp_path / "a").read_bytes()
    assert first == save(tmp_path / "b").read_bytes()
    assert json.loads(first)["method"] == "winclip.4shot"
