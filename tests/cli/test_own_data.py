"""A user's own data set is first-class: its name, its place, and every command that takes it."""

import json
import os
import shutil
from pathlib import Path

import pytest
from commands import zsadbench
from toy_trained import write_method
from toy_tree import write_tree

from zsadbench import datasets
from zsadbench.errors import DataError, UsageError
from zsadbench.profiling import measure
from zsadbench.records import places, results
from zsadbench.running import runner, targets
from zsadbench.running.plan import make_plan, resolve_methods
from zsadbench.running.progress import Silent
from zsadbench.running.request import Request


@pytest.fixture(scope="module")
def sites(tmp_path_factory) -> Path:
    """Two sites that both call their images "parts"; treat them as read-only."""
    root = tmp_path_factory.mktemp("sites")
    write_tree(root / "siteA", ("parts",))
    write_tree(root / "siteB", ("parts",), side=48)
    return root


def request_of(out: Path, *names: object, **options: object) -> Request:
    return Request(["constant"], [str(name) for name in names], out, **options)


def run(out: Path, *names: object, **options: object) -> dict[str, int]:
    request = request_of(out, *names, **options)
    summary = runner.run(make_plan(request), request, Silent())
    return {**summary.counts, "skipped": summary.skipped}


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("零件甲", "folder.零件甲"),
        ("Pièces", "folder.Pièces"),
        ("Pie\u0300ces", "folder.Pièces"),  # the same word as macOS keeps it
        ("हिन्दी", "folder.हिन्दी"),
        ("my parts: 3*4", "folder.my_parts__3_4"),
        ("gt0", "folder.default.gt0"),  # not the variant
        ("gt0.v2", "folder.default.gt0.v2"),
        ("gt.v2", "folder.default.gt.v2"),  # nor like one misspelt
        ("normal-no", "folder.default.normal-no"),
        ("default", "folder.default.default"),
        ("normal", "folder.normal"),
        ("...", "folder.images"),
        ("x" * 200, f"folder.{'x' * 111}-" + "aa20c23e"),
    ],
)
def test_own_data_keeps_the_letters_of_its_folder_in_a_name_for_every_file_system(tmp_path, folder, name):
    given = f"folder={tmp_path / folder}"
    found = datasets.name_of(given)
    assert found == name and datasets.name_of(f"{found}={tmp_path}") == found, "a record's name can be typed"


def test_long_names_are_shortened_apart_and_between_characters(tmp_path):
    one, two = (datasets.name_of(f"folder={tmp_path / ('零' * 70 + end)}") for end in "甲乙")
    assert one != two and len(one.encode()) <= len("folder.") + 120 and one.startswith("folder.零零")


def test_a_given_name_stands_for_the_folder_and_its_variant_is_told_apart(sites):
    dataset = datasets.create(f"folder.site-A={sites / 'siteA/parts'}")
    assert (dataset.name, dataset.variant, dataset.card.title) == ("folder.site-A", "default", "site-A")
    dataset = datasets.create(f"folder.gt0.site-A={sites / 'siteA/parts'}")
    assert (dataset.name, dataset.variant, dataset.card.mask_rule) == ("folder.gt0.site-A", "gt0", "gt0")
    dataset = datasets.create(f"folder.normal-ok.gt0.site-A={sites / 'siteA/parts'}")
    assert (dataset.name, dataset.variant, dataset.card.title) == ("folder.gt0.normal-ok.site-A", "gt0", "site-A")
    for wrong, meant in (("gt1", "gt0 "), ("gt", "gt0 "), ("norml-no", "normal-NAME ")):
        with pytest.raises(UsageError, match=f"did you mean the option {meant}.*write default.{wrong}"):
            datasets.name_of(f"folder.{wrong}={sites / 'siteA/parts'}")
    with pytest.raises(UsageError, match="'a b' cannot name files everywhere; expected 'a_b'"):
        datasets.create(f"folder.a b={sites / 'siteA/parts'}")


def test_two_data_sets_of_one_name_in_a_request_are_refused_with_the_way_to_name_them_apart(sites, tmp_path):
    one, two = sites / "siteA/parts", sites / "siteB/parts"
    with pytest.raises(UsageError, match=rf"{one} and {two} would both .* folder\.parts\. .* folder\.NAME={two}"):
        make_plan(request_of(tmp_path, f"folder={one}", f"folder={two}"))
    with pytest.raises(UsageError, match=r"folder\.Parts.*would both|would both.*folder\.Parts"):
        make_plan(request_of(tmp_path, f"folder={one}", f"folder.Parts={two}"))  # one folder on macOS and Windows
    write_tree(tmp_path / "copy", side=48)
    write_tree(tmp_path / "mvtec")
    with pytest.raises(UsageError, match=r"would both be filed under mvtec\. Give it another --out\."):
        make_plan(request_of(tmp_path, "mvtec", f"mvtec={tmp_path / 'copy'}", data_root=tmp_path))
    twice = targets.sets(request_of(tmp_path, f"folder={one}", f"folder={one}/", f"folder={os.path.relpath(one)}"))
    assert len(twice) == 1, "a repetition is no second data set"
    assert run(tmp_path / "out", f"folder.a={one}", f"folder.b={two}") == {"done": 2, "skipped": 0}


@pytest.mark.parametrize("name", ["folder", "folder.line", "mvtec"])
def test_another_data_set_of_the_same_name_in_a_run_folder_is_refused(sites, tmp_path, name):
    one, two = sites / "siteA", sites / "siteB"
    one, two = (one, two) if name == "mvtec" else (one / "parts", two / "parts")
    if name == "mvtec":
        one, two = write_tree(tmp_path / "one"), write_tree(tmp_path / "two", side=48)
    out = tmp_path / "out"
    run(out, f"{name}={one}")
    before = {path: path.read_bytes() for path in out.rglob("*.*") if path.is_file()}
    with pytest.raises(UsageError, match=rf"measured on {one}, and {two} holds other images .* another --out"):
        run(out, f"{name}={two}")
    assert before == {path: path.read_bytes() for path in out.rglob("*.*") if path.is_file()}
    assert run(tmp_path / "other", f"{name}={two}")["done"]


def test_a_data_set_that_was_moved_or_copied_is_the_same_and_its_new_place_is_noted(sites, tmp_path):
    one, out = tmp_path / "one" / "parts", tmp_path / "out"
    shutil.copytree(sites / "siteA/parts", one)
    run(out, f"folder={one}")
    moved = one.parent.rename(tmp_path / "two") / "parts"
    assert run(out, f"folder={moved}") == {"skipped": 1}
    assert places.read(out, "folder.parts").path == moved


def test_a_data_set_that_was_corrected_in_its_place_is_measured_again(sites, tmp_path):
    one, out = tmp_path / "parts", tmp_path / "out"
    shutil.copytree(sites / "siteA/parts", one)
    run(out, f"folder={one}")
    shutil.copy(one / "test/good/000.png", one / "test/good/001.png")
    assert run(out, f"folder={one}") == {"done": 1, "skipped": 0}


def test_categories_that_the_other_data_set_lacks_tell_them_apart(tmp_path):
    one, two = write_tree(tmp_path / "one/plant", ("gear",)), write_tree(tmp_path / "two/plant", ("bolt",))
    run(tmp_path / "out", f"folder={one}")
    with pytest.raises(UsageError, match=r"holds other images \(gear\)"):
        run(tmp_path / "out", f"folder={two}")


def test_a_damaged_place_or_record_is_no_obstacle(sites, tmp_path):
    run(tmp_path, f"folder={sites / 'siteA/parts'}")
    (tmp_path / "folder.parts/place.json").write_text("{")
    assert run(tmp_path, f"folder={sites / 'siteA/parts'}") == {"skipped": 1}
    (tmp_path / "folder.parts/constant/parts.json").write_text("{")
    assert run(tmp_path, f"folder={sites / 'siteB/parts'}") == {"done": 1, "skipped": 0}


def test_a_path_with_a_comma_is_escaped(sites, tmp_path):
    shutil.copytree(sites / "siteA/parts", tmp_path / "a,b" / "parts")
    path = f"{tmp_path}/a\\,b/parts"
    done = zsadbench("run", "--methods", "constant", "--datasets", f"folder={path}", "--out", tmp_path / "out", "-q")
    assert done.returncode == 0, done.stderr
    assert places.read(tmp_path / "out", "folder.parts").path == tmp_path / "a,b" / "parts"


def test_trained_presets_know_own_data_by_its_name(sites, tmp_path):
    request = request_of(tmp_path, f"folder={sites / 'siteA/parts'}")
    assert list(resolve_methods(Request(["april_gan"], request.datasets, tmp_path))[0]) == ["april_gan.mvtec"]


@pytest.fixture(scope="module")
def finished(sites, tmp_path_factory) -> Path:
    """A run on own data with maps."""
    out = tmp_path_factory.mktemp("finished") / "run"
    done = zsadbench(
        "run", "--methods", "constant,winclip", "--datasets", f"folder={sites / 'siteA/parts'}", "--encoder", "tiny",
        "--save-maps", "--out", out, "-q",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return out


def test_every_command_takes_a_run_on_own_data(finished, sites, tmp_path, monkeypatch, forgotten_plugins):
    monkeypatch.setattr(measure, "_apart", lambda action, *arguments: action(*arguments))  # a process imports torch
    own, given = sites / "siteA/parts", f"folder={sites / 'siteA/parts'}"
    out = tmp_path / "run"
    shutil.copytree(finished, out)

    def command(*arguments: object, code: int = 0) -> str:
        done = zsadbench(*arguments)
        assert done.returncode == code, f"{arguments}: {done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    quick = ["--batches", 1, "--warmup", 0, "--repeat", 1]
    command("profile", "--methods", "constant", "--dataset", given, "--encoder", "tiny", "--out", out, *quick, "-q")
    for options in ([], ["--ci"], ["--efficiency"]):
        assert "Constant" in command("table", out, *options)
    assert "WinCLIP" in command("table", out, "--significance")
    for name in ("", given, "folder.parts", f"folder.parts={own}"):
        assert "Caption" in command(
            "figure", "maps", out, "--dataset", name, "--count", 1, "--out", tmp_path / "maps.png"
        )
    command("figure", "ranks", out, "--out", tmp_path / "ranks.png")
    command("figure", "efficiency", out, "--out", tmp_path / "cost.png")
    command("report", out, "--out", tmp_path / "report", "--no-intervals")
    assert "Each method has one scale" in (tmp_path / "report/index.html").read_text(), "no maps"
    command("check", out, "--baseline", tmp_path / "base.json", "--update")
    command("check", out, "--baseline", tmp_path / "base.json")
    assert "Everything is as expected" in command("data", "check", given)
    command("data", "index", given, "--out", tmp_path / "index.jsonl")
    command("run", "--methods", "constant", "--datasets", f"folder.listed={tmp_path / 'index.jsonl'}",
            "--data-root", own, "--out", out, "-q")  # fmt: skip
    assert results.load(out / "folder.listed/constant/parts.json").status == "done"
    plugins, trained = ["--plugins", write_method(tmp_path / "plugins")], tmp_path / "trained"
    command("train", "--method", "toy_trained", "--dataset", given, "--out", trained, "--epochs", 1, "-q", *plugins)
    assert json.loads((trained / "card.json").read_text())["trained_on"] == ["folder.parts"]


def test_data_that_moved_is_asked_for_in_a_sentence_and_can_be_named(finished, sites, tmp_path):
    out, now = tmp_path / "run", tmp_path / "now"
    shutil.copytree(finished, out)
    lost = {"path": "/nowhere/parts", "root": "/nowhere/parts"}
    (out / "folder.parts/place.json").write_text(json.dumps(lost))
    shutil.copytree(sites / "siteA/parts", now / "parts")
    maps = ["figure", "maps", out, "--count", 1, "--out", tmp_path / "maps.png"]
    done = zsadbench(*maps)
    assert done.returncode == 2
    assert "folder.parts was /nowhere/parts when" in done.stderr and "--dataset folder.parts=PATH" in done.stderr
    assert zsadbench(*maps, "--data-root", now).returncode == 0
    assert zsadbench(*maps, "--dataset", f"folder.parts={now / 'parts'}").returncode == 0
    report = ["report", out, "--out", tmp_path / "report", "--no-intervals"]
    page = tmp_path / "report/index.html"
    assert zsadbench(*report).returncode == 0 and "was /nowhere/parts when" in page.read_text()
    assert zsadbench(*report, "--dataset", f"folder.parts={now / 'parts'}").returncode == 0
    assert "was /nowhere/parts when" not in page.read_text()
    assert zsadbench(*report, "--dataset", f"folder.bolts={now / 'parts'}").returncode == 2


def test_maps_are_not_drawn_on_images_that_changed_since_the_run(finished, sites, tmp_path):
    done = zsadbench(
        "figure", "maps", finished, "--dataset", f"folder.parts={sites / 'siteB/parts'}", "--out", tmp_path / "m.png"
    )
    assert done.returncode == 2 and "holds other images or masks of parts than the run measured" in done.stderr


def test_own_data_without_a_path_or_a_run_that_knows_it_is_told_what_is_missing(tmp_path):
    with pytest.raises(DataError, match=r"folder\.parts: got no path; expected folder\.parts=PATH"):
        places.find([tmp_path], "folder.parts")
