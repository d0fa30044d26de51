"""Figures: which samples, scales and numbers they show, and that equal figures are equal bytes. Not pixels."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import zsadbench
from finished import PARTS

from zsadbench import datasets
from zsadbench.analysis import significance
from zsadbench.errors import DataError, RecordError, UnknownName, UsageError
from zsadbench.figures import drawing, map_grid, map_samples, ranks
from zsadbench.figures import study as study_series
from zsadbench.figures import sweep as sweeps
from zsadbench.protocol import EvaluationProtocol
from zsadbench.records import results, saved_maps
from zsadbench.records.record import ImageScore
from zsadbench.records.results import Record
from zsadbench.running import studies
from zsadbench.running.plan import make_plan
from zsadbench.running.progress import Silent
from zsadbench.running.request import Request
from zsadbench.running.runner import run as run_plan

pytest.importorskip("matplotlib", reason="figures need the extra `report`")


@pytest.fixture(scope="module")
def run(mvtec_tree, tmp_path_factory) -> Path:
    """Two methods that need no weights on two categories, with their maps."""
    out = tmp_path_factory.mktemp("mapped")
    request = Request(
        methods=["constant", "winclip"], datasets=["mvtec"], data_root=mvtec_tree, out=out, encoder="tiny",
        protocol=EvaluationProtocol(batch_size=4), save_maps=True,
    )  # fmt: skip
    run_plan(make_plan(request), request, Silent())
    return out


def found(run: Path, category: str = "bottle", *methods: str) -> list[map_samples.Result]:
    return map_samples.find(map_samples.finished([run]), "mvtec", category, methods)


def test_kept_maps_are_the_finished_ones_up_to_a_16_bit_step(tmp_path):
    maps = np.random.default_rng(0).normal(1000, 1e-3, (3, 5, 7)).astype(np.float32)
    maps[2] = 0.25  # a constant map has no range
    record = Record("m", "d", "c", "done", fingerprint="f")
    content = saved_maps.encode(record, ["a/0.png", "b", "c"], iter([(0, maps[:2]), (2, maps[2:])]))
    results.save(tmp_path, record, {results.MAPS: content})
    loaded = saved_maps.load(tmp_path, record, ["a/0.png", "b", "c"])
    assert list(loaded) == ["a/0.png", "b", "c"]
    for name, expected in zip(loaded, maps, strict=True):
        step = max(np.ptp(expected) / saved_maps.STEPS, np.spacing(np.float32(1000)))
        assert np.abs(loaded[name] - expected).max() <= step
    assert saved_maps.encode(record, ["a/0.png", "b", "c"], iter([(0, maps)])) == content


def test_large_maps_are_averaged_to_256_pixels_and_keep_their_aspect_and_mean():
    values = np.random.default_rng(1).random((512, 1024), dtype=np.float32)
    small = saved_maps.shrink(values)
    assert small.shape == (128, 256)
    assert small[0, 0] == pytest.approx(values[:4, :4].mean(), abs=1e-6)
    assert saved_maps.shrink(values[:100, :200]).shape == (100, 200)


def test_maps_of_an_earlier_run_of_the_cell_and_missing_ones_are_refused(tmp_path):
    record = Record("m", "d", "c", "done", fingerprint="new")
    with pytest.raises(RecordError, match=r"kept no maps.*--save-maps"):
        saved_maps.load(tmp_path, record, ["a"])
    old = Record("m", "d", "c", "done", fingerprint="old")
    results.save(tmp_path, old, {results.MAPS: saved_maps.encode(old, ["a"], [(0, np.ones((1, 2, 2), "f4"))])})
    with pytest.raises(RecordError, match="earlier run"):
        saved_maps.load(tmp_path, record, ["a"])


def test_saving_maps_changes_no_record_and_reruns_nothing(run, mvtec_tree, tmp_path):
    options = {
        "datasets": ["mvtec"],
        "data_root": mvtec_tree,
        "encoder": "tiny",
        "protocol": EvaluationProtocol(batch_size=4),
    }
    request = Request(methods=["constant", "winclip"], out=run, **options)
    assert make_plan(request).cells == 0
    plain = Request(methods=["winclip"], out=tmp_path, categories=["bottle"], **options)
    run_plan(make_plan(plain), plain, Silent())
    path = "mvtec/winclip/bottle.json"
    assert (tmp_path / path).read_bytes() == (run / path).read_bytes()
    assert not list(tmp_path.rglob("*.maps.npz"))


def test_ranking_errors_are_shares_of_wrongly_ordered_pairs_and_average_to_1_minus_auroc():
    facts = ("a", 0, 1.0), ("b", 0, 3.0), ("c", 1, 2.0), ("d", 1, 3.0)
    scores = [ImageScore(name, label, "", score) for name, label, score in facts]
    errors = map_samples.ranking_errors(scores)
    assert errors == {"a": 0.0, "b": 0.75, "c": 0.5, "d": 0.25}
    with pytest.raises(UsageError, match="normal and anomalous"):
        map_samples.ranking_errors(scores[:2])


def test_samples_are_chosen_by_rule_or_name(run, mvtec_tree):
    data, cells = datasets.create("mvtec", mvtec_tree), found(run)

    def names(wanted: str, count: int) -> list[str]:
        return [data.sample_id(sample) for sample in map_samples.choose(cells, data, wanted.split(","), count)]

    everything = sorted(line.sample for line in cells[0].scores)
    assert names("first", 3) == everything[:3]
    assert names(f"{everything[5]},{everything[1]}", 9) == [everything[5], everything[1]]
    drawn = names("random", 4)
    assert drawn == names("random", 4) and len({name.split("/")[2] for name in drawn}) > 1
    worst = names("worst", len(everything))
    errors = map_samples.ranking_errors(cells[1].scores)  # constant ranks every sample equally
    assert [errors[name] for name in worst] == sorted(errors.values(), reverse=True)
    with pytest.raises(UnknownName, match="sample"):
        names("nothing.png", 1)


def test_samples_that_the_folder_lacks_are_named(run, tmp_path, mvtec_tree):
    shutil.copytree(mvtec_tree / "mvtec", tmp_path / "mvtec")
    next((tmp_path / "mvtec/bottle/test/good").iterdir()).unlink()
    with pytest.raises(DataError, match="was in the run"):
        map_samples.choose(found(run), datasets.create("mvtec", tmp_path), ["first"], 2)


def test_the_grid_has_a_column_a_method_and_one_scale_for_all_maps_of_a_method(run, mvtec_tree):
    data, cells = datasets.create("mvtec", mvtec_tree), found(run, "bottle", "winclip", "constant")
    grid = map_grid.collect(cells, data, map_samples.choose(cells, data, ["first"], 3))
    assert list(grid.scales) == ["WinCLIP", "Constant"]
    maps = saved_maps.load(run, cells[0].record, [line.sample for line in cells[0].scores]).values()
    values = np.concatenate([values[::2, ::2].ravel() for values in maps])
    assert grid.scales["WinCLIP"] == pytest.approx(tuple(np.percentile(values, (1, 99.9))))
    figure, caption = map_grid.draw(grid)
    assert len(figure.axes) == 3 * 4 + 2, "image, truth and two methods for three samples, and two scales"
    assert [axes.get_title() for axes in figure.axes[:4]] == ["Image", "Ground truth", "WinCLIP", "Constant"]
    limits = {axes.images[0].get_clim() for axes in figure.axes[2:12:4]}
    assert limits == {grid.scales["WinCLIP"]}
    assert all(row.name in caption for row in grid.rows) and "MVTec AD, bottle" in caption
    assert len(map_grid.draw(grid, overlay=True).figure.axes[2].images) == 2


@pytest.mark.parametrize("format", drawing.FORMATS)
def test_equal_figures_are_equal_bytes_and_unknown_suffixes_are_refused(run, mvtec_tree, tmp_path, format):
    data, cells = datasets.create("mvtec", mvtec_tree), found(run)
    grid = map_grid.collect(cells, data, map_samples.choose(cells, data, ["first"], 1))
    drawing.save(map_grid.draw(grid).figure, tmp_path / f"a.{format}")
    content = (tmp_path / f"a.{format}").read_bytes()
    assert content == drawing.encode(map_grid.draw(grid).figure, format)
    assert b"/Type3" not in content, "publishers refuse Type 3 fonts"
    with pytest.raises(UnknownName, match=r"\.gif"):
        drawing.check_suffix(tmp_path / "a.gif")


def test_a_dollar_sign_in_a_name_is_no_formula():
    with drawing.style():
        from matplotlib.figure import Figure

        figure = Figure()
        figure.text(0, 0, r"$\frac{$")
        assert drawing.encode(figure, "png").startswith(b"\x89PNG")


def test_figure_maps_from_the_command_line(run, mvtec_tree, tmp_path):
    out = tmp_path / "maps.png"
    command = "figure", "maps", run, "--out", out, "--data-root", mvtec_tree
    done = zsadbench(*command, "--category", "grid", "--count", 2)
    assert done.returncode == 0 and done.stdout == "" and "Caption: MVTec AD, grid." in done.stderr
    assert out.read_bytes().startswith(b"\x89PNG")
    done = zsadbench(*command)
    assert done.returncode == 2 and "--category is missing; expected one with results: bottle, grid" in done.stderr
    done = zsadbench(*command, "--category", "grid", "--methods", "musc")
    assert done.returncode == 2 and "Unknown method of the run 'musc'" in done.stderr


def cell(method: str, category: str, auroc: float) -> Record:
    return Record(
        method, "d", category, "done", title=method.upper(), fingerprint=method + category, image={"auroc": auroc},
        setting={"scope": "image", "shots": 0, "trained_on": [], "leak": False},
    )  # fmt: skip


def test_the_ranks_figure_has_a_name_and_a_rank_a_method_and_a_bar_a_group():
    qualities = {"best": 0.9, "near": 0.89, "far": 0.1, "last": 0.0}
    records = [cell(name, str(i), value + i / 100) for i in range(8) for name, value in qualities.items()]
    ranking = significance.analyse(records, "image", "auroc")
    figure, caption = ranks.draw(ranking)
    (axes,) = figure.axes
    texts = [text.get_text() for text in axes.texts]
    assert {"BEST  1.00", "NEAR  2.00", "3.00  FAR", "4.00  LAST"} <= set(texts)
    bars = [line.get_xdata() for line in axes.lines if line.get_linewidth() == 3]
    assert [tuple(bar) for bar in bars] == [
        (ranking.average_ranks[first], ranking.average_ranks[last]) for first, last in ranking.tests.groups()
    ]
    assert f"CD = {ranking.tests.critical_difference:.2f}" in caption and "8 categories" in caption
    few = ranks.draw(significance.analyse(records[:8], "image", "auroc"))
    assert "No test is made over fewer than 5" in few.caption
    assert not [line for line in few.figure.axes[0].lines if line.get_linewidth() == 3]


STUDY = """
title = "A sweep"
dataset = "mvtec"
[published]
source = "fiseclip"
table = "3"
method = "fiseclip"
[[rows]]
label = "low"
method = "fiseclip.fi"
options = { lambda_ = 0.95 }
variant = "lambda=0.95"
[[rows]]
label = "high"
method = "fiseclip.fi"
options = { lambda_ = 1.2 }
variant = "lambda=1.20"
"""


def sweep(tmp_path: Path, dataset: str, text: str = STUDY) -> sweeps.Sweep:
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / "sweep.toml").write_text(text)
    study = studies.load(str(tmp_path / "sweep.toml"))
    for row, auroc in zip(study.rows, (0.5, 0.75), strict=True):
        record = Record(studies.name(row, dataset), dataset, "bottle", "done", image={"auroc": auroc}, **PARTS)
        results.save(tmp_path, record)
    return study_series.collect(study, tmp_path)


def test_measured_numbers_share_panels_with_published_ones_of_the_same_data_alone(tmp_path):
    same = sweep(tmp_path / "a", "mvtec")
    assert (same.option, same.numbers) == ("lambda", (0.95, 1.2))
    assert [series.told for series in same.series] == ["measured on the paper's data", "published for MVTec AD"]
    assert same.series[0].values["high", ("image", "auroc")] == 75.0
    assert same.series[1].values["low", ("image", "auroc")] == 93.6, "FiSeCLIP, Table 3"
    figure = sweeps.draw(same, ["image.auroc"]).figure
    assert len(figure.subfigs) == 1 and len(figure.subfigs[0].axes[0].lines) == 4
    assert figure.subfigs[0].axes[0].get_xlabel() == "lambda"
    rings = [line for line in figure.subfigs[0].axes[0].lines if line.get_fillstyle() == "none"]
    assert [list(ring.get_xdata()) for ring in rings] == [[1.2], [0.95]], "the best measured and the best published"
    other = sweep(tmp_path / "b", "demo")
    drawn = sweeps.draw(other, ["image.auroc", "pixel.ap"])
    assert len(drawn.figure.subfigs) == 2 and "must not be compared" in drawn.caption
    first = drawn.figure.subfigs[0].axes
    assert [axes.get_title() for axes in first] == ["Image AUROC", "Pixel AP"]
    assert all(math.isnan(value) for value in first[1].lines[0].get_ydata()), "nothing was measured at pixel level"
    with pytest.raises(UnknownName, match="metric of the figure"):
        sweeps.draw(other, ["image.ap50"])


def test_rows_that_differ_otherwise_are_named_along_the_axis(tmp_path):
    text = STUDY.replace("options = { lambda_ = 1.2 }", 'options = { attention = "vv" }').replace(
        'variant = "lambda=1.20"', ""
    )
    named = sweep(tmp_path, "mvtec", text)
    assert (named.option, named.numbers, named.positions) == ("", (), ("low", "high"))
    axes = sweeps.draw(named, ["image.auroc"]).figure.subfigs[0].axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["low", "high"]


def swept_run(folder: Path, values: dict[str, float]) -> Path:
    for method, auroc in values.items():
        record = Record(method, "mvtec", "bottle", "done", title="M", image={"auroc": auroc}, **PARTS)
        results.save(folder, record)
    return folder


def test_the_variants_of_a_run_are_drawn_over_their_option_with_the_best_ringed(tmp_path):
    run = swept_run(tmp_path, {"m[k=10]": 0.7, "m[k=9]": 0.9, "m.p[k=9]": 0.8, "m.p[k=10]": 0.8, "other": 0.5})
    found = sweeps.collect([run])
    assert (found.option, found.numbers, found.positions) == ("k", (9.0, 10.0), ("9", "10"))
    assert [one.told for one in found.series] == ["M (p) on MVTec AD", "M on MVTec AD"]
    drawn = sweeps.draw(found, ["image.auroc"])
    rings = [line for line in drawn.figure.subfigs[0].axes[0].lines if line.get_fillstyle() == "none"]
    assert [list(ring.get_xdata()) for ring in rings] == [[9.0, 10.0], [9.0]], "equal ones are both the best"
    assert [one.told for one in sweeps.collect([run], methods=["m.p"]).series] == ["M (p) on MVTec AD"]
    assert zsadbench("figure", "sweep", run, "--out", tmp_path / "a.png").returncode == 0


def test_of_several_swept_options_one_is_chosen_and_the_others_are_in_the_names(tmp_path):
    run = swept_run(tmp_path, {f"m[k={k},s={s}]": 0.5 for k in (1, 2) for s in ("a", "b")})
    with pytest.raises(UsageError, match="variants differ in k and in s; choose one with --option"):
        sweeps.collect([run])
    found = sweeps.collect([run], "s")
    assert (found.numbers, found.positions) == ((), ("a", "b"))
    assert [one.told for one in found.series] == ["M [k=1] on MVTec AD", "M [k=2] on MVTec AD"]
    with pytest.raises(RecordError, match="no finished variants of a method differ in the option t; they differ in k"):
        sweeps.collect([run], "t")


def test_a_study_without_results_says_how_to_get_them(tmp_path):
    done = zsadbench("figure", "study", "fiseclip_table3", "--run", tmp_path, "--out", tmp_path / "a.pdf")
    assert done.returncode == 1 and "run `zsadbench study fiseclip_table3`" in done.stderr


@pytest.mark.parametrize("content", [b"", b"PK", b"no archive at all"])
def test_cut_or_foreign_files_of_maps_are_a_sentence(tmp_path, content):
    record = Record("winclip", "demo", "wood", "done", fingerprint="abc")
    path = results.path_of(tmp_path, record, results.MAPS)
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(RecordError, match=r"wood\.maps\.npz does not hold the maps .* --save-maps"):
        saved_maps.load(tmp_path, record, ["a.png"])
