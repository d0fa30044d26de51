"""Finding, reading and importing plugins: files, user folders, and a real installed third-party package."""

import subprocess
import sys
import textwrap
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from commands import zsadbench

from zsadbench import datasets, methods
from zsadbench.errors import MissingDependency, PluginError, UnknownName, UsageError
from zsadbench.support import plugins
from zsadbench.training import cross_dataset

ROOT = Path(__file__).parents[2]

METHOD = '''
"""A third party's method."""
from dataclasses import dataclass
import torch
from zsadbench.methods import Method, MethodCard, Prediction, register
from zsadbench.data.images import Preprocess

@dataclass(frozen=True)
class Config:
    level: float = 0.5

@register
class Flat(Method):
    card = MethodCard(title="Flat", reference="nobody, 2026", scope="image")
    presets = {"default": Config(), "high": Config(level=0.9)}
    preprocess = Preprocess(size=16)

    def predict(self, batch):
        scores = torch.full((len(batch),), self.config.level)
        return Prediction(scores, scores[:, None, None].expand(-1, 4, 4).clone())
'''


@pytest.fixture
def user_folder(tmp_path, forgotten_plugins):
    """A --plugins folder, forgotten again after the test."""
    (tmp_path / "methods").mkdir()
    return tmp_path


def test_a_file_in_a_users_folder_is_listed_and_created_without_being_registered_anywhere(user_folder):
    (user_folder / "methods" / "user_flat.py").write_text(METHOD)
    plugins.add_folder(user_folder)
    listing = {item.name: item for item in methods.available()}["user_flat"]
    assert (listing.card.title, listing.presets) == ("Flat", ("default", "high"))
    assert "zsadbench.methods.user_flat" not in sys.modules, "listing must not import"
    assert methods.create("user_flat.high").config.level == 0.9
    assert methods.create("user_flat.high").name == "user_flat.high"
    assert methods.create("user_flat.default").name == "user_flat"
    assert methods.create("user_flat", level="0.25").config.level == 0.25


def test_a_folder_without_plugins_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="methods/"):
        plugins.add_folder(tmp_path)


@pytest.mark.parametrize("shape", ["constant.py", "constant/__init__.py"])
def test_an_own_copy_of_a_shipped_method_is_refused_by_every_command(user_folder, shape):
    path = user_folder / "methods" / shape
    path.parent.mkdir(exist_ok=True)
    path.write_text(METHOD)
    for command in (["list", "methods"], ["run", "--methods", "winclip"], ["profile", "--methods", "winclip"]):
        done = zsadbench(*command, "--plugins", user_folder)
        assert done.returncode == 2 and "several methods are called 'constant'" in done.stderr, done.stderr
        assert str(path) in done.stderr and str(ROOT / "methods" / "constant.py") in done.stderr
    assert methods.lookup("constant")[2] is not None, "what ships works without that folder"


def test_two_plugins_of_one_name_are_refused_as_file_and_folder_and_in_two_folders(user_folder, tmp_path):
    (user_folder / "methods" / "user_twin").mkdir()
    for name in ("user_twin.py", "user_twin/__init__.py"):
        (user_folder / "methods" / name).write_text(METHOD)
    with pytest.raises(UsageError, match=r"user_twin/__init__\.py and .*user_twin\.py"):
        plugins.add_folder(user_folder)
    (user_folder / "methods" / "user_twin.py").unlink()
    plugins.add_folder(user_folder)
    plugins.add_folder(user_folder)  # twice the same is once
    other = tmp_path / "other"
    (other / "methods").mkdir(parents=True)
    (other / "methods" / "user_twin.py").write_text(METHOD)
    with pytest.raises(UsageError, match="several methods are called 'user_twin'"):
        plugins.add_folder(other)


def test_an_entry_point_with_the_name_of_a_shipped_method_is_a_problem_and_hurts_no_other(monkeypatch):
    point = EntryPoint("constant", "third_party.constant", "zsadbench.methods")
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point] if group == point.group else [])
    plugins._sources_in.cache_clear()
    listing = {item.name: item for item in methods.available()}
    assert "entry point third_party.constant" in listing["constant"].problem and listing["winclip"].card is not None
    with pytest.raises(PluginError, match=r"called 'constant': .*constant\.py and entry point third"):
        methods.lookup("constant")
    names, problems = cross_dataset.everything()
    assert "constant" not in names and "winclip" in names
    assert "several methods" in str(problems["constant"])
    plugins._sources_in.cache_clear()


def test_a_folder_of_another_package_beside_an_installed_one_holds_no_plugins(tmp_path):
    for folder in ("zsadbench/datasets", "datasets"):
        (tmp_path / folder).mkdir(parents=True)
    found = plugins.folders(str(tmp_path / "zsadbench" / "datasets.py"))
    assert found == [str(tmp_path / "zsadbench" / "datasets")], "datasets/ is Hugging Face's package"


def test_unknown_names_get_close_matches():
    with pytest.raises(UnknownName, match="Did you mean 'winclip'"):
        methods.create("winclp")
    with pytest.raises(UnknownName, match="preset of winclip 'nope'"):
        methods.create("winclip.nope")
    with pytest.raises(UnknownName, match="Did you mean 'mvtec'"):
        datasets.create("mvtek")


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("def broken(:", "cannot be read"),
        ("x = 1", "no class decorated with @register"),
        (METHOD.replace("    card =", "    other ="), "declares no card"),
        (METHOD.replace('scope="image"', 'scope="image", colour="red"'), "colour"),
        (METHOD.replace('"nobody, 2026"', "str(2026)"), "must be literals"),
    ],
)
def test_a_broken_plugin_is_listed_with_its_problem_and_hurts_no_other(user_folder, source, problem):
    (user_folder / "methods" / "user_broken.py").write_text(source)
    plugins.add_folder(user_folder)
    listing = {item.name: item for item in methods.available()}
    assert problem in listing["user_broken"].problem
    assert listing["winclip"].card is not None


def test_a_missing_package_is_named_with_its_install_command(user_folder):
    (user_folder / "methods" / "user_needy.py").write_text("import no_such_package_anywhere\n" + METHOD)
    plugins.add_folder(user_folder)
    with pytest.raises(MissingDependency, match="pip install no_such_package_anywhere"):
        methods.create("user_needy")


def test_a_module_of_ours_that_has_moved_is_not_to_be_installed(user_folder):
    (user_folder / "methods" / "user_old.py").write_text("from zsadbench.similarity import cosine\n" + METHOD)
    plugins.add_folder(user_folder)
    with pytest.raises(PluginError, match=r"imports 'zsadbench\.similarity'.*from zsadbench import") as caught:
        methods.create("user_old")
    assert "pip" not in str(caught.value)


def test_the_old_places_of_version_0_1_work_and_say_where_to_go(user_folder):
    (user_folder / "methods" / "user_of_0_1.py").write_text("from zsadbench.preprocess import Preprocess\n" + METHOD)
    plugins.add_folder(user_folder)
    for module in ("zsadbench.preprocess", "zsadbench.plugins"):
        sys.modules.pop(module, None)
    with pytest.warns(FutureWarning, match="import Preprocess from zsadbench"):
        methods.create("user_of_0_1")
    with pytest.warns(FutureWarning, match=r"zsadbench\.support"):
        from zsadbench.plugins import add_folder
    assert add_folder is plugins.add_folder


def test_an_exception_at_import_names_the_file(user_folder):
    (user_folder / "methods" / "user_raising.py").write_text("1 / 0\n" + METHOD)
    plugins.add_folder(user_folder)
    with pytest.raises(PluginError, match=r"user_raising\.py.*ZeroDivisionError"):
        methods.create("user_raising")


def test_a_module_registers_exactly_one_class(user_folder):
    twice = METHOD + "\n@register\nclass Second(Flat):\n    presets = {'default': Config()}\n"
    (user_folder / "methods" / "user_twice.py").write_text(twice)
    plugins.add_folder(user_folder)
    with pytest.raises(PluginError, match="registers both Flat and Second"):
        methods.create("user_twice")


def test_an_installed_package_registers_through_its_entry_point(tmp_path):
    """Build and install a real package into a folder, then list and run it in a fresh interpreter."""
    project = tmp_path / "project"
    (project / "third_party_zsad").mkdir(parents=True)
    (project / "third_party_zsad" / "__init__.py").write_text("")
    (project / "third_party_zsad" / "thirdflat.py").write_text(METHOD)
    (project / "pyproject.toml").write_text(
        textwrap.dedent(
            """
            [build-system]
            requires = ["setuptools"]
            build-backend = "setuptools.build_meta"
            [project]
            name = "third-party-zsad"
            version = "1.0"
            [project.entry-points."zsadbench.methods"]
            thirdflat = "third_party_zsad.thirdflat"
            [tool.setuptools]
            packages = ["third_party_zsad"]
            """
        )
    )
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*install, "--target", str(site), str(project)], check=True, capture_output=True)
    code = (
        "import sys; from zsadbench import methods\n"
        "card = {m.name: m for m in methods.available()}['thirdflat'].card\n"
        "assert 'third_party_zsad.thirdflat' not in sys.modules\n"
        "print(card.title, methods.create('thirdflat.high').config.level)"
    )
    root = Path(plugins.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": f"{site}:{root}", "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["Flat", "0.9"]
