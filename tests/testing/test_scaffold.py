"""What `zsadbench new` writes is checked, run and shown as it is, and `check-plugin` says what breaks a contract."""

import os

import pytest
from commands import zsadbench

from zsadbench.api.listing import list_datasets, list_methods
from zsadbench.errors import UsageError
from zsadbench.support import plugins


@pytest.fixture
def folder(tmp_path, monkeypatch, forgotten_plugins):
    """A --plugins folder, forgotten again after the test; it is the working directory, too."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def commands_of(done) -> list[list[str]]:
    """Return the commands that `new` proposes."""
    return [line.split()[1:] for line in done.stderr.splitlines() if line.startswith("  zsadbench ")]


@pytest.mark.parametrize(
    ("arguments", "written", "row"),
    [
        (["method", "own_idea"], ["methods/own_idea.py", "tests/test_own_idea.py"], "Own idea"),
        (["method", "own_probe", "--trained"], ["methods/own_probe.py", "tests/test_own_probe.py"], "Own probe"),
        (["dataset", "own_parts"], ["datasets/own_parts.py", "tests/test_own_parts.py", "data/own_parts"], "Own parts"),
    ],
)
def test_a_scaffold_is_checked_run_and_in_the_table_by_the_commands_that_it_proposes(folder, arguments, written, row):
    done = zsadbench("new", *arguments)
    assert done.returncode == 0 and done.stdout.split() == written
    check, run, table = commands_of(done)
    checked = zsadbench(*check)
    assert checked.returncode == 0 and f"{arguments[1]}: keeps its contract\n" in checked.stdout
    ran = zsadbench(*run, "--limit", 2)
    assert ran.returncode == 0, ran.stderr
    assert row in zsadbench(*table).stdout
    own_test = (folder / written[1]).read_text()
    names: dict[str, object] = {"__file__": str(folder / written[1])}
    exec(compile(own_test, written[1], "exec"), names)
    names["test_contract"]()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["method", "2fast"], "method name '2fast': expected letters, digits and _"),
        (["method", "my-idea"], "method name 'my-idea': expected letters"),
        (["method", "class"], "method name 'class': expected letters"),
        (["dataset", "_hidden"], "dataset name '_hidden': expected letters"),
        (["method", "../up"], "method name '../up': expected letters"),
        (["method", "WinCLIP"], "method name 'WinCLIP': winclip has this name already"),
        (["dataset", "musc"], "dataset name 'musc': musc has this name already"),
        (["method", "all"], "method name 'all': all has this name already"),
        (["dataset", "own", "--trained"], "--trained is for methods"),
    ],
)
def test_a_name_that_cannot_be_is_refused_and_nothing_is_written(folder, arguments, told):
    done = zsadbench("new", *arguments)
    assert done.returncode == 2 and done.stderr.startswith(f"Error: {told}")
    assert not list(folder.iterdir())


def test_nothing_of_the_users_is_overwritten(folder):
    test = folder / "tests" / "test_own_idea.py"
    test.parent.mkdir()
    test.write_text("mine")
    done = zsadbench("new", "method", "own_idea")
    assert done.returncode == 2 and "is there already and stays as it is" in done.stderr
    assert test.read_text() == "mine" and not (folder / "methods").exists()
    (folder / "data" / "own_parts").mkdir(parents=True)
    assert zsadbench("new", "dataset", "own_parts").stdout.split() == [
        "datasets/own_parts.py",
        "tests/test_own_parts.py",
    ]
    assert not list((folder / "data" / "own_parts").iterdir())
    again = zsadbench("new", "dataset", "Own_Parts")
    assert again.returncode == 2 and "own_parts has this name already" in again.stderr


BREAKS = {
    "return Prediction(scores=maps.amax(dim=(1, 2)), maps=maps)": {
        "return Prediction(scores=maps.amax(dim=(1, 2)), maps=maps * torch.rand(1))": "is not deterministic",
        "return Prediction(scores=maps.amax(dim=(1, 2)).double(), maps=maps)": "float64",
        "tokens.zero_(); return Prediction(scores=maps.amax(dim=(1, 2)), maps=maps)": "tokens.",
        "return [][1]": "IndexError: list index out of range (at ",
        "raise SystemExit": "SystemExit",
        "assert not batch": "AssertionError",
    }
}


@pytest.mark.parametrize(("old", "new", "told"), [(old, *one) for old, some in BREAKS.items() for one in some.items()])
def test_check_plugin_says_in_a_sentence_what_a_method_breaks(folder, old, new, told):
    zsadbench("new", "method", "own_broken")
    path = folder / "methods" / "own_broken.py"
    path.write_text(path.read_text().replace(old, new).replace("from dataclasses", "import torch\nfrom dataclasses"))
    done = zsadbench("check-plugin", "own_broken", "--plugins", ".")
    assert done.returncode == 1 and done.stdout == "" and "Traceback" not in done.stderr
    sentence = next(line for line in done.stderr.splitlines() if line.startswith("own_broken: "))
    assert told in sentence


def test_check_plugin_says_what_a_dataset_breaks_and_where_a_folder_is_not(folder):
    zsadbench("new", "dataset", "own_bad")
    (folder / "data/own_bad/parts/ground_truth/spot/000_mask.png").unlink()
    done = zsadbench("check-plugin", "own_bad", "--plugins", ".", "--data-root", "data")
    assert done.returncode == 1 and done.stderr.startswith("own_bad: ") and "000" in done.stderr
    nowhere = zsadbench("check-plugin", "own_bad", "--plugins", ".", "--data-root", "elsewhere")
    assert nowhere.returncode == 2 and nowhere.stderr.startswith("Error: dataset own_bad: no folder found")
    unknown = zsadbench("check-plugin", "own_bed", "--plugins", ".")
    assert unknown.returncode == 2 and "own_bad" in unknown.stderr


def test_the_variable_is_as_the_option_on_the_command_line_and_in_python(folder, monkeypatch):
    for name in ("one", "two"):
        zsadbench("new", "method", f"own_{name}", "--plugins", folder / name)
    zsadbench("new", "dataset", "own_three", "--plugins", folder / "two")
    monkeypatch.setenv(plugins.VARIABLE, os.pathsep.join(str(folder / name) for name in ("one", "two")))
    assert list_methods("own_*") == ["own_one", "own_two"] and list_datasets("own_*") == ["own_three"]
    assert zsadbench("check-plugin", "own_two.early").stdout == "own_two.early: keeps its contract\n"
    done = zsadbench("run", "--methods", "own_one", "--limit", 2, "--categories", "wood", "--out", folder / "out")
    assert done.returncode == 0 and "plugins" not in (folder / "out" / "spec.toml").read_text()


def test_a_folder_of_the_variable_without_plugins_is_told(folder, monkeypatch):
    monkeypatch.setenv(plugins.VARIABLE, str(folder / "nothing"))
    done = zsadbench("list", "methods")
    assert done.returncode == 2 and done.stderr.startswith(
        f"Error: ZSADBENCH_PLUGINS {folder / 'nothing'}: got a folder"
    )
    with pytest.raises(UsageError, match="ZSADBENCH_PLUGINS"):
        list_methods()
