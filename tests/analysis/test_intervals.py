"""Intervals and seeds end to end: runs of toy methods in a temporary folder, and the tables made of their files."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commands import zsadbench

from zsadbench.analysis import seeds
from zsadbench.analysis.differences import compare
from zsadbench.analysis.intervals import Resamples
from zsadbench.errors import RecordError
from zsadbench.metrics import bootstrap
from zsadbench.records import pixel_files, results
from zsadbench.tables import quality

METHODS = "constant,good_mean,good_pair"


@pytest.fixture(scope="module")
def runs(mvtec_tree, toy_plugins, tmp_path_factory) -> list[Path]:
    """Finished runs of three methods on two categories with the seeds 0 and 1."""
    folders = []
    for seed in range(2):
        folders.append(tmp_path_factory.mktemp(f"seed{seed}"))
        done = zsadbench(
            "run", "--methods", METHODS, "--datasets", "mvtec", "--data-root", mvtec_tree, "--plugins", toy_plugins,
            "--seed", seed, "--out", folders[-1], "--quiet",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    return folders


@pytest.fixture
def few(monkeypatch) -> int:
    """Fewer resamples, because tests need no exact ends."""
    monkeypatch.setattr(Resamples.__init__, "__defaults__", (50,))
    return 50


def records_of(run: Path, method: str = "good_mean") -> list[results.Record]:
    return [record for record in results.load_run(run) if record.method == method]


def rows_of(*arguments: object) -> list[dict[str, str]]:
    done = zsadbench("table", *arguments, "--format", "csv")
    assert done.returncode == 0, done.stderr
    return list(csv.DictReader(io.StringIO(done.stdout)))


def test_a_run_keeps_histograms_that_give_the_metrics_of_the_record(runs):
    for record in records_of(runs[0]):
        histograms = pixel_files.load(runs[0], record)
        assert len(histograms.negatives) == record.data["samples"] == len(results.load_scores(runs[0], record))
        whole = bootstrap.replicates(histograms, np.ones((1, 13)), record.protocol["aupro_limit"])
        assert {name: values[0] for name, values in whole.items()} == pytest.approx(record.pixel, abs=1e-3)
        counts = histograms.positives.sum(), histograms.negatives.sum()
        assert counts == (record.details["pixel"]["positives"], record.details["pixel"]["negatives"])
        assert histograms.overlap.sum() == pytest.approx(record.details["pixel"]["regions"], rel=1e-5)


def test_equal_histograms_are_equal_files_whenever_they_are_written(runs, monkeypatch):
    record = records_of(runs[0])[0]
    histograms = pixel_files.load(runs[0], record)
    monkeypatch.setattr("time.time", lambda: 2e9)
    assert pixel_files.encode(histograms) == results.path_of(runs[0], record, results.PIXELS).read_bytes()


def test_a_row_has_the_interval_of_the_mean_of_its_categories(runs):
    records = records_of(runs[0])
    resamples = Resamples(runs[:1], 100)
    column = "pixel", "aupro"
    apart = [resamples.replicates([record], column) for record in records]
    assert np.corrcoef(apart)[0, 1] < 0.5, "categories are resampled independently"
    together = resamples.replicates(records, column)
    np.testing.assert_allclose(together, np.mean(apart, axis=0))
    value, _, _ = results.mean(record.pixel["aupro"] for record in records)
    low, high = resamples.interval(records, column)
    assert 0 <= low <= 100 * value <= high <= 100
    assert high - low == pytest.approx(100 * np.ptp(np.quantile(together, [0.025, 0.975])), abs=1e-9)


def test_an_undefined_metric_has_no_interval(runs):
    undefined = [replace(record, pixel=dict.fromkeys(record.pixel)) for record in records_of(runs[0])]
    assert Resamples(runs[:1], 10).interval(undefined, ("pixel", "auroc")) is None


def test_methods_are_resampled_alike(runs, tmp_path):
    twin = []
    for record in records_of(runs[0]):
        beside = {suffix: results.read_beside(runs[0], record, suffix) for suffix in record.files}
        twin.append(results.save(tmp_path, replace(record, method="twin", title="Twin"), beside))
    found = compare([*records_of(runs[0]), *twin], Resamples([runs[0], tmp_path], 100), "mvtec", "pixel", "ap")
    assert (found.p == 1).all() and (found.points == 0).all()


def test_the_markdown_shows_intervals_and_what_they_are(runs, few):
    done = zsadbench("table", runs[0], "--ci")
    assert done.returncode == 0, done.stderr
    cells = re.findall(r"(\d+\.\d)\D*? \[(\d+\.\d), (\d+\.\d)\]", done.stdout)
    assert len(cells) == 3 * 7
    assert all(float(low) <= float(value) <= float(high) for value, low, high in cells)
    assert f"percentiles of {few} resamples" in done.stdout and "drawn within normal and anomalous" in done.stdout


def test_the_csv_has_the_ends_of_intervals_only_if_they_are_asked_for(runs, few):
    plain, wide = rows_of(runs[0], "--level", "category"), rows_of(runs[0], "--level", "category", "--ci")
    assert "low" not in plain[0] and "n_seeds" not in wide[0]
    assert [{**row, "low": wide[i]["low"], "high": wide[i]["high"]} for i, row in enumerate(plain)] == wide
    constant = next(row for row in wide if (row["method"], row["metric"]) == ("constant", "auroc"))
    assert (constant["value"], constant["low"], constant["high"]) == ("50.0", "50.0", "50.0")


def test_latex_sets_the_ends_beside_the_value(runs, few):
    done = zsadbench("table", runs[0], "--ci", "--format", "latex")
    assert r"\renewcommand{\arraystretch}" in done.stdout, "room for the ends"
    assert re.search(r"50\.0}?\\,\$_\{50\.0\}\^\{50\.0\}\$ &", done.stdout), done.stdout


@pytest.mark.parametrize("suffix", [results.SCORES, results.PIXELS])
@pytest.mark.parametrize("damage", ["missing", "empty", "of another run"])
def test_a_missing_or_foreign_file_says_to_run_the_cell_again(runs, tmp_path, damage, suffix):
    shutil.copytree(runs[0], tmp_path / "run")
    record = records_of(runs[0])[0]
    path = results.path_of(tmp_path / "run", record, suffix)
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(results.path_of(runs[1], record, suffix).read_bytes() if damage == "of another run" else b"")
    done = zsadbench("table", tmp_path / "run", "--ci")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert path.name in done.stderr and "Run the cell again" in done.stderr


def test_significance_prints_ranks_and_differences(runs, few):
    done = zsadbench("table", runs[0], "--significance")
    assert done.returncode == 0, done.stderr
    assert "### Average ranks" in done.stdout and "### MVTec AD, 0-shot: differences in image AUROC" in done.stdout
    assert "No test of ranks is made over fewer than 5 categories" in done.stdout
    assert "- Protocol: eval_size input" in done.stdout


def test_different_tables_are_printed_one_at_a_time(runs):
    done = zsadbench("table", runs[0], "--ci", "--seeds")
    assert done.returncode == 2 and "--ci and --seeds are different tables" in done.stderr


def test_intervals_need_no_torch(runs):
    code = (
        "import sys; from pathlib import Path; from zsadbench.analysis import intervals\n"
        "from zsadbench.records import results; run = Path(sys.argv[1]); "
        "one = [record for record in results.load_run(run) if record.status == 'done'][:1]; "
        "assert intervals.Resamples([run], 5).interval(one, ('pixel', 'ap')); sys.exit('torch' in sys.modules)"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code, str(runs[0])], cwd=root, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 0, done.stderr


def test_seeds_are_one_row_of_means_and_deviations(runs):
    rows = rows_of(*runs, "--seeds")
    apart = [rows_of(run) for run in runs]
    for row, first, second in zip(rows, *apart, strict=True):
        values = float(first["value"]), float(second["value"])
        assert float(row["value"]) == pytest.approx(np.mean(values))
        if row["method"] == "good_pair":
            assert float(row["std"]) == pytest.approx(np.std(values, ddof=1), abs=1e-12)
        else:
            assert row["std"] == "" and values[0] == values[1], "nothing varied: there is no deviation of 0.0"
        assert row["n_seeds"] == "2"
    pair = next(row for row in rows if (row["method"], row["level"], row["metric"]) == ("good_pair", "image", "auroc"))
    assert float(pair["std"]) > 0, "what a method of pairs says depends on the order of the images"


def test_seeds_are_told_under_the_table(runs):
    done = zsadbench("table", *runs, "--seeds")
    assert done.returncode == 0, done.stderr
    assert re.search(r"\d+\.\d\D*? ± \d+\.\d", done.stdout)
    assert "over 2 runs that differ in their seed" in done.stdout and "seed 0/1" in done.stdout
    assert "What the seed varied: order: good_pair." in done.stdout
    assert "Nothing varied, so there is no deviation: Constant, good_mean." in done.stdout
    assert r"$\pm$" in zsadbench("table", *runs, "--seeds", "--format", "latex").stdout


@pytest.mark.parametrize(
    ("checkpoints", "words", "deviation"),
    [
        ("aaa", "The same checkpoint in every run: Toy. To train one a seed", None),
        ("abc", "What the seed varied: training: Toy.", 1.0),
        ("aab", "What the seed varied: training (2 checkpoints in 3 runs): Toy.", pytest.approx(3**-0.5)),
    ],
)
def test_a_deviation_never_stands_for_the_same_checkpoint(checkpoints, words, deviation):
    values = {"a": 0.50, "b": 0.51, "c": 0.52}
    records = [
        results.Record(
            *("toy", "mvtec", "bottle", "done"), title="Toy", image={"auroc": values[weights]}, protocol={"seed": seed},
            setting={"scope": "category", "shots": 0, "trained_on": ["visa"], "checkpoint_sha256": weights},
        )
        for seed, weights in enumerate(checkpoints)
    ]  # fmt: skip
    ((line,),) = (table.lines for table in seeds.over_seeds(records, "dataset", {}, None))
    assert line.values["image", "auroc"].deviation == deviation
    assert words in quality.render(records, seeds=True)


def test_references_and_images_that_the_seed_draws_are_told():
    records = [
        results.Record(
            *("toy", "mvtec", "bottle", "done"), title="Toy", image={"auroc": 1.0}, protocol={"seed": seed, "limit": 8},
            setting={"scope": "image", "shots": 1, "trained_on": [], "checkpoint_sha256": ""},
        )
        for seed in range(2)
    ]  # fmt: skip
    text = quality.render(records, seeds=True)
    assert "What the seed varied: images of --limit and references: Toy." in text and "100.0 ± 0.0" in text


def test_runs_of_several_seeds_are_refused_without_being_asked_for(runs):
    done = zsadbench("table", *runs)
    assert done.returncode == 1 and "seed is 0 and 1" in done.stderr and "table ... --seeds" in done.stderr


def test_one_seed_has_no_deviation(runs):
    done = zsadbench("table", runs[0], "--seeds")
    assert done.returncode == 1 and "--seeds got runs of 1 seed; expected two or more" in done.stderr


def test_seeds_that_differ_in_more_than_the_seed_are_refused(runs):
    other = [replace(one, protocol=one.protocol | {"eval_size": 64}) for one in results.load_run(runs[1])]
    with pytest.raises(RecordError, match="eval_size"):
        quality.render([*results.load_run(runs[0]), *other], seeds=True)


def test_seeds_that_cover_other_categories_are_refused(runs):
    part = [one for one in results.load_run(runs[1]) if one.category != "grid"]
    with pytest.raises(RecordError, match="other categories with one seed"):
        quality.render([*results.load_run(runs[0]), *part], seeds=True)


def test_a_method_with_fewer_seeds_is_named(runs):
    part = [one for one in results.load_run(runs[1]) if one.method != "constant"]
    text = quality.render([*results.load_run(runs[0]), *part], seeds=True)
    assert "fewer runs: Constant 1." in text


def test_a_method_that_no_seed_finished_stays_in_the_table(runs):
    missing = results.Record("adaclip", "mvtec", "bottle", "needs_checkpoint", error="Give one.", title="AdaCLIP")
    lines = seeds.over_seeds([*results.load_run(runs[0]), *results.load_run(runs[1]), missing], "dataset", {}, None)
    assert [line.status for line in lines[0].lines if line.name.cli == "adaclip"] == ["needs_checkpoint"]
