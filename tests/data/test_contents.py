"""What files hold decides what is measured: replaced images and masks, and the memory of digests between runs."""

import hashlib
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy_tree import write_tree

from zsadbench.data import contents
from zsadbench.records import results
from zsadbench.running import runner
from zsadbench.running.plan import make_plan
from zsadbench.running.progress import Silent
from zsadbench.running.request import Request


@pytest.fixture
def memory(tmp_path, monkeypatch) -> Path:
    """The folder of remembered digests, of this test alone."""
    monkeypatch.setattr(contents, "folder", lambda: tmp_path / "contents")
    return tmp_path / "contents"


@pytest.fixture
def file(tmp_path) -> Path:
    """A file that was written long enough ago to be remembered."""
    path = tmp_path / "data" / "零件.png"
    path.parent.mkdir()
    path.write_bytes(b"before")
    return path


@pytest.fixture
def settled(monkeypatch):
    """Let every file count as written long ago: no test can wait for the clock of a file system."""
    monkeypatch.setattr(contents, "TICK", -(10**15))


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def read(file: Path) -> str:
    return contents.digests(file.parent, [file])[file]


def never(*_):
    raise AssertionError("a known file was read again")


def test_a_known_file_is_not_read_again(file, memory, settled, monkeypatch):
    assert read(file) == digest(b"before")
    monkeypatch.setattr(contents, "_read", never)
    assert read(file) == digest(b"before")


@pytest.mark.parametrize("when", ["size", "time", "restored time", "another file"])
def test_a_file_that_changed_is_read_again(file, memory, settled, when):
    read(file)
    kept = file.stat()
    if when == "another file":
        other = file.with_name("other")
        other.write_bytes(b"after!")
        other.replace(file)
    else:
        file.write_bytes(b"afterwards" if when == "size" else b"after!")
    os.utime(file, ns=(kept.st_atime_ns, kept.st_mtime_ns + (10**9 if when == "time" else 0)))
    assert read(file) == digest(file.read_bytes()) != digest(b"before")


def test_a_file_that_just_changed_is_not_remembered_because_its_clock_may_not_tick_before_the_next_change(
    file, memory, monkeypatch
):
    """The racy rule: with the same size, time and inode after the second write, only what was not believed is right."""
    now = time.time_ns()
    state = (6, now, now, 1)
    monkeypatch.setattr(contents, "_state", lambda path: state)
    assert read(file) == digest(b"before")
    file.write_bytes(b"after!")
    assert read(file) == digest(b"after!")
    state = (6, now - 2 * contents.TICK, now - 2 * contents.TICK, 1)
    read(file)
    file.write_bytes(b"hidden")
    assert read(file) == digest(b"after!"), "an old time is believed, or this test shows nothing"


def test_a_file_that_changes_while_it_is_read_is_not_remembered(file, memory, settled, monkeypatch):
    original = contents.files.sha256

    def slowly(path):
        found = original(path)
        path.write_bytes(b"after!")
        return found

    monkeypatch.setattr(contents.files, "sha256", slowly)
    read(file)
    monkeypatch.setattr(contents.files, "sha256", original)
    assert read(file) == digest(b"after!")


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"零件.png": 3}', '{"零件.png": ["x"]}', "null", "\0\0"])
def test_a_damaged_memory_is_made_anew(file, memory, settled, damage):
    read(file)
    (kept,) = memory.iterdir()
    whole = json.loads(kept.read_text())
    kept.write_text(damage)
    assert read(file) == digest(b"before")
    assert json.loads(kept.read_text()) == whole


def test_processes_that_write_at_once_lose_nothing_that_was_there_before(file, memory, settled):
    other = file.with_name("other.png")
    other.write_bytes(b"other")
    first, second = contents._Memory(file.parent), contents._Memory(file.parent)  # both read before either writes
    first.learn(file, contents._state(file), digest(b"before"))
    second.learn(other, contents._state(other), digest(b"other"))
    first.save(), second.save()
    known = contents._Memory(file.parent)
    assert known.recall(file, contents._state(file)) and known.recall(other, contents._state(other))


def test_a_memory_that_cannot_be_written_is_told_and_costs_nothing_but_time(file, tmp_path, settled, monkeypatch):
    (tmp_path / "taken").touch()
    monkeypatch.setattr(contents, "folder", lambda: tmp_path / "taken")
    with pytest.warns(UserWarning, match="cannot be remembered: .* set ZSADBENCH_CACHE to a folder"):
        assert read(file) == digest(b"before")


def test_a_file_that_cannot_be_read_has_no_digest_and_is_not_remembered(file, memory, settled):
    lost = file.with_name("lost.png")
    assert contents.digests(file.parent, [file, lost]) == {file: digest(b"before"), lost: ""}


def test_reading_tells_how_far_it_is_once_it_takes_long(file, memory, settled, monkeypatch):
    told = []
    contents.digests(file.parent, [file], lambda *step: told.append(step))
    assert not told
    monkeypatch.setattr(contents, "SLOW", -1.0)
    file.write_bytes(b"new")
    contents.digests(file.parent, [file], lambda *step: told.append(step))
    assert told == [(1, 1)]


@pytest.fixture
def measured(tmp_path, toys, memory, settled):
    """A finished run on data that may be changed: a function that runs it again and counts cells."""
    write_tree(tmp_path / "mvtec")

    def run(method: str = "good_mean") -> tuple[int, int]:
        request = Request([method], ["mvtec"], tmp_path / "run", tmp_path, encoder="tiny")
        summary = runner.run(make_plan(request), request, Silent())
        assert not summary.failed
        return sum(summary.counts.values()), summary.skipped

    return run


def test_a_corrected_mask_of_the_same_size_in_bytes_is_measured_again(measured, tmp_path):
    mask = tmp_path / "mvtec/bottle/ground_truth/hole/000_mask.png"
    pixels = np.asarray(Image.open(mask))
    Image.fromarray(pixels).save(mask, compress_level=0)
    assert measured() == (2, 0) and measured() == (0, 2)
    before, kept = results.load(tmp_path / "run/mvtec/good_mean/bottle.json"), mask.stat()
    Image.fromarray(np.roll(pixels, 1, axis=1)).save(mask, compress_level=0)
    os.utime(mask, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    assert mask.stat().st_size == kept.st_size and measured() == (1, 1)
    after = results.load(tmp_path / "run/mvtec/good_mean/bottle.json")
    assert after.data["sha256"] == before.data["sha256"] and after.pixel != before.pixel
    assert after.data["content_sha256"] != before.data["content_sha256"]


def test_a_replaced_image_is_measured_again_and_a_touched_one_is_not(measured, tmp_path):
    measured()
    image = tmp_path / "mvtec/bottle/test/good/000.png"
    image.touch()
    assert measured() == (0, 2)
    Image.fromarray(np.asarray(Image.open(image)) + np.uint8(1)).save(image)
    assert measured() == (1, 1)


def test_a_replaced_reference_image_is_measured_again_where_a_method_is_given_it(measured, tmp_path):
    measured(), measured("patchcore")
    for image in (tmp_path / "mvtec/bottle/train/good").iterdir():
        Image.fromarray(np.asarray(Image.open(image)) + np.uint8(1)).save(image)
    assert measured() == (0, 2) and measured("patchcore") == (1, 1)


def test_a_copy_elsewhere_gives_the_same_records(measured, tmp_path, toys):
    measured()
    write_tree(tmp_path / "elsewhere" / "mvtec")
    request = Request(["good_mean"], ["mvtec"], tmp_path / "again", tmp_path / "elsewhere", encoder="tiny")
    runner.run(make_plan(request), request, Silent())
    for name in ("bottle", "grid"):
        first, second = (tmp_path / run / f"mvtec/good_mean/{name}.json" for run in ("run", "again"))
        assert first.read_bytes() == second.read_bytes()
        assert str(tmp_path) not in first.read_text()
