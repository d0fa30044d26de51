"""What is kept between runs: whole or not at all, damaged entries are made anew, a limit, several processes."""

import errno
import os
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest

from zsadbench.errors import UsageError
from zsadbench.support import files, store
from zsadbench.support.store import Store, parse_size

ABOUT = {"kind": "numbers", "code": "1"}


def entry_file(folder, key="k"):
    (found,) = folder.glob(f"{store.FOLDER}/*/{key}")
    return found


def put(folder, *keys, size=1000, **options) -> Store:
    kept = Store(folder, **options)
    for key in keys:
        kept.shelf(ABOUT).put(key, {"shape": [size]}, np.zeros(size, np.uint8))
    return kept


def keys(folder) -> set[str]:
    return {path.name for path in folder.glob(f"{store.FOLDER}/*/*") if path.name != store.ABOUT}


def grow_old(folder, *keys):
    """Let entries be last used hours ago, the first one first."""
    for age, key in enumerate(reversed(keys), start=1):
        os.utime(entry_file(folder, key), (time.time() - 3600 * age,) * 2)


@pytest.mark.parametrize("values", [np.arange(6, dtype=np.float32).reshape(2, 3), np.empty(0, np.uint8)])
def test_an_entry_comes_back_as_it_was_where_a_tensor_would_lie(tmp_path, values):
    Store(tmp_path).shelf(ABOUT).put("k", {"shape": [2, 3]}, values)
    entry = Store(tmp_path).shelf(ABOUT).get("k")
    assert entry.facts == {"shape": [2, 3]}
    assert entry.content.tobytes() == values.tobytes()
    assert entry.content.ctypes.data % 64 == 0
    assert Store(tmp_path).shelf(ABOUT).has("k")


def test_other_code_is_another_shelf(tmp_path):
    put(tmp_path, "k")
    assert Store(tmp_path).shelf(ABOUT | {"code": "2"}).get("k") is None
    assert Store(tmp_path).shelf(ABOUT).get("other") is None


@pytest.mark.parametrize("damage", ["cut", "empty", "flip facts", "flip content", "moved"])
def test_a_damaged_entry_is_removed_with_a_note_and_made_anew(tmp_path, damage):
    put(tmp_path, "k")
    path = entry_file(tmp_path)
    content = bytearray(path.read_bytes())
    if damage == "moved":
        path = path.rename(path.with_name("other"))
    elif damage.startswith("flip"):
        content[40 if "facts" in damage else -1] ^= 1
    path.write_bytes({"cut": content[:-1], "empty": b""}.get(damage, content))
    with pytest.warns(UserWarning, match="was damaged. It is made anew"):
        assert Store(tmp_path).shelf(ABOUT).get(path.name) is None
    assert not path.exists()
    put(tmp_path, path.name)
    assert Store(tmp_path).shelf(ABOUT).get(path.name) is not None


def test_what_was_not_used_for_the_longest_time_leaves_first(tmp_path):
    put(tmp_path, "a", "b", "c")
    grow_old(tmp_path, "a", "b", "c")
    assert Store(tmp_path).shelf(ABOUT).get("a") is not None  # used again
    put(tmp_path, "d", limit=4000)
    assert keys(tmp_path) == {"a", "c", "d"}


def test_what_a_run_uses_itself_does_not_leave_for_it_and_it_says_that_there_is_no_room(tmp_path):
    with pytest.warns(UserWarning, match=r"needs more than the limit of 3.5 kB. Raise --cache-limit") as told:
        put(tmp_path, *"abcdef", limit=3500)
    assert len(told) == 1
    assert keys(tmp_path) == {"a", "b", "c"}


def test_room_is_left_on_the_disk(tmp_path, monkeypatch):
    put(tmp_path, "a")
    grow_old(tmp_path, "a")
    monkeypatch.setattr(store, "_free", lambda folder: store.RESERVE - 500)
    with pytest.warns(UserWarning, match="what its disk can spare"):
        put(tmp_path, "b")
    assert keys(tmp_path) == set()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_a_disk_that_takes_nothing_is_a_note_and_the_run_goes_on(tmp_path, monkeypatch, code):
    def fail(*args):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files.os, "open", fail)
    with pytest.warns(UserWarning, match="takes nothing more: .*The run goes on") as told:
        put(tmp_path, "a", "b")
    assert len(told) == 1
    assert keys(tmp_path) == set()


def test_a_file_in_place_of_the_folder_is_a_note(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="A file stands where a folder is needed"):
        put(tmp_path / "file", "a")
    assert Store(tmp_path / "file").shelf(ABOUT).get("a") is None


def test_processes_may_write_and_remove_at_once(tmp_path):
    """None of them fails or reads a damaged entry, and the limit holds up to what each writes between two looks."""
    work = (
        "import sys, numpy as np, warnings; from pathlib import Path; from zsadbench.support.store import Store\n"
        "warnings.simplefilter('error')\n"
        "for turn in range(100):\n"
        "    shelf = Store(Path(sys.argv[1]), 130_000).shelf({})\n"
        "    for key in range(10):\n"
        "        entry = shelf.get(str(key + turn))\n"
        "        assert entry is None or set(entry.content) == {key + turn}\n"
        "        shelf.put(str(key + turn), {}, np.full(2000, key + turn, np.uint8))\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", work, str(tmp_path)]) for _ in range(3)]
    assert [process.wait() for process in running] == [0, 0, 0]
    assert 0 < sum(one.size for one in store.contents(tmp_path)) <= 130_000 + 3 * 2100
    assert not list(tmp_path.rglob("*.part"))


def test_contents_and_clearing(tmp_path):
    put(tmp_path, "a", "b")
    (tmp_path / "demo").mkdir()  # what else lies in the cache's folder stays
    (one,) = store.contents(tmp_path)
    assert (one.about, one.entries, one.size > 2000) == (ABOUT, 2, True)
    store.clear(tmp_path)
    store.clear(tmp_path)
    assert store.contents(tmp_path) == []
    assert (tmp_path / "demo").exists()


@pytest.mark.parametrize(("text", "size"), [("50GB", 5e10), ("1.5 tb", 1.5e12), ("512MiB", 2**29), ("1000", 1000)])
def test_sizes_are_read(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "0", "nan", "inf", "50 apples"])
def test_what_is_no_size_is_a_sentence(text):
    with pytest.raises(UsageError, match=r"--cache-limit .*: expected a size above 0"):
        parse_size(text)


def test_reading_needs_no_right_to_write(tmp_path):
    put(tmp_path, "a")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("error")
        patch.setattr(store.os, "utime", lambda path: (_ for _ in ()).throw(PermissionError()))
        assert Store(tmp_path).shelf(ABOUT).get("a") is not None
