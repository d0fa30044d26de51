"""Files that appear together or not at all, whoever dies in between, and what dead writers leave."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from finished import PARTS

from zsadbench.records import results
from zsadbench.records.results import Record
from zsadbench.support import files

PREFIX = "".join(filter(str.isalnum, socket.gethostname()))


def cell(value: float, scores: bytes, pixels: bytes | None) -> tuple[Record, dict[str, bytes]]:
    record = Record("m", "d", "c", "done", fingerprint=str(value), image={"auroc": value}, **PARTS)
    return record, {results.SCORES: scores} | ({results.PIXELS: pixels} if pixels is not None else {})


OLD, NEW = cell(0.25, b"old scores", b"old pixels"), cell(0.75, b"new scores", None)


def in_a_child(action: Callable[[], object], dies_at: int, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Do something in a child process that is killed at a system call that touches files; tell whether it was."""
    child = os.fork()
    if child == 0:
        calls = 0

        def deadly(original: Callable[..., object]) -> Callable[..., object]:
            def counted(*arguments: object, **options: object) -> object:
                nonlocal calls
                calls += 1
                if calls == dies_at:
                    os._exit(9)
                return original(*arguments, **options)

            return counted

        for owner, name in ((os, "fsync"), (Path, "replace"), (Path, "unlink")):
            monkeypatch.setattr(owner, name, deadly(getattr(owner, name)))
        action()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def test_a_process_that_dies_at_any_moment_leaves_the_old_cell_or_the_new_one_or_one_to_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes = []
    for moment in range(1, 100):
        run = tmp_path / str(moment)
        results.save(run, *OLD)
        died = in_a_child(lambda run=run: results.save(run, *NEW), moment, monkeypatch)
        record = results.load(run / "d/m/c.json")
        assert record.image in (OLD[0].image, NEW[0].image), "never torn, never lost"
        whole = results.intact(run, record)
        outcomes.append((record.image["auroc"], whole))
        if whole:  # then the files are the record's own
            assert (
                results.read_beside(run, record, results.SCORES)
                == (OLD if record.image == OLD[0].image else NEW)[1][".csv"]
            )
        files.sweep(run, "*/*/")
        assert not list(run.rglob("*.part"))
        if not died:
            break
    assert outcomes[0] == (0.25, True) and outcomes[-1] == (0.75, True)
    assert (0.25, False) in outcomes, "the moments between the files were tried"
    assert outcomes == sorted(outcomes, key=lambda one: (one[0], -one[1])), "first old, then to be run again, then new"


WRITER = """
import os, sys
from pathlib import Path
from zsadbench.support import files

def slowly(descriptor):
    print("writing", flush=True)
    sys.stdin.read()

os.fsync = slowly
files.write_atomically(Path(sys.argv[1]) / "file", "whole")
"""


def test_leftovers_of_dead_writers_are_swept_and_those_of_living_ones_are_not(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    writers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    dead, living = writers
    for writer in writers:
        assert writer.stdout.readline() == "writing\n"
    assert len(list(tmp_path.glob(".*.part"))) == 2
    dead.kill()
    dead.wait()
    files.sweep(tmp_path)
    assert len(list(tmp_path.glob(".*.part"))) == 1
    living.communicate()
    assert living.returncode == 0 and [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "whole"


def test_leftovers_of_other_machines_are_swept_after_a_day(tmp_path: Path) -> None:
    fresh, old, own = (tmp_path / name for name in (".other-1.part", ".other-2.part", f".{PREFIX}-3.part"))
    for path in (fresh, old, own):
        path.write_text("")
    os.utime(old, (time.time() - 2 * files.DAY,) * 2)
    (tmp_path / "mine.part").write_text("a user's")
    files.sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other-1.part", "mine.part"]


def test_files_are_as_open_as_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o002)
    try:
        files.write_atomically(tmp_path / "file", "text")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o664


def test_without_locks_files_are_written_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_lock", lambda descriptor, wait: False)  # Windows, some network file systems
    with files.locked(tmp_path):
        files.write_together({tmp_path / "a": "1", tmp_path / "b": b"2"})
    assert sorted(path.read_text() for path in tmp_path.iterdir()) == ["1", "2"]


def test_one_at_a_time_works_in_a_locked_folder(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\nfrom zsadbench.support import files\nwith files.locked(pathlib.Path(sys.argv[1])):\n    "
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", f"{code}print('in', flush=True); sys.stdin.read()", str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdout.readline() == "in\n"
    waiting = subprocess.Popen([sys.executable, "-c", f"{code}print('in')", str(tmp_path)], stdout=subprocess.PIPE)
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(0.5)
    holder.kill()
    assert waiting.communicate(timeout=30)[0] == b"in\n", "the lock goes with its process"
    assert not list(tmp_path.iterdir()), "and leaves no file"
    holder.wait()


def test_lines_of_several_writers_stay_whole(tmp_path: Path) -> None:
    """Each longer than a buffer of Python's, which writes such a line of text in pieces."""
    path = tmp_path / "log"
    lines = [letter * 20_000 for letter in "abcd"] * 20
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(partial(files.append_line, path), lines))
    assert sorted(path.read_text().splitlines()) == sorted(lines)
