"""Writes and reads that fail, each a sentence with the step that fits it, and processes that end with others."""

import errno
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from finished import PARTS

from zsadbench.errors import RecordError
from zsadbench.records import results
from zsadbench.records.results import Record
from zsadbench.support import files, process
from zsadbench.support.guard import guard
from zsadbench.support.spill import Spill

ADVICE = {
    errno.ENOSPC: "Free some space", errno.EDQUOT: "Free some space", errno.EROFS: "folder that you may write to",
    errno.EACCES: "folder that you may write to", errno.ENOTDIR: "A file stands where a folder is needed",
    errno.EFBIG: "ulimit -f", errno.ENAMETOOLONG: "shorter", errno.EIO: "Check the disk",
}  # fmt: skip


@pytest.mark.parametrize(("code", "step"), ADVICE.items(), ids=[errno.errorcode[code] for code in ADVICE])
def test_the_advice_fits_what_went_wrong(tmp_path, code, step):
    assert step in str(files.unwritable(tmp_path / "a", OSError(code, os.strerror(code))))


def test_a_disk_without_inodes_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(files.os, "statvfs", lambda path: os.statvfs_result((1, 1, 9, 9, 9, 9, 0, 0, 0, 255)))
    assert "df -i" in files.advice(tmp_path, OSError(errno.ENOSPC, "No space left on device"))


def test_a_file_where_a_folder_is_needed_is_a_sentence(tmp_path):
    (tmp_path / "d").write_text("")
    for write in (files.write_atomically, lambda path, _: files.locked(path.parent).__enter__()):
        with pytest.raises(RecordError, match=r"could not be written: .*A file stands where a folder is needed"):
            write(tmp_path / "d" / "m" / "c.json", "x")
    with pytest.raises(RecordError):
        results.save(tmp_path, Record("m", "d", "c", "done", **PARTS))


class Reluctant:
    """A file that takes or gives a few bytes at a time, as the system may, and fails after some."""

    def __init__(self, file, room: int = 10**9) -> None:
        self.file, self.room = file, room
        self.seek, self.tell, self.close = file.seek, file.tell, file.close

    def write(self, content) -> int:
        if self.room <= 0:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        part = content[: min(3, self.room)]
        self.room -= len(part)
        return self.file.write(part)

    def readinto(self, buffer) -> int:
        return self.file.readinto(buffer[:3])


def test_short_writes_and_reads_of_parked_features_are_made_whole(tmp_path):
    spill = Spill(tmp_path)
    spill._file = Reluctant(spill._file)
    values = torch.arange(7.0), torch.arange(5).to(torch.bfloat16)
    parked = [spill.write(value) for value in values]
    assert all(torch.equal(spill.read(one), value) for one, value in zip(parked, values, strict=True))


def test_every_failure_of_parked_features_ends_the_run_with_a_sentence(tmp_path, monkeypatch):
    with pytest.raises(RecordError, match=r"takes no temporary results: No such file"):
        Spill(tmp_path / "nowhere")
    spill = Spill(tmp_path)
    parked = spill.write(torch.arange(100.0))
    whole = spill._file
    spill._file = Reluctant(whole, room=30)
    with pytest.raises(RecordError, match=r"takes no temporary results: File too large\. .*ulimit -f"):
        guard(lambda: spill.write(torch.arange(100.0)), fail_fast=False)  # and no failed record
    os.truncate(whole.fileno(), 100)
    with pytest.raises(RecordError, match=r"cannot be read back: 300 of 400 bytes are missing"):
        guard(lambda: spill.read(parked), fail_fast=False)


def run(code: str, **changes) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **changes
    )


@pytest.mark.parametrize("raised", [False, True], ids=["at once", "after tidying up"])
def test_sigterm_ends_like_ctrl_c(raised):
    block = (
        "with process.signals_raised():\n    try: os.kill(os.getpid(), signal.SIGTERM); time.sleep(9)\n"
        "    except process.Interrupted as one: print('tidied', process.exit_code(one.number))"
    )
    action = block if raised else "os.kill(os.getpid(), signal.SIGTERM); time.sleep(9)"
    child = run(f"import os, signal, time\nfrom zsadbench.support import process\nprocess.end_on_signals()\n{action}")
    out, err = child.communicate(timeout=60)
    if raised:
        assert (child.returncode, out) == (0, "tidied 143\n")
    else:
        assert (child.returncode, err) == (143, f"{process.sentence(signal.SIGTERM)}\n")


def test_a_worker_ends_soon_after_its_parent_even_if_that_was_killed():
    worker = "import time; from zsadbench.support import process; process.WATCH = 0.05; process.end_with_parent(); "
    worker += "print('ready', flush=True); time.sleep(60)"
    parent = run(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {worker!r}])")
    assert parent.stdout.readline() == "ready\n"
    parent.kill()
    began = time.monotonic()
    parent.stdout.read()  # ends when the worker, which holds the other end, has ended
    assert time.monotonic() - began < 30
