"""What a run tells while it works: lines in the log of a batch job, bars and failures at a terminal."""

import io
import json
import re
from pathlib import Path

import pytest
from commands import zsadbench
from rich.console import Console
from rich.progress import Progress

import zsadbench as z
from zsadbench.api import progress as told
from zsadbench.api.progress import ConsoleProgress
from zsadbench.records import run_log
from zsadbench.records.results import Record
from zsadbench.running.progress import Recorded

REASON = (
    "NAME needs trained weights; none are there. Train them with `zsadbench train --method NAME --out c/NAME-1234abcd`."
)


def recorded(method, category, status="done", seconds=12.0, seed=0, **fields):
    return Recorded(Record(method, "mvtec", category, status, **fields), seconds, seed)


def failed(method, category):
    return recorded(method, category, "needs_checkpoint", 0.0, error=REASON.replace("NAME", method))


@pytest.fixture
def clock(monkeypatch):
    """A clock that is set by hand: the only entry of a list."""
    now = [0.0]
    monkeypatch.setattr(told.time, "monotonic", lambda: now[0])
    return now


def progress_on(quiet=False, terminal=False):
    text = io.StringIO()
    return ConsoleProgress(Progress(console=Console(file=text, force_terminal=terminal, width=80)), quiet), text


def test_without_a_terminal_each_cell_is_one_line_with_the_time_that_the_images_left_take(clock):
    progress, text = progress_on()
    progress.begin(3, 300)
    clock[0] = 100.0
    progress.step("mvtec/bottle", 10)
    progress.finish_cell(recorded("winclip", "bottle", image={"auroc": 0.9123}, pixel={"auroc": 0.8812}))
    progress.skip(190)
    progress.finish_cell(failed("april_gan", "bottle"))
    clock[0] = 1100.0
    progress.step("mvtec/cable", 100)
    progress.finish_cell(recorded("winclip", "cable", seconds=0.31, seed=1, image={"auroc": None}))
    assert text.getvalue().splitlines() == [
        "[1/3] mvtec/bottle winclip  image 91.2  pixel 88.1  12 s, 48 m 20 s left",
        "[2/3] mvtec/bottle april_gan  needs a checkpoint: april_gan needs trained weights; none are there.",
        "[3/3] mvtec/cable winclip, seed 1  image –  pixel –  0.3 s",
    ]


def test_cells_that_cannot_run_do_not_look_like_fast_ones(clock):
    progress, text = progress_on()
    progress.begin(4, 40)
    progress.skip(20)
    clock[0] = 60.0
    progress.step("mvtec/bottle", 10)
    progress.finish_cell(recorded("winclip", "bottle", seconds=60.0))
    assert text.getvalue().rstrip().endswith("1 m 00 s, 1 m 00 s left"), "10 images took 60 s, and 10 are left"


def test_at_a_terminal_a_bar_stands_for_cells_and_a_reason_is_said_of_the_first_category(clock):
    progress, text = progress_on(terminal=True)
    progress.begin(3, 30)
    for category in ("bottle", "cable"):
        progress.finish_cell(failed("april_gan", category))
    progress.finish_cell(recorded("winclip", "bottle", image={"auroc": 0.9}))
    assert text.getvalue().splitlines() == [
        "mvtec/bottle april_gan  needs a checkpoint: april_gan needs trained weights; none are there."
    ]


@pytest.mark.parametrize("quiet", [False, True])
def test_at_the_end_what_holds_for_several_methods_is_said_once(quiet):
    progress, text = progress_on(quiet)
    progress.begin(3, 30)
    for method in ("april_gan", "aa_clip.visa"):
        for category in ("bottle", "cable"):
            progress.finish_cell(failed(method, category))
    progress.finish_cell(recorded("mine", "cable", "failed", error="mine: all went wrong"))
    lines = len(text.getvalue().splitlines())
    assert lines == (0 if quiet else 5)
    progress.conclude()
    assert text.getvalue().splitlines()[lines:] == [
        f"april_gan, aa_clip.visa: {REASON.replace('NAME-1234abcd', 'METHOD').replace('NAME', 'METHOD')}",
        *(["mine: mine: all went wrong"] if quiet else []),
    ]


@pytest.mark.parametrize("executor", [(), ("--executor", "loky:2")])
def test_a_batch_log_has_a_line_a_cell_whoever_computes_it(mvtec_tree, tmp_path, executor):
    done = zsadbench(
        "run", "--methods", "constant,april_gan,aa_clip", "--datasets", "mvtec", "--data-root", mvtec_tree,
        "--encoder", "tiny", "--out", tmp_path / "out", "--no-train", "--checkpoints", tmp_path, *executor,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if re.match(r"\[\d/6\] mvtec/(bottle|grid) ", line)]
    assert [line[:5] for line in lines] == [f"[{n}/6]" for n in range(1, 7)]
    numbers = [line for line in lines if re.search(r"constant  image 50\.0  pixel 50\.0  \d+(\.\d)? s", line)]
    assert len(numbers) == 2 and sum("needs a checkpoint: " in line for line in lines) == 4
    advice = [line for line in done.stderr.splitlines() if line.startswith("april_gan, aa_clip")]
    assert len(advice) == 1 and "--checkpoint METHOD=PATH" in advice[0]
    entries = list(run_log.read(tmp_path / "out"))
    assert len(entries) == 6 and sum("reason" in entry for entry in entries) == 4
    below = zsadbench("table", tmp_path / "out").stdout
    assert below.count("needs trained weights") == 1, "also below tables"


def test_quiet_silences_the_lines(mvtec_tree, tmp_path):
    done = zsadbench(
        "run", "--methods", "constant", "--datasets", "mvtec", "--data-root", mvtec_tree, "--out", tmp_path, "--quiet"
    )
    assert done.returncode == 0 and "[1/2]" not in done.stderr


def test_the_page_names_every_field_of_the_log(mvtec_tree, tmp_path):
    zsadbench("run", "--methods", "constant", "--datasets", "mvtec", "--data-root", mvtec_tree, "--out", tmp_path)
    page = (Path(__file__).parents[2] / "docs/records.md").read_text(encoding="utf-8")
    section = page.partition("## The log")[2].partition("\n## ")[0]
    (first, *_) = run_log.read(tmp_path)
    named = {
        name for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    }
    assert named == {*first, "reason"}


def test_a_log_survives_a_line_that_a_killed_process_left(tmp_path):
    run_log.append(tmp_path, {"images": 1})
    with (tmp_path / run_log.FILE).open("a") as file:
        file.write('{"images": 2, "dev')
    run_log.append(tmp_path, {"images": 3})
    assert [entry["images"] for entry in run_log.read(tmp_path)] == [1, 3]
    assert json.loads((tmp_path / run_log.FILE).read_text().splitlines()[-1]) == {"images": 3}


def test_in_python_a_terminal_gets_the_bars_of_the_command_line_and_nothing_else_does(tmp_path, monkeypatch, capsys):
    z.evaluate("constant", "demo", out=tmp_path / "piped", limit=2)
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("FORCE_COLOR", "1")  # what rich takes for a terminal
    z.evaluate("constant", "demo", out=tmp_path / "silent", limit=2, progress=False)
    assert capsys.readouterr().err == ""
    z.evaluate("constant", "demo", out=tmp_path / "bar", limit=2)
    assert "4 cells" in capsys.readouterr().err
    z.train("april_gan.demo", "demo.train", out=tmp_path / "trained", epochs=1, limit=2)
    assert "april_gan.demo" in capsys.readouterr().err
