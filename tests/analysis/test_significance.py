"""Ranks, tests and differences against scipy, statsmodels and published examples."""

from __future__ import annotations

import csv
import io
import re
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from zsadbench.analysis import significance
from zsadbench.analysis.differences import compare
from zsadbench.analysis.significance import NothingToCompare, analyse, holm
from zsadbench.errors import MissingDependency, RecordError, UnknownName
from zsadbench.records.results import Record
from zsadbench.tables import significance as significance_tables


def record(method: str, place: str, value: float | None, **setting: Any) -> Record:
    dataset, _, category = place.partition("/")
    metrics = dict.fromkeys(("auroc", "f1_max", "ap"), value)
    return Record(
        method, dataset, category, "done", title=method.upper(), image=metrics, pixel=metrics | {"aupro": value},
        setting={"scope": "image", "shots": 0, "trained_on": [], "leak": False} | setting,
    )  # fmt: skip


def grid(values: np.ndarray, places: list[str] | None = None) -> list[Record]:
    """Records of methods a, b, c, ... (columns) in some places (rows)."""
    places = places or [f"mvtec/{i}" for i in range(len(values))]
    return [
        record("abcdefgh"[column], place, float(value))
        for place, row in zip(places, values, strict=True)
        for column, value in enumerate(row)
    ]


VALUES = np.random.default_rng(0).normal((0.5, 0.6, 0.7, 0.6), 0.1, (8, 4))


def test_average_ranks_and_tests_agree_with_scipy():
    found = analyse(grid(VALUES), "image", "auroc")
    ranks = stats.rankdata(-VALUES, axis=1).mean(axis=0)
    order = np.argsort(ranks, kind="stable")
    assert [name.cli for name in found.names] == ["abcd"[i] for i in order]
    assert found.average_ranks == pytest.approx(ranks[order])
    friedman = stats.friedmanchisquare(*VALUES.T)
    assert found.tests is not None
    assert (found.tests.friedman, found.tests.friedman_p) == pytest.approx((friedman.statistic, friedman.pvalue))
    p = [[stats.wilcoxon(VALUES[:, i] - VALUES[:, j]).pvalue if i != j else 1 for j in order] for i in order]
    assert p[0][3] == np.min(p), "this pair is the clearest, so that Holm multiplies it by the number of pairs"
    assert found.tests.wilcoxon_p[0, 3] == found.tests.wilcoxon_p[3, 0] == pytest.approx(min(1, 6 * p[0][3]))
    assert (found.tests.nemenyi_p >= 0).all() and (np.diag(found.tests.nemenyi_p) == 1).all()


def test_the_critical_difference_is_the_one_of_demsars_example():
    values = np.random.default_rng(1).random((14, 4))
    tests = analyse(grid(values), "image", "auroc").tests
    assert tests is not None
    assert tests.critical_difference == pytest.approx(1.25, abs=0.005)  # Demsar, JMLR 7 (2006), §3.2.4
    ranks = analyse(grid(values), "image", "auroc").average_ranks
    apart = np.abs(ranks[:, None] - ranks) > tests.critical_difference
    assert (apart == (tests.nemenyi_p < significance.ALPHA)).all()


def test_holm_by_hand_and_by_statsmodels():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    p = np.random.default_rng(0).random(40) ** 4
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])


def test_groups_are_the_longest_runs_that_are_not_told_apart():
    p = np.ones((4, 4))
    p[0, 2:] = p[2:, 0] = p[1, 3] = p[3, 1] = 0.01
    assert significance._alike(p) == [(0, 1), (1, 2), (2, 3)]
    assert significance._alike(np.ones((3, 3))) == [(0, 2)]
    assert significance._alike(np.eye(3)) == []


def test_equal_methods_share_a_rank_and_are_never_told_apart():
    found = analyse(grid(np.repeat(VALUES[:, :1], 3, axis=1)), "image", "auroc")
    assert found.average_ranks == pytest.approx([2, 2, 2])
    assert found.tests is not None and found.tests.friedman is None
    assert (found.tests.wilcoxon_p == 1).all() and found.tests.groups() == [(0, 2)]


def test_two_methods_have_no_friedman_test():
    tests = analyse(grid(VALUES[:, :2]), "image", "auroc").tests
    assert tests is not None and tests.friedman_p is None
    assert tests.wilcoxon_p[0, 1] == pytest.approx(stats.wilcoxon(VALUES[:, 0], VALUES[:, 1]).pvalue)


def test_equal_differences_are_tested_nearly_as_by_permutation():
    differences = np.array([0.1, 0.1, 0.2, 0.3, -0.1, 0.0, 0.4, 0.5, 0.6, 0.2])
    exact = stats.wilcoxon(differences, zero_method="zsplit", method=stats.PermutationMethod()).pvalue
    assert significance._wilcoxon(differences) == pytest.approx(exact, rel=0.25)


def test_datasets_are_the_blocks_where_there_are_enough_of_them():
    places = [f"{name}/{category}" for name in ("btad", "mpdd", "mvtec", "sdd", "visa") for category in "xy"]
    found = analyse(grid(np.tile(VALUES[:5], (2, 1)), places), "pixel", "aupro")
    assert (found.kind, found.blocks) == ("dataset", ("btad", "mpdd", "mvtec", "sdd", "visa"))
    means = np.tile(VALUES[:5], (2, 1)).reshape(5, 2, 4).mean(axis=1)
    assert sorted(found.values.ravel()) == pytest.approx(sorted(means.ravel()))


def over_two(name: str, preset: str, value: float, **facts: Any) -> list[Record]:
    """Records of a method that runs on VisA under another preset than on MVTec AD."""
    return [
        replace(record(method, f"{dataset}/{i}", value + i / 100), changed={}, title=name.upper(), **options)
        for method, dataset, options in ((name, "mvtec", {}), (f"{name}.{preset}", "visa", facts))
        for i in range(3)
    ]


def test_a_method_is_one_over_datasets_though_its_preset_is_the_one_that_suits_each():
    records = [
        *over_two("april_gan", "mvtec", 0.7, options={"trained_on": "mvtec"}),  # weights of another dataset
        *over_two("clip_ad", "sdp_rvs_visa", 0.6, options={"dbscan_eps": 1.5}),  # what the paper used there
        *over_two("winclip", "1shot", 0.8, setting={"shots": 1}),  # something else
    ]
    with pytest.raises(NothingToCompare, match=r"for all of .*winclip, winclip\.1shot"):
        analyse(records, "image", "auroc")
    found = analyse([one for one in records if not one.method.startswith("winclip")], "image", "auroc")
    assert [name.title for name in found.names] == ["APRIL_GAN", "CLIP_AD"] and len(found.blocks) == 6
    text = significance_tables.render([one for one in records if "winclip" not in one.method], Fake())
    assert "### Average ranks, 0-shot" in text
    assert "- CLIP_AD is clip_ad on mvtec; clip_ad.sdp_rvs_visa on visa." in text


def test_two_presets_on_one_dataset_are_two_methods():
    both = [
        replace(one, dataset="btad") for one in over_two("april_gan", "mvtec", 0.7, options={"trained_on": "mvtec"})
    ]
    found = analyse(both, "image", "auroc")
    assert sorted(name.cli for name in found.names) == ["april_gan", "april_gan.mvtec"]


def test_too_few_blocks_have_ranks_and_no_test():
    found = analyse(grid(VALUES[:4]), "image", "auroc")
    assert found.kind == "category" and found.tests is None
    text = significance_tables.render(grid(VALUES[:4]), Fake())
    assert "No test of ranks is made over fewer than 5 categories" in text
    assert "Friedman" not in text


def test_categories_that_some_method_lacks_and_leaked_rows_are_left_out():
    records = [*grid(VALUES), record("a", "mvtec/extra", 0.5), record("leaky", "mvtec/0", 0.99, leak=True)]
    records += [record(name, "mvtec/undefined", None) for name in "abcd"]
    found = analyse(records, "image", "auroc")
    assert found.left_out == ("mvtec/extra", "mvtec/undefined")
    assert len(found.blocks) == 8 and len(found.names) == 4


@pytest.mark.parametrize(
    ("records", "sentence"),
    [
        ([], "finished results of 0 methods"),
        ([record("a", "mvtec/x", 0.5)], "finished results of 1 methods on mvtec"),
        ([record("a", "mvtec/x", 0.5), record("b", "mvtec/y", 0.5)], "no category has image auroc for all of a, b"),
    ],
)
def test_nothing_to_compare_is_an_error_with_the_next_step(records, sentence):
    with pytest.raises(NothingToCompare, match=sentence):
        analyse(records, "image", "auroc")


@pytest.mark.parametrize(
    ("level", "metric", "sentence"),
    [
        ("image", "aurocs", "Unknown image metric 'aurocs'. Did you mean 'auroc'"),
        ("image", "aupro", "Unknown image metric 'aupro'"),
        ("images", "auroc", "Unknown level 'images'. Did you mean 'image'"),
    ],
)
def test_an_unknown_metric_is_called_so(level, metric, sentence):
    with pytest.raises(UnknownName, match=re.escape(sentence)):
        analyse(grid(VALUES), level, metric)


def test_protocols_are_not_mixed():
    other = Record("b", "mvtec", "x", "done", image={"auroc": 0.5}, protocol={"eval_size": 256})
    with pytest.raises(RecordError, match="eval_size"):
        analyse([record("a", "mvtec/x", 0.5), other], "image", "auroc")


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "scikit_posthocs", None)
    with pytest.raises(MissingDependency, match=r'pip install "zsadbench\[report\]"'):
        analyse(grid(VALUES), "image", "auroc")


class Fake:
    """Replicates of a row: its mean plus noise that is the same for every method, and a little of its own."""

    def replicates(self, records, column):
        shared, own = (np.random.default_rng(seed).normal(size=500) for seed in (0, ord(records[0].method[0])))
        mean = np.mean([getattr(record, column[0])[column[1]] for record in records])
        return mean + 0.2 * shared + 0.01 * own


def test_differences_are_paired_and_corrected():
    values = np.array([[0.5, 0.525, 0.9], [0.5, 0.525, 0.9]])
    found = compare(grid(values), Fake(), "mvtec", "image", "auroc")
    assert [name.cli for name in found.names] == ["c", "b", "a"]
    assert found.points[0] == pytest.approx([0, 37.5, 40])
    a, b = (Fake().replicates([record(name, "mvtec/x", 0)], ("image", "auroc")) for name in "ab")
    wanted = 2 * stats.norm.sf(0.025 / np.std(b - a, ddof=1))
    assert found.p[1, 2] == pytest.approx(wanted), "the largest of three p values stays as it is"
    assert 0.01 < wanted < 0.2, "noise that both methods share does not count"
    assert found.p[0, 2] < 1e-9


def test_methods_that_agree_on_every_image_have_p_one():
    class Same:
        def replicates(self, records, column):
            return np.linspace(0, 1, 50)

    assert compare(grid(np.full((2, 2), 0.5)), Same(), "mvtec", "image", "auroc").p.tolist() == [[1, 1], [1, 1]]


def test_the_markdown_shows_ranks_tests_and_differences():
    records = [*grid(VALUES), record("a", "visa/x", 0.5), record("leaky", "mvtec/0", 0.99, leak=True)]
    text = significance_tables.render(records, Fake())
    assert "| Friedman, p " in text and "critical difference" in text
    assert "### MVTec AD, 0-shot: differences in pixel AU-PRO" in text
    assert "Holm-corrected for 6 pairs" in text and "**" in text
    assert "### VisA" not in text, "one method has nothing to be compared with"
    assert "got finished results of 1 methods on visa" in text
    assert "because the checkpoint was trained on the dataset: leaky on mvtec" in text
    assert re.search(r"Wilcoxon's test, Holm-corrected, tells \d of 6 pairs apart", text)


def test_methods_are_compared_with_those_of_their_setting_alone():
    records = [
        record(name, f"mvtec/{i}", value + i / 100, **setting)
        for i in range(6)
        for name, value, setting in (
            ("a", 0.5, {}), ("b", 0.4, {"image_scope": "category"}), ("c", 0.9, {"scope": "category"}),
            ("d", 0.8, {"scope": "category"}), ("e", 0.7, {"shots": 1}),
        )
    ]  # fmt: skip
    text = significance_tables.render(records, Fake())
    assert re.findall("### (Average ranks.*)", text) == ["Average ranks, 0-shot", "Average ranks, 0-shot, transductive"]
    first = text[text.index("### Average") : text.index("transductive\n")]
    assert re.findall(r"(?m)^\| ([A-E]) ", first) == ["A", "B"] and "over 6 categories, among methods of this" in first
    assert "1-shot: got finished results of 1 methods on mvtec" in text
    rows = list(csv.DictReader(io.StringIO(significance_tables.render(records, Fake(), "csv"))))
    assert {(row["method"], row["other"]) for row in rows if row["test"] == "nemenyi"} == {("a", "b"), ("c", "d")}
    assert {row["setting"] for row in rows if row["test"] == "critical_difference"} == {
        "0-shot",
        "0-shot, transductive",
    }
    assert [one.method for one in significance.largest_setting(records)[:2]] == ["a", "b"]
    with pytest.raises(NothingToCompare, match=r"compared with those of their setting. 0-shot: got .* 1-shot: got"):
        significance_tables.render([one for one in records if one.method in "ae"], Fake())


def test_the_csv_has_every_metric_and_pair_at_full_precision():
    rows = list(csv.DictReader(io.StringIO(significance_tables.render(grid(VALUES), Fake(), "csv"))))
    count = {test: sum(row["test"] == test for row in rows) for test in {row["test"] for row in rows}}
    assert count == {
        "average_rank": 28, "friedman": 7, "critical_difference": 7, "nemenyi": 42, "wilcoxon_holm": 42,
        "bootstrap_holm": 42,
    }  # fmt: skip
    found = analyse(grid(VALUES), "pixel", "ap")
    rank = next(row["value"] for row in rows if row["metric"] == "ap" and row["level"] == "pixel")
    assert float(rank) == found.average_ranks[0]


def test_latex_escapes_names():
    text = significance_tables.render(
        [record("a_b", f"mvtec/{i}", 0.5) for i in range(2)] + [record("c", f"mvtec/{i}", 0.6) for i in range(2)],
        Fake(),
        "latex",
    )
    assert text.count(r"\begin{tabular}{@{}llrr@{}}") == 2
    assert "\n" + r"1 C & 0-shot & 60.0 & \textbf{10.0} \\" + "\n" + r"2 A\_B & 0-shot & 50.0 &  \\" in text
