"""Records, scores and cards that anybody may have written, and texts in them that command a terminal or a sheet."""

import csv
import hashlib
import io
import json
import os
import re
import stat
from base64 import b64encode

import hostile
import pytest
from hostile import CARD, record

from zsadbench.analysis.rows import arrange
from zsadbench.cli import options
from zsadbench.errors import RecordError, WeightsError
from zsadbench.records import reading, results
from zsadbench.records.record import ImageScore
from zsadbench.records.results import MEAN
from zsadbench.running import resume
from zsadbench.support import documents, texts
from zsadbench.tables import quality, sheet
from zsadbench.training import checkpoints


@pytest.mark.parametrize("harm", hostile.of_records().values(), ids=hostile.of_records())
def test_a_record_that_cannot_be_true_is_left_out_by_name_and_the_others_print(tmp_path, harm):
    for category in ("bad", "good"):
        results.save(tmp_path, record(category))
    harm(tmp_path / "d/m/bad.json")
    with pytest.raises(RecordError, match=r"d/m/bad\.json is not a zsadbench record: .+\. Delete it"):
        results.load(tmp_path / "d/m/bad.json")
    with pytest.warns(UserWarning, match=r"a record is left out: .*bad\.json") as told:
        (left,) = results.load_run(tmp_path)
    assert left.category == "good" and "75.0" in quality.render([left]) and len(str(told[0].message)) < 500


def test_a_run_in_which_nothing_can_be_read_is_an_error(tmp_path):
    results.save(tmp_path, record())
    (tmp_path / "d/m/bad.json").write_text("[]")
    with pytest.raises(
        RecordError, match=r"bad\.json is not a zsadbench record: the whole is \[\]; expected an object"
    ):
        results.load_run(tmp_path)


def test_a_record_says_what_is_wrong_with_it_and_where(tmp_path):
    results.save(tmp_path, record())
    hostile.edited(hostile.RECORDS["a metric of 2"])(tmp_path / "d/m/bad.json")
    with pytest.raises(RecordError, match=r"image\.auroc is 2\.0; expected 0\.\.1 or null"):
        results.load(tmp_path / "d/m/bad.json")
    for edit, words in {"shots in words": 'setting.shots is "many"; expected a whole number', "a metric in words":
                        'image.auroc is "0.9"; expected a number or null'}.items():  # fmt: skip
        results.save(tmp_path, record())
        hostile.edited(hostile.RECORDS[edit])(tmp_path / "d/m/bad.json")
        with pytest.raises(RecordError, match=re.escape(words)):
            results.load(tmp_path / "d/m/bad.json")


def test_a_record_that_may_not_be_read_is_not_to_be_deleted_and_never_replaced(tmp_path, monkeypatch):
    path = results.path_of(tmp_path, results.save(tmp_path, record()))

    def refuse(path, *_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(documents.os, "open", refuse)
    with pytest.raises(RecordError, match=r"bad\.json cannot be read: Permission denied\. Check who may read it\.$"):
        results.load(path)
    cell = {"method": "m", "dataset": "d", "category": "bad"}
    with pytest.raises(results.Unreadable):
        resume.look(path, {"cell": cell}, None)


@pytest.mark.parametrize(
    "line",
    ["a.png,2,,0.5", "a.png,0,,nan", "a.png,0,,inf", "a.png,0", "a.png,x,,1", "b.png,1,,0.5", f"{'a' * 200_000},0,,1"],
)
def test_scores_of_a_stranger_are_checked_even_if_its_record_vouches_for_them(tmp_path, line):
    good = results.encode_scores([ImageScore("b.png", 1, "dent", 0.5)])
    assert reading.scores(good) == [ImageScore("b.png", 1, "dent", 0.5)]
    saved = results.save(tmp_path, record(), {results.SCORES: good + line.encode()})
    with pytest.raises(RecordError, match=r"bad\.csv is not a scores file"):
        results.load_scores(tmp_path, saved)


def test_a_pipe_beside_a_record_does_not_stop_the_reader(tmp_path):
    saved = results.save(tmp_path, record(), {results.SCORES: results.encode_scores([])})
    (tmp_path / "d/m/bad.csv").unlink()
    os.mkfifo(tmp_path / "d/m/bad.csv")
    with pytest.raises(RecordError, match="no file but a folder, a pipe"):
        results.load_scores(tmp_path, saved)


@pytest.mark.parametrize("harm", hostile.of_cards().values(), ids=hostile.of_cards())
def test_a_card_that_cannot_be_true_is_a_sentence_and_other_checkpoints_are_found(tmp_path, harm):
    for name in ("bad", "good"):
        checkpoints.save(tmp_path / name, {}, CARD)
    harm(tmp_path / "bad/card.json")
    with pytest.raises(WeightsError, match=r"bad/card\.json is no card of a checkpoint: .+\. Delete the"):
        checkpoints.read_card(tmp_path / "bad")
    shelf = checkpoints.Shelf(tmp_path)
    found = [folder for folder in shelf._cards if folder.parent == tmp_path]  # beside those that ship
    assert found == [tmp_path / "good"] and len(shelf.notes) == 1


def test_records_and_checkpoints_obey_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        saved = results.save(tmp_path, record(), {results.SCORES: b"", results.PIXELS: b""})
        checkpoints.save(tmp_path / "c", {}, CARD)
    finally:
        os.umask(before)
    written = [results.path_of(tmp_path, saved), *tmp_path.glob("d/m/*"), *tmp_path.glob("c/*")]
    assert len(written) == 6 and {stat.S_IMODE(path.stat().st_mode) for path in written} == {0o640}


def test_a_category_called_mean_is_not_the_mean_of_all():
    records = [record("mean", image={"auroc": 1.0}), record("alpha", image={"auroc": 0.0})]
    (table,) = arrange(records, "category", {}, None)
    found = {line.category: line.values["image", "auroc"].percent for line in table.lines}
    assert found == {"alpha": 0.0, "mean": 100.0, MEAN: 50.0}
    rows = list(csv.DictReader(io.StringIO(quality.render(records, "csv", "category", cards={}))))
    auroc = {
        row["category"]: float(row["value"]) for row in rows if row["metric"] == "auroc" and row["level"] == "image"
    }
    assert auroc == {"alpha": 0.0, "mean (category)": 100.0, "mean": 50.0}
    assert re.search(r"\| mean \(category\) +\|.*100", quality.render(records, "md", "category", cards={}))


NAMES = {
    "\x1b[31mred\x1b]0;title\x07": r"\x1b[31mred\x1b]0;title\x07",
    "a\u202egnp": r"a\u202egnp",
    "\udcff": r"\udcff",
}


@pytest.mark.parametrize(("name", "shown"), NAMES.items())
def test_names_from_files_command_no_terminal(capsys, name, shown):
    options.say(f"Error: {name}\nand\tmore")
    options.show(name)
    told = capsys.readouterr()
    assert (told.err, told.out) == (f"Error: {shown}\nand\tmore\n", f"{shown}\n")
    assert shown in sheet.tidy_csv(["a"], [[name]])


@pytest.mark.parametrize("name", ["=1+1", "+1+1", "-1+1", "@SUM(A1)", '=HYPERLINK("x")', "\t=1", " =1"])
def test_a_spreadsheet_finds_no_formula_in_a_name_and_numbers_stay_numbers(name):
    (row,) = list(csv.reader(io.StringIO(sheet.tidy_csv(["a", "b", "c", "d"], [[name, -1.5, "-1.5", "a-b"]]))))[1:]
    assert row == [f"'{name}", "-1.5", "-1.5", "a-b"] or row[0] == texts.no_formula(texts.printable(name))
    assert row[0].startswith("'") and row[1:] == ["-1.5", "-1.5", "a-b"]


def test_nothing_runs_in_a_report_but_its_own_script():
    pytest.importorskip("jinja2", reason="reports need the extra `report`")
    from zsadbench.report import page
    from zsadbench.report.content import Content
    from zsadbench.report.grids import Grid

    content = Content("\x1b[31m", [], [], [], Grid((), ()), Grid((), ()), {})
    text = page.render(content)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    for kind in ("script", "style"):
        (inline,) = re.findall(rf"<{kind}>(.*?)</{kind}>", text, re.DOTALL)
        assert f"{kind}-src 'sha256-{b64encode(hashlib.sha256(inline.encode()).digest()).decode()}'" in policy
    assert "unsafe-inline" not in policy and "style=" not in text and "\x1b" not in text


def test_json_of_strangers_is_read_strictly():
    assert documents.parse('{"a": [1, -2.5, "\\u00e9", null]}') == {"a": [1, -2.5, "é", None]}
    for text in ("NaN", "-Infinity", "1e999", '{"a": 1, "a": 1}', '"\\ud800"', "{", str(10**30)):
        with pytest.raises(documents.Malformed):
            documents.parse(text)
    with pytest.raises(documents.Malformed, match="a key twice"):
        documents.parse(json.dumps({"b": 0})[:-1] + ', "b": 1}')
