"""The published numbers: the shipped files are sound, mistakes are named, and only true matches are joined."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from zsadbench import methods, metrics
from zsadbench.errors import RecordError
from zsadbench.records import published
from zsadbench.records.published import UNKNOWN, Join, Key, Library, Number
from zsadbench.records.results import MEAN
from zsadbench.support import preset_names
from zsadbench.training import cross_dataset

HEADER = ",".join(published.Number._fields[1:])
LINE = "1,WinCLIP,winclip,,,240,,0,mvtec,mean,image,auroc,91.8,,"
SHARED = Path(__file__).resolve().parents[3] / "shared" / "specs" / "published.csv"
VIT_B, VIT_L = "open_clip:ViT-B-16-plus-240/laion400m_e31", "open_clip:ViT-L-14-336/openai"


@pytest.fixture(scope="module")
def library() -> Library:
    return Library.read()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sources.csv").write_text('source,citation,access\npaper,"A paper, 2024",read\n')
    (tmp_path / "joins.csv").write_text(
        "zsadbench,encoder,dataset,source,table,method,variant,differs\nours,,,paper,1,winclip,,\n"
    )
    (tmp_path / "paper.csv").write_text(f"{HEADER}\n{LINE}\n")
    return tmp_path


def key(method: str, encoder: str, dataset: str, level: str, metric: str, **changes: object) -> Key:
    return Key(method, encoder, 0, frozenset(), dataset, MEAN, level, metric)._replace(**changes)


def found(library: Library, cell: Key) -> Number:
    answer = library.find(cell)
    assert answer is not None, cell
    return answer.number


def test_the_shipped_files_are_sound_and_complete() -> None:
    numbers = published.load()
    assert len(numbers) >= 3180
    assert {number.level for number in numbers} == {"image", "pixel", "efficiency"}


@pytest.mark.skipif(not SHARED.is_file(), reason="the collected table that the files were made from is not here")
def test_every_collected_number_is_in_the_files_as_printed() -> None:
    with SHARED.open(newline="", encoding="utf-8") as file:
        collected = sorted(
            (
                row["source"],
                row["table"],
                row["method"],
                row["variant"],
                {"mean": MEAN}.get(row["category"], row["category"]),
                row["level"],
                row["metric"],
                float(row["value"]),
            )
            for row in csv.DictReader(file)
        )
    ours = sorted(
        (
            number.source,
            number.table,
            number.method,
            number.variant,
            number.category,
            number.level,
            number.metric,
            number.value,
        )
        for number in published.load()
    )
    assert ours == collected


def test_files_are_sorted_by_place_so_that_changes_read_well() -> None:
    for source in published.citations():
        tables = [number.table for number in published.load() if number.source == source]
        assert len(list(dict.fromkeys(tables))) == sum(a != b for a, b in zip(["\0", *tables], tables, strict=False))


def test_a_method_finds_its_own_paper_first(library: Library) -> None:
    number = found(library, key("musc", VIT_L, "mvtec", "image", "auroc"))
    assert (number.source, number.table, number.value) == ("musc", "README-main", 97.8)


def test_what_the_own_paper_lacks_comes_from_the_next_line(library: Library) -> None:
    number = found(library, key("winclip", VIT_B, "mvtec", "pixel", "aupro"))
    assert (number.source, number.value) == ("anomalyclip", 64.6)


def test_the_training_set_decides_which_number_fits(library: Library) -> None:
    cell = key("adaclip", VIT_L, "mvtec", "image", "auroc")
    both = found(library, cell._replace(method="adaclip.visa_clinicdb", trained_on=frozenset({"visa", "clinicdb"})))
    one = found(library, cell._replace(trained_on=frozenset({"visa"})))
    assert (both.value, one.value) == (89.2, 89.6)


@pytest.mark.parametrize(
    "change",
    [
        {"encoder": "demo"},
        {"shots": 1},
        {"trained_on": frozenset({"visa"})},
        {"trained_on": None},
        {"dataset": "mvtec.other"},
        {"category": "no_such"},
        {"method": "winclip.other"},
    ],
)
def test_a_number_of_another_setting_is_not_shown(library: Library, change: dict[str, object]) -> None:
    cell = key("winclip", VIT_B, "mvtec", "image", "auroc")
    assert library.find(cell) is not None
    assert library.find(cell._replace(**change)) is None


def test_a_preset_made_for_one_dataset_is_joined_there_alone(library: Library) -> None:
    assert library.find(key("musc.visa", VIT_L, "visa", "image", "auroc")) is not None
    assert library.find(key("musc", VIT_L, "visa", "image", "auroc")) is None


def asked(join: Join, number: Number) -> Key:
    """Return what a run as the paper's asks for."""
    trained_on = number.trained_on
    if trained_on == UNKNOWN:
        preset = methods.lookup(join.zsadbench)[2]
        trained_on = frozenset(filter(None, [getattr(preset, "trained_on", "")]))
    subject = number.dataset, number.category, number.level, number.metric
    return Key(join.zsadbench, join.encoder, number.shots or 0, trained_on, *subject)


def reached(library: Library, number: Number) -> list[Key]:
    """Return the keys that show a number, or the same value from its own paper."""
    place = number.source, number.table, number.method, number.variant
    joins = [join for join in published.load_joins() if join[3:7] == place and join.is_for(number.dataset)]
    keys = [asked(join, number) for join in joins if join.zsadbench != "saa_plus"]
    answers = [(one, library.find(one)) for one in keys]
    return [one for one, answer in answers if answer and answer.number.value == pytest.approx(number.value, abs=0.051)]


def test_every_line_of_joins_can_be_shown() -> None:
    library, numbers = Library.read(), published.load()
    for join in published.load_joins():
        fitting = [
            number
            for number in numbers
            if (number.source, number.table, number.method, number.variant) == join[3:7] and join.is_for(number.dataset)
        ]
        assert any(
            number.level == "efficiency" or number.method == "saa_plus" or join.zsadbench in {k.method for k in keys}
            for number in fitting
            for keys in [reached(library, number)]
        ), join


TABLES = [("clip-ad", "1"), ("clip-ad", "2"), ("clip-ad", "3"), ("fiseclip", "1")]


@pytest.mark.parametrize(("source", "table"), TABLES)
def test_every_row_of_a_papers_main_tables_stands_beside_some_run(library: Library, source: str, table: str) -> None:
    """But for SAA+, which is no method of this project."""
    numbers = [number for number in published.load() if (number.source, number.table) == (source, table)]
    assert len(numbers) > 30
    missing = {(number.method, number.variant, number.dataset) for number in numbers if not reached(library, number)}
    assert {method for method, _, _ in missing} <= {"saa_plus"}, missing


@pytest.mark.parametrize(("name", "dataset"), list(published.presets()))
def test_a_bare_name_runs_as_its_paper_did_on_a_dataset(library: Library, name: str, dataset: str) -> None:
    """It stands for the preset that has the paper's numbers there; the usual preset has none."""
    chosen = cross_dataset.suited(name, dataset)
    assert chosen == published.presets()[name, dataset]
    method, full, config = methods.lookup(chosen)
    assert full == chosen and name in preset_names.aliases(method.presets, full), "--set and --checkpoint take it"
    trained_on = frozenset(filter(None, [getattr(config, "trained_on", "")]))

    def shown(name: str) -> bool:
        keys = [Key(name, config.encoder, 0, trained_on, dataset, MEAN, *column) for column in metrics.columns()]
        return any(library.find(one) for one in keys)

    usual = methods.lookup(name)[1]
    assert shown(chosen) and not shown(usual), (chosen, usual)


def test_a_preset_that_is_named_is_kept() -> None:
    assert cross_dataset.suited("clip_ad", "visa") == "clip_ad.sdp_rvs_visa"
    assert cross_dataset.suited("clip_ad.sdp", "visa") == "clip_ad.sdp"
    assert cross_dataset.suited("clip_ad", "mvtec") == cross_dataset.suited("clip_ad", "btad") == "clip_ad"
    assert cross_dataset.suited("clip_ad.sdp_plus", "btad") == "clip_ad.sdp_plus_mvtec"


def test_joined_names_are_presets_of_the_methods_that_are_here() -> None:
    for listing in methods.available():
        for join in published.load_joins():
            stem, _, preset = join.zsadbench.partition(".")
            if stem == listing.name and preset:
                assert preset in listing.presets[1:], f"{join.zsadbench}: the default preset has the plain name"


def test_a_suspect_number_is_never_joined(folder: Path) -> None:
    cell = key("ours", "", "mvtec", "image", "auroc")
    assert Library.read(folder).find(cell) is not None
    (folder / "paper.csv").write_text(f"{HEADER}\n{LINE.replace('91.8,,', '91.8,yes,wrong')}\n")
    assert Library.read(folder).find(cell) is None


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("image,auroc", "frame,auroc", "level is 'frame'; expected one of image, pixel, efficiency"),
        ("image,auroc", "image,aupro", "metric is 'aupro'; expected one of auroc, f1_max, ap at level image"),
        ("91.8", "100.1", "value is 100.1; expected a percentage"),
        ("91.8", "-1", "value is -1; expected a percentage"),
        ("91.8", "nan", "value is nan"),
        ("91.8", "n/a", "value is 'n/a'; expected a number"),
        (",240,", ",big,", "resolution is 'big'; expected a whole number"),
        ("91.8,,", "91.8,perhaps,", "suspect is 'perhaps'"),
        ("91.8,,", "91.8,", "expected 15 values"),
    ],
)
def test_a_mistake_in_a_file_is_named_with_its_line(folder: Path, old: str, new: str, sentence: str) -> None:
    second = LINE.replace("mvtec", "visa").replace(old, new)
    (folder / "paper.csv").write_text(f"{HEADER}\n{LINE}\n{second}\n")
    with pytest.raises(RecordError, match=rf"paper\.csv, line 3: .*{sentence}"):
        published.load(folder)


def test_the_same_number_twice_is_an_error_that_names_both_lines(folder: Path) -> None:
    (folder / "paper.csv").write_text(f"{HEADER}\n{LINE}\n{LINE.replace('91.8', '92')}\n")
    with pytest.raises(RecordError, match=r"line 3: the number of line 2 \(91\.8\) stands here again \(92\)"):
        published.load(folder)


def test_a_file_that_no_source_lists_is_an_error(folder: Path) -> None:
    (folder / "extra.csv").write_text(f"{HEADER}\n")
    with pytest.raises(RecordError, match=r"extra\.csv is not in sources\.csv"):
        published.load(folder)


def test_a_join_to_nowhere_is_an_error(folder: Path) -> None:
    with (folder / "joins.csv").open("a") as file:
        file.write("ours,,,paper,7,winclip,,\n")
    with pytest.raises(RecordError, match=r"joins\.csv, line 3: no number has"):
        Library.read(folder)


def test_a_missing_file_is_an_error_that_names_it(folder: Path) -> None:
    (folder / "paper.csv").unlink()
    with pytest.raises(RecordError, match=r"paper\.csv cannot be read"):
        published.load(folder)


def test_wrong_columns_are_an_error(folder: Path) -> None:
    (folder / "paper.csv").write_text(f"{HEADER},extra\n{LINE},1\n")
    with pytest.raises(RecordError, match=r"paper\.csv, line 1: the columns are"):
        published.load(folder)
