"""`run --dry-run`: what would run, why, and what it needs; nothing is changed by looking."""

import json
import platform
from pathlib import Path

import pytest
from commands import zsadbench
from toy_tree import write_tree

from zsadbench.running import forecast
from zsadbench.running.plan import make_plan
from zsadbench.running.request import make_request

OPENAI = "open_clip:ViT-B-32/openai"


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    def download(*arguments):
        raise AssertionError("a download by looking")

    monkeypatch.setattr("zsadbench.encoders.hub.download", download)
    monkeypatch.setattr("zsadbench.encoders.hub.cached", lambda place: None)


def dry(root: Path, out: Path, methods: str, **options) -> dict:
    """Return what is told as JSON, after checking that nothing has changed on the disk."""
    before = state(out)
    words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items() if value is not True]
    words += [f"--{name.replace('_', '-')}" for name, value in options.items() if value is True]
    common = ["--datasets", "mvtec", "--data-root", root, "--out", out, "--dry-run", "--json"]
    done = zsadbench("run", "--methods", methods, *common, *words)
    assert state(out) == before
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def state(out: Path) -> dict:
    return {path: path.stat().st_mtime_ns for path in out.parent.rglob("*") if path.is_file()} | {"out": out.exists()}


def run(root: Path, out: Path, methods: str, *more: str) -> None:
    done = zsadbench("run", "--methods", methods, "--datasets", "mvtec", "--data-root", root, "--out", out, "-q", *more)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def finished(mvtec_tree, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "a"
    run(mvtec_tree, out, "constant,musc", "--encoder=tiny", "--limit=4")
    return out


def test_a_fresh_run_is_new_and_its_weights_are_told(mvtec_tree, tmp_path):
    told = dry(mvtec_tree, tmp_path / "out", "musc,constant", encoder="tiny", limit=4)
    assert {(cell["method"], cell["category"], cell["why"]) for cell in told["cells"]} == {
        (method, category, "new") for method in ("musc", "constant") for category in ("bottle", "grid")
    }
    assert told["images"] == 8 and told["done"] == 0
    (encoder,) = told["encoders"]
    assert (encoder["spec"], encoder["methods"], len(encoder["sha256"])) == ("tiny", ["musc"], 64)
    assert told["seconds"] is None and told["unknown"] == ["constant", "musc"]


def test_what_is_finished_is_done_and_what_changed_says_why(mvtec_tree, finished):
    options = {"encoder": "tiny", "limit": 4}
    told = dry(mvtec_tree, finished, "musc,constant", **options)
    assert (told["cells"], told["done"], told["encoders"]) == ([], 4, [])
    told = dry(mvtec_tree, finished, "musc,constant", save_maps=True, **options)
    assert {cell["why"] for cell in told["cells"]} == {"its maps are missing"}
    assert told["bytes_kept"] == 4 * 4 * 2 * 256**2
    told = dry(mvtec_tree, finished, "musc,constant", overwrite=True, encoder="tiny", limit=4, seed=1)
    assert {cell["why"] for cell in told["cells"]} == {"seed was 0, now 1"}


def test_time_and_disk_follow_earlier_runs_of_this_machine_beside_the_folder(mvtec_tree, finished, monkeypatch):
    lines = [json.loads(line) for line in (finished / "log.jsonl").read_text().splitlines()]
    spent = sum(line["seconds_predict"] for line in lines if line["method"] == "musc") / 8
    told = dry(mvtec_tree, finished.parent / "b", "musc,clip_ad", encoder="tiny")
    assert told["seconds"] == pytest.approx(26 * spent)
    assert told["unknown"] == ["clip_ad"]
    assert told["bytes_temporary"] > 0
    monkeypatch.setattr(platform, "node", lambda: "another machine")
    assert dry(mvtec_tree, finished.parent / "b", "musc", encoder="tiny")["seconds"] is None


def test_weights_that_are_missing_are_told_and_not_downloaded(mvtec_tree, tmp_path):
    told = dry(mvtec_tree, tmp_path / "out", "musc,constant", encoder=OPENAI)
    (encoder,) = told["encoders"]
    assert (encoder["spec"], encoder["sha256"], encoder["file"]) == (OPENAI, "", "")
    assert "vit_base_patch32_clip_224.openai" in encoder["source"]
    assert {cell["why"] for cell in told["cells"] if cell["method"] == "musc"} == {"its weights are missing"}


def test_trainings_and_checkpoints_that_lack_are_told(mvtec_tree, tmp_path):
    told = dry(mvtec_tree, tmp_path / "out", "april_gan", encoder="tiny", checkpoints=str(tmp_path / "none"))
    assert {cell["problem"] != "" for cell in told["cells"]} == {True}
    assert not told["trainings"]
    write_tree(tmp_path / "data" / "visa", categories=["candle"])
    write_tree(tmp_path / "data" / "mvtec")
    shown = zsadbench(
        "run", "--methods=april_gan", "--datasets=mvtec", f"--data-root={tmp_path / 'data'}", "--encoder=tiny",
        f"--out={tmp_path / 'out'}", "--checkpoints", tmp_path / "none", "--dry-run",
    )  # fmt: skip
    assert shown.returncode == 0
    assert "will first train: zsadbench train --method april_gan --dataset visa" in shown.stdout


def test_what_cannot_run_exits_with_2(mvtec_tree, tmp_path, finished):
    common = ["--datasets=mvtec", f"--data-root={mvtec_tree}", "--encoder=tiny", "--dry-run"]
    wrong = zsadbench("run", "--methods=musk", f"--out={tmp_path / 'out'}", *common)
    assert wrong.returncode == 2 and "musc" in wrong.stderr
    other = zsadbench("run", "--methods=musc", f"--out={finished}", "--limit=4", "--seed=1", *common)
    assert other.returncode == 2 and "--overwrite" in other.stderr


def test_it_is_readable(mvtec_tree, finished):
    shown = zsadbench(
        "run", "--methods=musc,constant", "--datasets=mvtec", f"--data-root={mvtec_tree}", "--encoder=tiny",
        f"--out={finished.parent / 'c'}", "--save-maps", "--dry-run",
    )  # fmt: skip
    assert "4 cells to run, 0 already done" in shown.stderr
    for part in ("musc", "new", "tiny", "Images: 26 different ones.", "Disk: at most 6.82 MB", "Time: about 1 s"):
        assert part in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 80 + 40


def test_a_damaged_log_is_no_reason_to_fail(mvtec_tree, tmp_path):
    out = tmp_path / "out"  # runs of other tests lie beside tmp_path
    out.mkdir()
    (out / "log.jsonl").write_bytes(b'\xff\n[]\n"x"\n{"device": 1}\n{"images": 0}\n')
    request = make_request(methods="constant", datasets=f"mvtec={mvtec_tree / 'mvtec'}", out=out, device="cpu")
    assert forecast.of(make_plan(request), request).seconds is None
