"""Tables: golden texts from records with readable values, ranks, gaps, refusals, and the published numbers beside."""

from __future__ import annotations

import csv
import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zsadbench.analysis.rows import check_protocols, name_methods
from zsadbench.datasets import DatasetCard
from zsadbench.errors import RecordError, UnknownName
from zsadbench.metrics import columns
from zsadbench.records.published import Library
from zsadbench.records.results import Record
from zsadbench.tables import quality
from zsadbench.tables.sheet import SECTION

PROTOCOL = {"eval_size": "input", "mask_rule": "bilinear_half", "aupro_limit": 0.3, "seed": 0, "limit": None}
ENCODER = {"spec": "open_clip:ViT-B-16-plus-240/laion400m_e31", "size": 240, "activation": "gelu", "precision": "fp32"}
NAMES = ("auroc", "f1_max", "ap", "aupro")
COLUMN_NAMES = [" ".join(column) for column in columns()]


def record(method: str = "winclip", category: str = "bottle", auroc: float | None = 0.9, **changes: Any) -> Record:
    """Return a finished cell of mvtec whose metrics are all `auroc`."""
    metrics = dict.fromkeys(NAMES, auroc)
    facts: dict[str, Any] = {
        "dataset": "mvtec",
        "status": "done",
        "title": method.partition(".")[0].upper(),
        "image": {name: metrics[name] for name in NAMES[:3]},
        "pixel": metrics,
        "setting": {"scope": "image", "shots": 0, "trained_on": [], "leak": False},
        "protocol": PROTOCOL,
        "encoder": ENCODER,
        "changed": {},
    }
    return Record(method=method, category=category, **(facts | changes))


def setting(**changes: Any) -> dict[str, Any]:
    return {"scope": "image", "shots": 0, "trained_on": [], "leak": False} | changes


def unfinished(method: str, category: str, status: Any, error: str) -> Record:
    return Record(method, "mvtec", category, status, error=error, title=method.upper())


def markdown(*records: Record, **options: Any) -> str:
    return quality.render(records, cards={}, **options)


def cells(text: str) -> dict[str, list[str]]:
    """Return the numeric cells of each row of the only table of a Markdown text, by method."""
    lines = [line for line in text.splitlines() if line.startswith("|")][2:]
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return {row[0]: row[3:] for row in rows}


def test_markdown_table_of_two_methods_reads_like_this() -> None:
    one = [
        record("a", "bottle", pixel={"auroc": 0.8, "f1_max": 0.3, "ap": 0.25, "aupro": 0.7}),
        record("a", "cable", 0.8, pixel={"auroc": 0.9, "f1_max": 0.4, "ap": 0.35, "aupro": None}),
    ]
    two = [
        record("b", "bottle", 0.7, setting=setting(trained_on=["visa"])),
        record("b", "cable", 0.95, setting=setting(trained_on=["visa"])),
    ]
    wanted = """
### mvtec

| Method   | Setting   | Trained on   |   image AUROC |   image F1-max |    image AP |   pixel AUROC |   pixel F1-max |    pixel AP |   pixel AU-PRO |
|:---------|:----------|:-------------|--------------:|---------------:|------------:|--------------:|---------------:|------------:|---------------:|
| A        | 0-shot    | –            |      **85.0** |       **85.0** |    **85.0** |      **85.0** |    <u>35.0</u> | <u>30.0</u> |  70.0 [1 of 2] |
| B        | 0-shot    | visa         |   <u>82.5</u> |    <u>82.5</u> | <u>82.5</u> |   <u>82.5</u> |       **82.5** |    **82.5** |           82.5 |

- Percent, unweighted means over categories. Best bold, second underlined, among rows of one setting that cover the same categories. [k of n]: the mean is over k of the n categories; for the others it is undefined or not done.
- Protocol: eval_size input, mask_rule bilinear_half, aupro_limit 0.3, seed 0.
- Encoder open_clip:ViT-B-16-plus-240/laion400m_e31, 240 px, gelu, fp32: A, B.
"""  # noqa: E501  # a golden table is as wide as it is
    assert markdown(*one, *two) == wanted.lstrip("\n")


def test_category_table_has_one_row_per_category_and_the_mean_last() -> None:
    text = markdown(record(category="cable", auroc=0.7), record(category="bottle", auroc=0.8), level="category")
    firsts = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("|")]
    assert [firsts[0], *firsts[2:]] == ["Category", "bottle", "cable", "mean"]
    assert text.count(" 75.0 ") == 7


def test_csv_is_tidy_and_keeps_every_digit() -> None:
    third = 1 / 3
    text = quality.render([record(auroc=third)], format="csv", cards={})
    first, *lines = text.splitlines()
    assert first == (
        "method,dataset,category,level,metric,value,n_defined,n_total,setting,scope,trained_on,published,source,differs"
    )
    assert lines[0] == f"winclip,mvtec,mean,image,auroc,{100 * third!r},1,1,0-shot,image,,,,"
    assert len(lines) == 7


def test_csv_reads_back_as_the_rows_it_was_made_of() -> None:
    records = [record(auroc=1 / 7), record(category="cable", auroc=None), record("b, c", auroc=0.5, title='"B"')]
    rows = quality.rows(records, cards={}, library=Library.read())
    text = quality.render(records, "csv", "category", published=True, cards={})
    read = [
        quality.Number(
            **row
            | {name: float(row[name]) if row[name] else None for name in ("value", "published")}
            | {name: int(row[name]) for name in ("n_defined", "n_total")}
        )
        for row in csv.DictReader(io.StringIO(text))
    ]
    assert read == rows
    assert any(row.value is None for row in rows)
    assert any(row.published for row in rows)


def test_ties_share_a_rank_and_the_next_value_is_second() -> None:
    found = cells(
        markdown(record("a", auroc=0.9), record("b", auroc=0.9), record("c", auroc=0.8), record("d", auroc=0.7))
    )
    assert [found[name][0] for name in "ABCD"] == ["**90.0**", "**90.0**", "<u>80.0</u>", "70.0"]


def test_ranks_compare_unrounded_values() -> None:
    found = cells(markdown(record("a", auroc=0.90001), record("b", auroc=0.90002)))
    assert (found["A"][0], found["B"][0]) == ("<u>90.0</u>", "**90.0**")


def test_a_single_row_has_no_rank() -> None:
    assert cells(markdown(record()))["WINCLIP"] == ["90.0"] * 7


def test_settings_are_ranked_apart_and_named() -> None:
    found = markdown(
        record("a", auroc=0.5),
        record("b", auroc=0.6),
        record("c", auroc=0.9, setting=setting(shots=4)),
        record("d", auroc=0.95, setting=setting(scope="batch")),
        record("e", auroc=0.96, setting=setting(scope="category")),
    )
    assert [cells(found)[name][0] for name in "ABCDE"] == ["<u>50.0</u>", "**60.0**", "90.0", "95.0", "96.0"]
    assert re.findall(r"\| (\d-shot[^|]*?) *\|", found) == [
        "0-shot",
        "0-shot",
        "4-shot",
        "0-shot, batch",
        "0-shot, transductive",
    ]
    assert "transductive: they see the whole test category" in found


def test_image_scores_that_are_scaled_over_the_category_stand_with_a_mark_in_their_setting() -> None:
    scaled = setting(image_scope="category")
    records = [record("a", auroc=0.5), record("b", auroc=0.9, setting=scaled), record("c", auroc=0.6)]
    found = markdown(*records)
    assert [cells(found)[name][0] for name in ("A", f"B {SECTION}", "C")] == ["50.0", "**90.0**", "<u>60.0</u>"]
    assert f"- {SECTION} Image scores are scaled over the whole test category, as in the method's code" in found
    assert "transductive" not in found and SECTION not in markdown(*records[::2])
    rows = [row for row in quality.rows(records, cards={}) if row.method == "b" and row.category == "mean"]
    assert {(row.level, row.scope) for row in rows} == {("image", "category"), ("pixel", "image")}


def test_a_record_that_knows_one_scope_alone_is_read_with_it() -> None:
    """As versions before 0.2 wrote them."""
    found = markdown(record("a", setting=setting(scope="category")), record("b", setting=setting(scope="image")))
    assert "| 0-shot, transductive |" in found and SECTION not in found


def test_a_leaking_row_is_marked_and_not_ranked() -> None:
    text = markdown(
        record("a", auroc=0.5),
        record("b", auroc=0.6),
        record("c", auroc=0.99, setting=setting(trained_on=["mvtec"], leak=True)),
    )
    found = cells(text)
    assert (found["A"][0], found["B"][0], found["C †"][0]) == ("<u>50.0</u>", "**60.0**", "99.0")
    assert "- † The checkpoint was trained on this dataset" in text


def test_an_undefined_metric_is_a_dash_never_a_number() -> None:
    found = cells(markdown(record(image=dict.fromkeys(NAMES[:3]))))
    assert found["WINCLIP"][:3] == ["–", "–", "–"]


def test_a_metric_undefined_for_the_same_category_everywhere_is_ranked_and_counted() -> None:
    pairs = [record(name, category, value) for name in "ab" for category, value in (("bottle", 0.5), ("cable", None))]
    pairs[2] = record("b", "bottle", 0.6)
    found = cells(markdown(*pairs))
    assert (found["A"][0], found["B"][0]) == ("<u>50.0</u> [1 of 2]", "**60.0** [1 of 2]")


def test_means_over_different_categories_are_not_ranked() -> None:
    text = markdown(record("a", "bottle", 0.9), record("b", "bottle", 0.5), record("b", "cable", 0.6))
    found = cells(text)
    assert (found["A [1 of 2 categories]"][0], found["B"][0]) == ("90.0", "55.0")
    assert "[k of n]" in text


def test_the_dataset_card_knows_the_categories_that_nobody_ran() -> None:
    card = DatasetCard(
        "MVTec AD", "industrial", "", "", "", True, True, expected={"bottle": (1, 1), "cable": (1, 1), "pill": (1, 1)}
    )
    text = quality.render([record()], cards={"mvtec": card})
    assert text.startswith("### MVTec AD\n")
    assert "WINCLIP [1 of 3 categories]" in text


def test_limited_runs_say_so() -> None:
    assert "At most 4 images per category were used" in markdown(record(protocol=PROTOCOL | {"limit": 4}))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"encoder": ENCODER | {"spec": "demo"}}, "Made with the encoder demo: the numbers mean nothing"),
        ({"dataset": "demo"}, "Made with the dataset demo: the numbers mean nothing"),
    ],
)
def test_demo_numbers_say_that_they_mean_nothing(changes: dict[str, Any], sentence: str) -> None:
    assert sentence in markdown(record(**changes))
    assert "mean nothing" not in markdown(record())


def test_a_method_without_weights_reads_needs_a_checkpoint_with_the_reason_below() -> None:
    text = markdown(record(), unfinished("adaclip", "bottle", "needs_checkpoint", "Give --checkpoint adaclip=PATH."))
    assert cells(text)["ADACLIP"] == ["needs a checkpoint", *["–"] * 6]
    assert "- adaclip on bottle: needs a checkpoint. Give --checkpoint adaclip=PATH." in text


def test_what_a_card_says_is_told_below_the_table_once() -> None:
    facts = {"notes": "No reproduction of the paper."}
    text = markdown(
        record("a", **facts), record("a", "cable", **facts), record("b", **facts), record("c", notes="Ours.")
    )
    assert text.endswith("- About A, B: No reproduction of the paper.\n- About C: Ours.\n")
    assert "About" not in markdown(record())


def test_a_bug_is_told_in_one_line_that_says_where_the_traceback_is() -> None:
    error = "ValueError: no (at methods/m6.py:27)\nTraceback (most recent call last):\n  File ...\nValueError: no"
    text = markdown(record(), unfinished("m6", "bottle", "failed", error))
    note = next(line for line in text.splitlines() if line.startswith("- m6"))
    assert note == "- m6 on bottle: failed. ValueError: no (at methods/m6.py:27). Its traceback stands in mvtec/m6/."


def test_failed_cells_are_listed_once_per_reason() -> None:
    bad = [unfinished("winclip", name, "failed", "CUDA out of memory.") for name in ("cable", "pill")]
    text = markdown(record(), *bad, *bad)
    assert "- winclip on cable, pill: failed. CUDA out of memory." in text
    assert "WINCLIP [1 of 3 categories]" in text


def test_a_cell_that_another_run_finished_is_not_called_failed() -> None:
    assert "failed" not in markdown(unfinished("winclip", "bottle", "failed", "Disk full."), record())


def test_a_table_of_failures_alone_has_no_numbers() -> None:
    text = markdown(unfinished("a", "bottle", "failed", "Disk full."), unfinished("a", "cable", "refused", "It leaks."))
    assert cells(text)["A"] == ["failed", *["–"] * 6]


@pytest.mark.parametrize(
    ("field", "value"), [("eval_size", 256), ("mask_rule", "nearest"), ("aupro_limit", 0.05), ("seed", 1), ("limit", 8)]
)
def test_protocols_are_never_mixed(field: str, value: object) -> None:
    with pytest.raises(RecordError) as error:
        markdown(record(), record("musc", "cable", protocol=PROTOCOL | {field: value}))
    assert f"{field} is {PROTOCOL[field]!r} and {value!r}" in str(error.value)
    assert "winclip on mvtec/bottle and musc on mvtec/cable" in str(error.value)


def test_precision_and_batch_sizes_may_differ() -> None:
    check_protocols(
        [record(), record("b", protocol=PROTOCOL | {"precision": "fp16", "batch_size": 1, "batch_images": 16})]
    )


def test_results_on_different_images_are_never_mixed() -> None:
    with pytest.raises(RecordError, match="winclip on mvtec/bottle and musc on mvtec/bottle saw different images"):
        markdown(record(data={"sha256": "1"}), record("musc", data={"sha256": "2"}))


def test_the_same_cell_with_two_results_is_refused() -> None:
    assert cells(markdown(record(), record()))["WINCLIP"][0] == "90.0"
    with pytest.raises(RecordError, match="winclip on mvtec/bottle stands twice"):
        markdown(record(), record(auroc=0.8))


def test_one_method_with_two_encoders_has_two_rows_that_say_what_differs() -> None:
    text = markdown(record(), record(auroc=0.8, encoder=ENCODER | {"size": 512}))
    assert {"WINCLIP [size=240]", "WINCLIP [size=512]"} == set(cells(text))
    assert "512 px, gelu, fp32: WINCLIP [size=512]." in text


def test_a_preset_stands_in_the_name() -> None:
    assert {name.title for name in name_methods([record("musc.pair"), record("musc")]).values()} == {
        "MUSC (pair)",
        "MUSC",
    }


def test_names_cannot_break_the_table() -> None:
    text = markdown(record(title="A|B & <i>c</i> *x* _y_ a_b 100% `z`", category="metal_nut"))
    assert r"| A\|B &amp; &lt;i&gt;c&lt;/i&gt; \*x\* \_y\_ a_b 100% \`z\` |" in text


def test_published_numbers_stand_in_brackets_with_their_source() -> None:
    text = markdown(record(), published=True)
    assert cells(text)["WINCLIP"][0] == "90.0 (91.8)"
    assert "WINCLIP: WinCLIP, CVPR 2023, arXiv 2303.14814 (caoyunkang-README-reported)" in text
    assert "(91.8)" not in markdown(record())


def test_published_numbers_are_never_ranked() -> None:
    found = cells(markdown(record("winclip", auroc=0.6), record("other", auroc=0.7), published=True))
    assert (found["WINCLIP"][0], found["OTHER"][0]) == ("<u>60.0</u> (91.8)", "**70.0**")


def test_a_published_mean_does_not_stand_beside_a_part_of_the_dataset() -> None:
    part = [record(), record("other", "cable")]
    limited = [record(protocol=PROTOCOL | {"limit": 4})]
    for records in (part, limited):
        assert "(91.8)" not in markdown(*records, published=True)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"changed": {"temperature": 0.07}, "options": {"temperature": 0.01}}, "temperature 0.01 instead of 0.07"),
        ({"changed": {"size": None}, "options": {"size": 480}}, "size 480 instead of None"),
        ({"changed": {"recipe": {"stages": []}}}, "another recipe"),
        ({"changed": None}, "a record that does not tell whether options were changed"),
        ({"protocol": PROTOCOL | {"limit": 8}}, "at most 8 images a category"),
        (
            {"details": {"normal": 19, "anomalous": 63}},
            "19 normal and 63 anomalous images of bottle instead of 20 and 63",
        ),
    ],
)
def test_a_published_number_does_not_stand_beside_another_configuration(changes: dict[str, Any], told: str) -> None:
    card = DatasetCard("MVTec AD", "industrial", "", "", "", True, True, expected={"bottle": (20, 63)})
    plain = quality.render([record()], published=True, cards={"mvtec": card})
    assert "90.0 (91.8)" in plain and "left out" not in plain
    text = quality.render([record(**changes)], published=True, cards={"mvtec": card})
    assert "(91.8)" not in text
    assert f"Published numbers are left out where a run is not what was printed: WINCLIP has {told}" in text


@pytest.mark.parametrize(
    ("field", "value", "marked"),
    [
        ("mask_rule", "nearest", {"pixel"}),
        ("native_masks", "gt0", {"pixel"}),
        ("eval_size", 256, {"pixel"}),
        ("aupro_limit", 0.05, {"pixel aupro"}),
        ("order", "dataset", set()),  # of images that are seen one at a time
        ("seed", 7, set()),
        ("precision", "bf16", set()),
    ],
)
def test_another_protocol_marks_the_published_numbers_that_depend_on_it(
    field: str, value: object, marked: set[str]
) -> None:
    rows = quality.rows([record(protocol=PROTOCOL | {field: value})], "dataset", cards={}, library=Library.read())
    told = {f"{row.level} {row.metric}" for row in rows if f"measured with {field} {value} instead of" in row.differs}
    assert told == {name for name in COLUMN_NAMES if name in marked or name.split()[0] in marked}
    assert all(row.published for row in rows)


def test_the_order_of_images_matters_where_they_see_each_other() -> None:
    facts = {"setting": setting(scope="batch"), "encoder": ENCODER | {"spec": "open_clip:ViT-L-14-336/openai"}}
    assert "90.0 (95.3)" in markdown(record("fiseclip", **facts), published=True)
    text = markdown(record("fiseclip", **facts, protocol=PROTOCOL | {"order": "dataset"}), published=True)
    assert "90.0 (95.3‡)" in text and "FISECLIP: measured with order dataset instead of shuffled" in text


def test_a_number_of_another_configuration_is_marked_and_explained() -> None:
    facts = {"setting": setting(shots=1), "encoder": ENCODER | {"spec": "open_clip:ViT-L-14-336/openai"}}
    text = markdown(record("patchcore", **facts), record(), published=True)
    assert cells(text)["PATCHCORE"][0] == "90.0 (86.3‡)" and cells(text)["WINCLIP"][0] == "90.0 (91.8)"
    note = next(line for line in text.splitlines() if line.startswith("- ‡ Published for what is not"))
    assert "PATCHCORE: the encoder of this row is not printed" in note
    assert "WideResNet50" in quality.render([record("patchcore", **facts)], "csv", published=True, cards={})
    assert r"\textsuperscript{\ddag}" in quality.render(
        [record("patchcore", **facts)], "latex", published=True, cards={}
    )


def test_weights_from_a_file_are_marked_because_nobody_knows_what_they_are() -> None:
    facts = {"encoder": ENCODER | {"spec": "open_clip:ViT-L-14-336/openai"}}
    ours = record("april_gan", setting=setting(trained_on=["visa"], checkpoint=""), **facts)
    given = record("april_gan", setting=setting(trained_on=["visa"], checkpoint="its weights are a file"), **facts)
    assert cells(markdown(ours, published=True))["APRIL_GAN"][0] == "90.0 (86.1)"
    text = markdown(given, published=True)
    assert cells(text)["APRIL_GAN"][0] == "90.0 (86.1‡)" and "APRIL_GAN: its weights are a file." in text


def test_no_published_number_is_said() -> None:
    assert "No published number has the same method" in markdown(record("other"), published=True)


def test_extra_metrics_get_a_column_of_their_own() -> None:
    text = markdown(record(pixel={"auroc": 0.5, "aupro_calpro200": 0.123}))
    assert "pixel aupro_calpro200" in text
    assert cells(text)["WINCLIP"][-1] == "12.3"


@pytest.mark.parametrize(
    ("options", "name"), [({"format": "html"}, "table format"), ({"level": "image"}, "table level")]
)
def test_unknown_formats_and_levels_are_named(options: dict[str, str], name: str) -> None:
    with pytest.raises(UnknownName, match=f"Unknown {name}"):
        markdown(record(), **options)


def test_no_records_is_an_error_with_the_next_step() -> None:
    with pytest.raises(RecordError, match="run `zsadbench run` first"):
        markdown()


metric = st.none() | st.floats(0, 1)
grids = st.dictionaries(
    st.sampled_from("abc"), st.dictionaries(st.sampled_from(["x", "y", "z"]), metric, min_size=1), min_size=1
)


@settings(deadline=None, max_examples=60)
@given(grids)
def test_every_number_in_markdown_is_the_rounded_mean_of_the_records(grid: dict[str, dict[str, float | None]]) -> None:
    records = [
        record(method, category, value)
        for method, by_category in grid.items()
        for category, value in by_category.items()
    ]
    for title, row in cells(markdown(*records)).items():
        defined = [value for value in grid[title[0].lower()].values() if value is not None]
        for cell in row:
            if not defined:
                assert cell == "–"
                continue
            shown = float(re.sub(r"\[.*\]|\*\*|</?u>", "", cell))
            assert shown == pytest.approx(100 * sum(defined) / len(defined), abs=0.05 + 1e-9)


def test_printing_tables_imports_no_torch() -> None:
    code = "import sys, zsadbench.tables.quality; sys.exit('torch' in sys.modules or 'pandas' in sys.modules)"
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
