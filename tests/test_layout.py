"""The traps of docs/plugins.md#root-folders: root methods/ and datasets/ are importable only below zsadbench."""

import importlib
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from zsadbench.support import plugins

ROOT = Path(__file__).parents[1]


def test_no_init_file_shadows_another_package():
    folders = [ROOT / "methods", ROOT / "datasets", ROOT / "tests", *(ROOT / "tests").rglob("*/")]
    assert not [folder for folder in folders if (folder / "__init__.py").exists()]


def test_test_files_have_unique_basenames():
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names))


def test_plugins_are_ordinary_modules_that_can_be_pickled_by_name():
    module = importlib.import_module("zsadbench.methods.constant")
    assert Path(module.__file__) == ROOT / "methods" / "constant.py"
    assert module.Constant.__module__ == "zsadbench.methods.constant"


def test_every_package_of_the_wheel_exists_and_none_is_forgotten():
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    mapped = setup["package-dir"]
    for package in setup["packages"]:
        parent, _, name = package.rpartition(".")
        folder = ROOT / mapped.get(parent, parent.replace(".", "/")) / name
        assert (ROOT / mapped[package] if package in mapped else folder).is_dir(), package
    inside = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "zsadbench").rglob("*.py")}
    folders = {
        f"zsadbench.{kind}.{path.parent.name}"
        for kind in ("methods", "datasets")
        for path in (ROOT / kind).glob("*/__init__.py")
    }
    assert inside | folders <= set(setup["packages"])


@pytest.mark.parametrize(
    "arguments", [["list", "methods"], ["list", "datasets", "--json"], ["list", "encoders"], ["--help"]]
)
def test_listing_imports_no_torch_and_is_quick_next_to_importing_it(arguments):
    code = (
        f"import sys; sys.argv = ['zsadbench', *{arguments!r}]\n"
        "from zsadbench.cli.main import main\n"
        "try: main()\nexcept SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torch', 'numpy', 'pandas', 'sklearn', 'open_clip', 'timm', 'cv2', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_table_imports_no_torch():
    code = "import sys, zsadbench.tables.quality, zsadbench.records.results; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)


def test_the_harness_names_no_plugin():
    """No module of zsadbench/ mentions a method or dataset by name in its code, but for argued exceptions."""
    allowed = {
        "__init__.py": {"musc", "mvtec", "winclip"},  # an example in words
        "cli/run.py": {"demo"},  # what runs without arguments
        "cli/options.py": {"demo"},
        "running/request.py": {"demo"},  # likewise, for the Python door
        "api/listing.py": {"demo", "visa", "winclip"},  # examples of the docstrings
        "api/predictor.py": {"demo", "winclip"},
        "api/run.py": {"demo"},
        "method_base.py": {"demo"},
        "testing/__init__.py": {"demo", "winclip"},
        "testing/scaffold.py": {"demo", "mvtec", "visa"},  # the presets of a trained scaffold
        "api/runs.py": {"demo", "winclip"},
        "encoders/__init__.py": {"demo"},  # the encoder of this name
        "encoders/demo.py": {"demo"},  # the demo set brings its own encoder
        "tables/words.py": {"demo"},  # demo numbers are labelled as such
    }
    names = {name for kind in ("methods", "datasets") for name in plugins.names(f"zsadbench.{kind}")}
    for path in (ROOT / "zsadbench").rglob("*.py"):
        strings = set(re.findall(r"""["']([a-z_0-9]+)["']""", path.read_text()))
        named = (
            (strings & names)
            - allowed.get(path.relative_to(ROOT / "zsadbench").as_posix(), set())
            - {"constant", "folder"}
        )
        assert not named, f"{path.name} names {named}"


def test_plugins_import_no_plugins():
    for folder in ("methods", "datasets"):
        for path in (ROOT / folder).rglob("*.py"):
            imports = re.findall(r"(?:from|import) (zsadbench\.(?:methods|datasets)\.\w+)", path.read_text())
            assert not imports, f"{path} imports {imports}"


def test_files_stay_small_enough_to_read_in_one_go():
    long = {}
    for folder, limit in (("zsadbench", 350), ("methods", 350), ("datasets", 350), ("scripts", 350), ("tests", 560)):
        for path in (ROOT / folder).rglob("*.py"):
            name, lines = path.relative_to(ROOT).as_posix(), path.read_text().count("\n")
            if lines > limit:
                long[name] = lines
    assert not long


def test_help_answers_within_a_small_multiple_of_a_bare_interpreter():
    """A ratio in one run, so that a slow machine does not matter: importing torch alone would be far beyond it."""

    def seconds(*command):
        start = time.perf_counter()
        subprocess.run([sys.executable, *command], cwd=ROOT, check=True, capture_output=True)
        return time.perf_counter() - start

    bare = min(seconds("-c", "import typer, rich") for _ in range(3))
    ours = min(
        seconds("-c", "from zsadbench.cli.main import main; import sys; sys.argv = ['z', '--help']; main()")
        for _ in range(3)
    )
    assert ours < 8 * bare
