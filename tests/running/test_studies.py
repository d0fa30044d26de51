"""Studies: every shipped file is sound, rows keep their own records, and numbers say where they come from."""

import csv
import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from commands import zsadbench
from toy_tree import write_tree

from zsadbench import methods
from zsadbench.errors import RecordError, UnknownName, UsageError, counted
from zsadbench.protocol import EvaluationProtocol
from zsadbench.records import published, results
from zsadbench.running import runner, studies
from zsadbench.running.progress import Silent
from zsadbench.running.request import Request
from zsadbench.tables import study as study_tables
from zsadbench.training import checkpoints
from zsadbench.training import job as training_job
from zsadbench.training.request import TrainRequest

ROOT = Path(__file__).parents[2]
NAMES = [study.name for study in studies.available()]
SMALL = """
title = "Two windows"
dataset = "mvtec"
[published]
source = "clip-ad"
table = "4"
method = "sdp"
[[rows]]
label = "Mean"
method = "clip_ad"
encoder = "tiny"
options = { rvs = "mean", image_score = "sum" }
variant = "rvs=mean"
[[rows]]
label = "Last block"
method = "clip_ad"
encoder = "tiny"
options = { used_stages = [4], rvs = "mean", image_score = "sum" }
"""


def study_file(folder: Path, text: str = SMALL, **changes: str) -> Path:
    for old, new in changes.values():
        assert text.count(old) >= 1
        text = text.replace(old, new, 1)
    path = folder / "small.toml"
    path.write_text(text)
    return path


def request(out: Path, **fields) -> Request:
    return Request(methods=(), datasets=fields.pop("datasets", ()), out=out, **fields)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The small study, run on a tree of two of MVTec AD's categories."""
    folder = tmp_path_factory.mktemp("study")
    write_tree(folder / "data" / "mvtec")
    study = studies.load(str(study_file(folder)))
    planned = studies.make_run(
        study, request(folder / "run", data_root=folder / "data", protocol=EvaluationProtocol(limit=4))
    )
    assert runner.run(planned.plan, planned.request, Silent()).failed == 0
    return planned


def numbers(text: str) -> dict[tuple[str, ...], float]:
    rows = csv.DictReader(io.StringIO(text))
    return {
        (row["row"], row["kind"], row["dataset"], row["category"], row["level"], row["metric"]): float(row["value"])
        for row in rows
    }


def test_the_studies_of_the_papers_are_there():
    clip_ad = {f"clip_ad_table{number}" for number in (4, 5, "5_plus", 6, 7, 8, "8_plus", 9, 10, 11, 12)}
    fiseclip = {f"fiseclip_table{number}" for number in (2, 3, 4, 5)}
    assert set(NAMES) == clip_ad | fiseclip | {"clip_ad_multi_crop", "dual_anchor_table3", "dual_anchor_table_s2"}


@pytest.mark.parametrize("name", NAMES)
def test_every_row_of_a_shipped_study_configures_and_its_options_change_something(name):
    study = studies.load(name)
    configured = [
        (row.dataset, methods.configure(row.method, row.encoder, row.options)[2]) for row in study.rows
    ]  # raises for a method, preset, option or value that does not exist
    assert len({str(one) for one in configured}) == len(configured), "two rows of a study are the same run"


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_study_shows_every_row_of_its_table_that_is_not_left_out(name):
    study = studies.load(name)
    printed = {
        (number.variant, number.dataset)
        for number in published.load()
        if (number.source, number.table, number.method) == (study.source, study.table, study.printed_method)
        and number.level in ("image", "pixel")
    }
    shown = {(row.variant, row.dataset) for row in study.rows if row.variant is not None}
    resnets = {("backbone=rn50", "mvtec"), ("backbone=rn101", "mvtec")}
    left_out = {
        "clip_ad_table7": {("unaligned", "headct"), ("unaligned", "brainmri"), ("unaligned", "clinicdb")},
        "clip_ad_table8": resnets,
        "clip_ad_table8_plus": resnets,
    }
    assert printed - shown == left_out.get(name, set())
    assert not left_out.get(name) or "left out" in study.notes, "what is left out is said"


def test_rows_that_differ_in_options_alone_keep_their_own_records(small):
    records = [record for job in small.jobs for record in small.records(job)]
    assert len(records) == 4, "two rows of two categories"
    by_row = {(str(record.options["used_stages"]), record.category): record.pixel["auroc"] for record in records}
    assert len(set(by_row.values())) == 4, "every row and category has numbers of its own"


def test_rows_are_variants_of_one_run_that_every_command_reads(small):
    assert len(small.plan.groups) == 1, "both rows have one encoder"
    done = zsadbench("table", small.request.out)
    assert done.returncode == 0 and done.stdout.count("CLIP-AD [encoder=tiny,") >= 2, done.stderr


def test_a_study_that_is_started_again_runs_nothing(small):
    again = planned_again(small)
    assert again.plan.cells == 0
    assert study_tables.render(again, "csv") == study_tables.render(small, "csv")


def test_only_the_missing_cells_of_a_study_run(small):
    lost = next(iter(small.request.out.glob("mvtec/clip_ad*/*.json")))
    before = lost.read_bytes()
    lost.unlink()
    again = planned_again(small)
    assert again.plan.cells == 1
    assert runner.run(again.plan, again.request, Silent()).failed == 0
    assert lost.read_bytes() == before


def test_two_rows_of_one_configuration_are_one_cell_and_the_footnotes_name_both(small):
    again = replace(small, jobs=(*small.jobs, small.jobs[1]._replace(row=replace(small.jobs[1].row, label="Again"))))
    text = study_tables.render(again)
    note = next(line for line in text.splitlines() if line.startswith("- Encoder"))
    assert note.endswith(f": {', '.join(job.row.label for job in again.jobs)}.")


def test_folders_of_rows_that_earlier_versions_wrote_are_told_and_left_alone(tmp_path):
    old = tmp_path / "run" / "mean" / "demo"
    old.mkdir(parents=True)
    (old / "place.json").write_text(json.dumps({"path": "x", "root": "x"}))
    done = zsadbench(
        *("study", study_file(tmp_path), "--datasets", "demo", "--categories", "gear", "--limit", 2),
        *("--out", tmp_path / "run", "--quiet"),
    )
    assert done.returncode == 0, done.stderr
    assert "holds rows of an earlier version in folders of their own, such as mean." in done.stderr
    table = zsadbench("table", tmp_path / "run")
    assert table.returncode == 0 and "left out" not in table.stderr


def test_a_study_needs_no_published_numbers(tmp_path):
    text = SMALL.replace('variant = "rvs=mean"\n', "")
    start, end = text.index("[published]"), text.index("[[rows]]")
    path = study_file(tmp_path, text[:start] + text[end:])
    done = zsadbench(
        *("study", path, "--datasets", "demo", "--categories", "gear", "--limit", 2, "--out", tmp_path / "run", "-q")
    )
    assert done.returncode == 0, done.stderr
    assert "measured on Demo" in done.stdout and "ublished" not in done.stdout and "comparable" not in done.stdout
    path = study_file(tmp_path, SMALL[: SMALL.index("[published]")] + SMALL[SMALL.index("[[rows]]") :])
    with pytest.raises(UsageError, match=r"expected \[published\] as well"):
        studies.load(str(path))


def planned_again(run, out=None):
    fields = {"data_root": run.request.data_root, "protocol": run.request.protocol}
    return studies.make_run(run.study, request(out or run.request.out, **fields))


def test_the_csv_agrees_with_the_records_and_with_the_published_file(small):
    found = numbers(study_tables.render(small, "csv"))
    values = [record.pixel["auroc"] for record in small.records(small.jobs[1])]
    assert found["Last block", "measured", "mvtec", "mean", "pixel", "auroc"] == pytest.approx(50 * sum(values))
    assert found["Mean", "published", "mvtec", "mean", "pixel", "auroc"] == 86.8
    assert not any(key[:2] == ("Last block", "published") for key in found), "the paper prints no such row"


def test_measured_and_published_numbers_stand_on_lines_that_name_their_dataset(small):
    text = study_tables.render(small)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert ["measured on MVTec AD" in lines[2], "published for MVTec AD" in lines[3]] == [True, True]
    assert "2 of 15 categories" in lines[2]
    assert lines[3].rstrip().endswith("74.4 |"), "Table 4, Mean: AU-PRO"


def test_the_notes_say_why_numbers_cannot_be_compared(small):
    text = study_tables.render(small)
    assert "Not comparable: the measured numbers have at most 4 images a category, 2 of 15 categories." in text


def test_a_complete_run_with_the_papers_dataset_and_encoder_is_called_that(small, monkeypatch):
    monkeypatch.setattr("zsadbench.tables.study.datasets.available", lambda: [])  # no card: two categories are all
    unlimited = [
        replace(record, protocol=record.protocol | {"limit": None})
        for job in small.jobs
        for record in small.records(job)
    ]
    monkeypatch.setattr(
        studies.StudyRun, "records", lambda run, job: [one for one in unlimited if one.method == job.method]
    )
    text = study_tables.render(small)
    assert "The measured numbers have the paper's dataset and encoder." in text
    assert "Not comparable" not in text


def test_latex_has_a_caption_and_escapes_markup(small):
    text = study_tables.render(small, "latex")
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 1
    assert r"\caption{Two windows.}" in text
    assert r"eval\_size" in text
    with pytest.raises(UnknownName, match="table format 'html'"):
        study_tables.render(small, "html")


def test_a_study_without_results_is_an_error_that_names_the_row(tmp_path, small):
    with pytest.raises(RecordError, match="row 'Mean': there are no results"):
        study_tables.render(planned_again(small, tmp_path))


def test_rows_written_for_a_dataset_run_on_it_and_all_rows_on_any_other(tmp_path, mvtec_tree):
    study = studies.load("clip_ad_table7")

    def where(datasets, **more):
        run = studies.make_run(study, request(tmp_path, datasets=datasets, encoder="tiny", **more))
        return [(job.row.label, job.dataset) for job in run.jobs]

    assert where(("mvtec",), data_root=mvtec_tree) == [("MVTec AD", "mvtec")]
    assert where((f"mvtec={mvtec_tree / 'mvtec'}",)) == [("MVTec AD", "mvtec")]
    assert where(("demo",)) == [("MVTec AD", "demo"), ("VisA", "demo"), ("ISIC", "demo")]


@pytest.mark.parametrize(
    ("name", "dataset", "expected"),
    [
        ("dual_anchor_table_s2", "demo", ["dual_anchor"] * 3),  # of which the plan takes what suits the demo set
        ("dual_anchor_table_s2", "btad", ["dual_anchor.mvtec_clip", "dual_anchor.mvtec_dinov2", "dual_anchor.mvtec"]),
        ("clip_ad_table6", "demo", ["clip_ad.sdp_plus"] * 9),
        ("clip_ad_table4", "demo", ["clip_ad"] * 5),
    ],
)
def test_a_trained_row_gives_way_to_what_suits_another_dataset(name, dataset, expected):
    assert [studies.suited(row, dataset) for row in studies.load(name).rows] == expected


def trained(folder: Path) -> studies.Study:
    """Two rows of SDP+ that share a checkpoint, and one that needs its own."""
    text = SMALL.replace('method = "sdp"', 'method = "sdp_plus"').replace('"clip_ad"', '"clip_ad.sdp_plus"')
    text = text.replace('table = "4"', 'table = "5"').replace('variant = "rvs=mean"\n', "")
    text += """
[[rows]]
label = "Three layers"
method = "clip_ad.sdp_plus"
encoder = "tiny"
options = { mapping_layers = 3, rvs = "mean", image_score = "sum" }
"""
    return studies.load(str(study_file(folder, text)))


def test_trained_rows_without_weights_say_how_to_train_them(tmp_path, mvtec_tree):
    place = {"data_root": mvtec_tree, "datasets": ("mvtec",), "checkpoint_folder": tmp_path / "checkpoints"}
    run = studies.make_run(trained(tmp_path), request(tmp_path / "run", **place))
    assert run.plan.trainings == [], "VisA is not here"
    assert runner.run(run.plan, run.request, Silent()).counts == {"needs_checkpoint": 6}
    text = study_tables.render(run)
    assert text.count("needs a checkpoint") >= 3
    assert "Train them with `zsadbench train --method clip_ad.sdp_plus_visa --dataset visa" in text


def test_rows_that_differ_in_what_training_ignores_share_their_training(tmp_path):
    place = {"datasets": ("demo",), "encoder": "tiny", "checkpoint_folder": tmp_path / "checkpoints"}
    run = studies.make_run(trained(tmp_path), request(tmp_path / "run", **place))
    assert [len(one.names) for one in run.plan.trainings] == [2, 1]
    for one in run.plan.trainings:
        write_checkpoint(one.request)
    again = studies.make_run(run.study, request(tmp_path / "run", **place))
    assert not again.plan.trainings and again.plan.cells == 12


def write_checkpoint(training: TrainRequest) -> None:
    """Write the initial weights as if they were trained."""
    job = training_job.prepare(training)
    facts = {"environment": {}, "epochs": []}
    checkpoints.save(training.out, job.method.trained.state_dict(), {**job.facts, **facts})


def test_a_study_may_change_the_protocol_and_keeps_the_users_limit(tmp_path):
    study = studies.load("fiseclip_table3")
    run = studies.make_run(
        study, request(tmp_path, datasets=("demo",), encoder="demo", protocol=EvaluationProtocol(limit=4))
    )
    assert (run.request.protocol.order, run.request.protocol.limit) == ("dataset", 4)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("rvs", "rsv"), r"small.toml, row 'Mean': Unknown option of clip_ad 'rsv'. Did you mean 'rvs'"),
        (('rvs = "mean"', 'rvs = "median"'), r"small.toml, row 'Mean': .*'median', expected one of mean, pca"),
        (('"clip_ad"', '"clip_add"'), r"small.toml, row 'Mean': Unknown method 'clip_add'"),
        (('"clip_ad"', '"clip_ad.large"'), r"small.toml, row 'Mean': Unknown preset of clip_ad 'large'"),
        (("variant =", "variants ="), r"small.toml, row 'Mean': unknown field 'variants'; expected label, method"),
        (('method = "clip_ad"\n', ""), r"small.toml, row 'Mean': the field 'method' is missing"),
        (('"rvs=mean"', '"rvs=median"'), r"row 'Mean': clip-ad.csv has no number of table 4, method sdp, variant"),
        (('"Last block"', '"Mean"'), r"small.toml: two rows have the same label"),
        (('table = "4"', "table = 4"), r"small.toml, published: table is 4; expected a TOML string"),
        (('dataset = "mvtec"', 'dataset = "mvtec"\nlevel = "image"'), r"level is 'image'; expected one of dataset"),
        (("[published]", '[protocol]\norder = "random"\n[published]'), r"small.toml, protocol.order=random"),
        (("[published]", "[published"), r"small.toml is not a study file"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_study_file_is_a_sentence_that_names_file_and_row(tmp_path, change, sentence):
    with pytest.raises(UsageError, match=sentence):
        studies.load(str(study_file(tmp_path, first=change)))


def test_an_unknown_study_offers_close_names():
    with pytest.raises(UnknownName, match="Did you mean 'clip_ad_table4'"):
        studies.load("clip_ad_tabel4")


@pytest.mark.parametrize("name", ["clip_ad_table9", "fiseclip_table2"])
def test_a_study_runs_on_the_demo_set_from_the_command_line(name, tmp_path):
    command = ("study", name, "--datasets", "demo", "--categories", "gear", "--limit", 4, "--out", tmp_path, "--quiet")
    done = zsadbench(*command)
    assert done.returncode == 0, done.stderr
    assert f"dataset demo instead of mvtec, encoder demo instead of {_own_encoder(name)}" in done.stdout
    assert "the numbers mean nothing outside regression checks" in done.stdout
    rows = studies.load(name).rows
    assert done.stdout.count("measured on Demo [1 of 4 categories]") == len(rows)
    again = zsadbench(*command, "--format", "csv")
    assert f"{counted(len(rows), 'row')}, 0 cells to run" in again.stderr
    record = json.loads(
        results.record_path(tmp_path, "demo", studies.name(rows[0], "demo", "demo"), "gear").read_text()
    )
    key = (rows[0].label, "measured", "demo", "mean", "pixel", "aupro")
    assert numbers(again.stdout)[key] == pytest.approx(100 * record["pixel"]["aupro"])


def _own_encoder(name):
    row = studies.load(name).rows[0]
    return methods.configure(row.method)[2].encoder


def test_published_categories_of_another_dataset_come_after_the_measured_ones(tmp_path):
    done = zsadbench(
        "study", "clip_ad_table9", "--datasets", "demo", "--categories", "leather", "--limit", 4, "--out", tmp_path
    )
    told = [line.split("|")[3].split()[0] for line in done.stdout.splitlines() if line.startswith("|")][2:]
    assert told == ["measured"] * 2 + ["published"] * 16, "MVTec AD has a leather too, which is another one"


def test_a_wrong_study_name_ends_with_exit_code_2_and_a_sentence():
    done = zsadbench("study", "clip_ad_table99")
    assert done.returncode == 2
    assert "Unknown study 'clip_ad_table99'" in done.stderr


def test_listing_studies_imports_no_torch():
    code = (
        "import sys; sys.argv = ['zsadbench', 'study', '--list']\n"
        "from zsadbench.cli.main import main\n"
        "try: main()\nexcept SystemExit as end: assert not end.code, end.code\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in NAMES)
