"""A run that is killed at random moments and started again ends in the same bytes as one that was left alone."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from toy_tree import write_tree

from zsadbench.records import results
from zsadbench.support import plugins

MVTec = plugins.load("zsadbench.datasets", "mvtec").MVTec

COMMAND = [
    sys.executable,
    "-m",
    "zsadbench",
    "run",
    "--methods",
    "good_slow,good_pair,constant",
    "--quiet",
    "--batch-size",
    "2",
]


def start(root: Path, out: Path, plugins: Path, *options: str) -> subprocess.Popen:
    places = ["--data-root", str(root), "--out", str(out), "--plugins", str(plugins)]
    return subprocess.Popen(
        [*COMMAND, "--datasets", "mvtec", *places, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that starts the tests in the background makes them ignore Ctrl-C, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def contents(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in out.glob("*/*/*") if p.suffix in (".json", ".csv", ".npz")}


@pytest.fixture
def data_root(tmp_path):
    write_tree(tmp_path / "data/mvtec", categories=sorted(MVTec.cards["default"].expected)[:12], good=8, bad=8, side=96)
    return tmp_path / "data"


def wait_for_records(process: subprocess.Popen, out: Path, count: int) -> None:
    """Return once the run has written `count` records or has ended, so that kills hit the work and not the start-up."""
    while process.poll() is None and len(list(out.glob("*/*/*.json"))) < count:
        time.sleep(0.002)


@pytest.mark.slow
def test_a_run_killed_ten_times_and_resumed_equals_an_uninterrupted_one(data_root, tmp_path, toy_plugins):
    whole = start(data_root, tmp_path / "whole", toy_plugins)
    assert whole.wait() == 0, whole.stderr.read()
    expected = contents(tmp_path / "whole")
    assert len(expected) == 3 * 36
    out, rng, kills = tmp_path / "killed", random.Random(0), 0
    for attempt in range(10):
        process = start(data_root, out, toy_plugins)
        wait_for_records(process, out, len(list(out.glob("*/*/*.json"))) + rng.randint(0, 2))
        time.sleep(rng.uniform(0, 0.03))
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        finished = {name: data for name, data in contents(out).items() if name.endswith(".json")}
        assert finished.items() <= expected.items(), f"attempt {attempt} left a wrong or partial record"
    assert kills == 10
    last = start(data_root, out, toy_plugins)
    assert last.wait() == 0, last.stderr.read()
    assert contents(out) == expected
    assert not [
        path
        for path in out.rglob("*")
        if path.is_file() and path.suffix not in (".json", ".csv", ".npz", ".jsonl", ".toml")
    ], "the next run sweeps what the killed ones were writing"


@pytest.mark.slow
def test_two_runs_in_one_folder_do_each_cell_once_or_twice_and_tear_none(data_root, tmp_path, toy_plugins):
    options = ("--categories", "bottle,cable,capsule")
    single = start(data_root, tmp_path / "single", toy_plugins, *options)
    assert single.wait() == 0, single.stderr.read()
    out = tmp_path / "out"
    both = [start(data_root, out, toy_plugins, *options) for _ in range(2)]
    for process in both:
        assert process.wait() == 0, process.stderr.read()
    assert contents(out) == contents(tmp_path / "single")
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    times = Counter((line["method"], line["category"]) for line in lines)
    assert len(times) == 9 and set(times.values()) <= {1, 2}
    assert len(lines) > 9, "both worked at the same time"


@pytest.mark.slow
def test_two_runs_of_different_options_in_one_folder_leave_whole_cells_of_either(data_root, tmp_path, toy_plugins):
    out, levels = tmp_path / "out", ("0.1", "0.9")
    options = [("--categories", "bottle,cable,capsule", "--set", f"good_slow.level={level}") for level in levels]
    both = [start(data_root, out, toy_plugins, *one) for one in options]
    codes = [process.wait() for process in both]
    assert sorted(codes) in ([0, 1], [0, 2], [1, 1]), [process.stderr.read() for process in both]
    records = results.load_run(out)
    assert len(records) == 9 and {record.status for record in records} == {"done"}
    assert all(results.intact(out, record) for record in records)
    mine = [record for record in records if record.method == "good_slow"]
    assert {record.options["level"] for record in mine} <= set(map(float, levels))
    refused = [record for record in mine if record.failure]
    assert all("Another process changed this cell" in record.failure for record in refused)
    assert not list(out.rglob("*.part"))


def test_ctrl_c_ends_with_a_sentence_and_keeps_what_is_finished(data_root, tmp_path, toy_plugins):
    out = tmp_path / "out"
    process = start(data_root, out, toy_plugins)
    wait_for_records(process, out, 2)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Interrupted" in stderr and "Traceback" not in stderr
    kept = contents(out)
    again = start(data_root, out, toy_plugins)
    assert again.wait() == 0, again.stderr.read()
    assert kept.items() <= contents(out).items()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")  # noqa: PTH110
def test_a_full_standard_output_is_not_silent(mvtec_tree, tmp_path, toy_plugins):
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-m", "zsadbench", "list"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode != 0
