"""Methods share features, an encoder and a process: one that changes them fails alone, and the others are as before."""

from pathlib import Path

import misbehaving
import pytest
from commands import zsadbench
from misbehaving import ALL, CHANGES, ENDS, GOOD, HARMLESS, RETURNS, SLOW

from zsadbench.protocol import EvaluationProtocol
from zsadbench.records import results
from zsadbench.running import runner
from zsadbench.running.plan import make_plan
from zsadbench.running.progress import Silent
from zsadbench.running.request import Request
from zsadbench.support import plugins
from zsadbench.support.shared_state import Settings


@pytest.fixture(scope="module", autouse=True)
def catalogue(tmp_path_factory):
    """Make the catalogue available in this process while this file's tests run."""
    folder = misbehaving.write(tmp_path_factory.mktemp("isolation") / "catalogue0")
    plugins.add_folder(folder)
    return folder


def run(root: Path, out: Path, *names: str, categories=("bottle",), **options) -> runner.Summary:
    request = Request(
        methods=names, datasets=["mvtec"], data_root=root, out=out, categories=categories,
        protocol=EvaluationProtocol(batch_size=2, limit=6), **options,
    )  # fmt: skip
    return runner.run(make_plan(request), request, Silent())


def files(out: Path, category="*") -> dict[str, bytes]:
    """Return what the two methods that behave have recorded."""
    paths = (path for name in GOOD for path in (out / "mvtec" / name).glob(f"{category}.*"))
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def alone(mvtec_tree, catalogue, tmp_path_factory) -> Path:
    """A run of two categories by the methods that behave, and nobody beside them."""
    out = tmp_path_factory.mktemp("alone")
    run(mvtec_tree, out, *GOOD, categories=())
    assert len(files(out)) == len(GOOD) * 2 * 3
    return out


GROUPS = [list(CHANGES)[start : start + 6] for start in range(0, len(CHANGES), 6)] + [list(ENDS | RETURNS | HARMLESS)]


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group[0])
def test_methods_that_misbehave_fail_with_a_sentence_each_and_their_neighbours_bytes_stay(
    group, mvtec_tree, tmp_path, alone
):
    before = Settings()
    summary = run(mvtec_tree, tmp_path, "calm", *group, "calm_all")
    failing = [name for name in group if ALL[name].words]
    assert files(tmp_path) == files(alone, "bottle")
    assert not before.changed()
    for name in failing:
        record = results.load(tmp_path / f"mvtec/{name}/bottle.json")
        assert record.status == "failed" and len(record.error) < 30_000
        assert ALL[name].words in record.reason
        assert f"methods/{name}.py" in record.reason
    assert summary.counts == {"done": len(group) - len(failing) + 2, "failed": len(failing)}


@pytest.mark.parametrize("order", [["weights", "calm", "in_place_all", "calm_all"], ["calm_all", "calm", "weights"]])
def test_later_categories_and_either_order_are_the_same_too(order, mvtec_tree, tmp_path, alone):
    bad = 2 * len(set(order) - set(GOOD))
    assert run(mvtec_tree, tmp_path, *order, categories=()).counts == {"done": 4, "failed": bad}
    assert files(tmp_path) == files(alone)


def test_what_a_method_draws_depends_on_the_seed_and_the_batch_alone(mvtec_tree, tmp_path):
    run(mvtec_tree, tmp_path / "a", "noisy")
    run(mvtec_tree, tmp_path / "b", "draws", "noisy")
    scores = [(tmp_path / part / "mvtec/noisy/bottle.csv").read_bytes() for part in "ab"]
    assert scores[0] == scores[1]


def test_what_a_method_prints_goes_to_standard_error(mvtec_tree, tmp_path, capsys):
    run(mvtec_tree, tmp_path, "prints")
    printed = capsys.readouterr()
    assert printed.out == "" and "a word of the plugin" in printed.err


@pytest.mark.parametrize("name", SLOW)
def test_a_call_that_takes_too_long_is_given_up_and_the_run_goes_on(name, mvtec_tree, tmp_path, alone):
    summary = run(mvtec_tree, tmp_path, "calm", name, "calm_all", categories=(), timeout_per_batch=0.5)
    assert summary.counts == {"done": 4, "failed": 2}
    assert files(tmp_path) == files(alone), "a limit of time changes no number"
    assert SLOW[name].words in results.load(tmp_path / f"mvtec/{name}/bottle.json").reason


def test_a_limit_of_time_on_the_command_line_fails_the_sleeping_method_in_a_sentence(catalogue, tmp_path):
    done = zsadbench(
        "run", "--methods", "calm,sleeps,calm_all", "--categories", "wood", "--limit", 2, "--timeout-per-batch", 0.5,
        "--plugins", catalogue, "--out", tmp_path,
    )  # fmt: skip
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "Finished: 2 done, 1 failed, 0 skipped." in done.stderr
    assert "demo/wood sleeps  failed: method sleeps took longer than the 0.5 s" in done.stderr
    table = zsadbench("table", tmp_path).stdout
    rows = {line.split()[1]: line for line in table.splitlines() if line.startswith("| ")}
    assert " failed |" in rows["sleeps"] and "- sleeps on wood: failed. method sleeps took longer" in table
    assert all("failed" not in rows[name] and "." in rows[name] for name in ("calm", "calm_all"))


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "soon"])
def test_a_limit_of_time_is_a_number_of_seconds(seconds, tmp_path):
    done = zsadbench("run", "--methods", "constant", "--timeout-per-batch", seconds, "--out", tmp_path / "out")
    assert done.returncode == 2 and not (tmp_path / "out").exists()
    assert done.stderr == (f"Error: --timeout-per-batch {seconds}: expected a number of seconds above 0, e.g. 60.\n")
