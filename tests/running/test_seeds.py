"""`run --seeds`: what a seed varies runs with each, the rest once; the table shows means and what varied."""

import re

import pytest
import toy_trained
from commands import zsadbench

import zsadbench as z
from zsadbench.errors import RecordError, UsageError
from zsadbench.records import results
from zsadbench.support import plugins


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("seeds") / "run"
    return z.evaluate("constant,fiseclip", "demo", categories="gear,wood", seeds=[0, 1, 2], out=out)


def test_what_a_seed_varies_runs_with_each_and_the_rest_once(run):
    found = {(record.method, record.protocol["seed"]) for record in run.records}
    assert found == {("constant", 0), *(("fiseclip", seed) for seed in (0, 1, 2))}
    scores = [
        tuple(score.score for score in results.load_scores(run.folders[0] / f"seed-{record.protocol['seed']}", record))
        for record in run.records
        if (record.method, record.category) == ("fiseclip", "gear")
    ]
    assert len(set(scores)) == 3


def test_the_table_shows_means_and_deviations_and_says_what_varied(run):
    done = zsadbench("table", run.folders[0])
    assert done.returncode == 0 and done.stdout.rstrip("\n") == run.table().rstrip("\n")
    rows = {line.split("|")[1].split()[0]: line for line in done.stdout.splitlines() if line.startswith("|")}
    assert "±" in rows["FiSeCLIP"] and "±" not in rows["Constant"]
    assert "Means ± sample standard deviations (n - 1) over 3 runs that differ in their seed" in done.stdout
    assert "What the seed varied: order: FiSeCLIP" in done.stdout
    frame = run.to_pandas().query("method == 'fiseclip'")
    assert set(frame["n_seeds"]) == {3} and frame["std"].notna().all()


def test_seeds_are_resumed_and_one_more_is_added(run, tmp_path):
    options = ("run", "--methods", "constant,fiseclip", "--categories", "gear,wood", "--quiet", "--out", run.folders[0])
    assert "0 cells to run, 8 already done" in zsadbench(*options, "--seeds", "0,1,2").stderr
    assert "2 cells to run, 4 already done" in zsadbench(*options, "--seeds", "0,3").stderr
    for path in (run.folders[0] / "seed-3/demo/fiseclip").iterdir():
        path.unlink()


def test_a_folder_holds_one_seed_or_several(run, tmp_path):
    with pytest.raises(UsageError, match="holds a run of several seeds; give --seeds"):
        z.evaluate("constant", "demo", out=run.folders[0])
    z.evaluate("constant", "demo", categories="gear", limit=2, out=tmp_path)
    with pytest.raises(UsageError, match="holds a run of one seed; choose another --out"):
        z.evaluate("constant", "demo", seeds="0,1", out=tmp_path)


def test_commands_that_show_one_run_name_one(run):
    with pytest.raises(RecordError, match=r"holds one run a seed.*seed-0"):
        results.load_run(run.folders[0])
    done = zsadbench("table", run.folders[0], "--significance")
    assert done.returncode == 1 and "seed-0" in done.stderr


def test_a_wrong_seed_is_told(tmp_path):
    with pytest.raises(UsageError, match="--seeds 0,x: expected whole numbers"):
        z.evaluate("constant", "demo", seeds="0,x", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_spec_of_several_seeds_repeats_them(run, tmp_path):
    again = z.evaluate(spec=run.folders[0] / "spec.toml", seeds="1", out=tmp_path, categories="gear")
    assert [record.protocol["seed"] for record in again.records] == [1, 1], "constant runs with the first seed"
    assert re.search(r"^seeds = \[0, [123]", (run.folders[0] / "spec.toml").read_text(), re.MULTILINE)


def test_each_seed_has_its_own_training(tmp_path, mvtec_tree):
    plugins.add_folder(toy_trained.write_method(tmp_path / "plugins"))
    run = z.evaluate(
        *("toy_trained.mvtec", "mvtec"), categories="bottle", root=mvtec_tree, seeds=[0, 1], allow_leak=True,
        out=tmp_path / "run", checkpoint_folder=tmp_path / "checkpoints",
    )  # fmt: skip
    assert len({record.setting["checkpoint_sha256"] for record in run.records}) == len(run.records) == 2
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2
    assert "What the seed varied: training: Toy" in run.table()
