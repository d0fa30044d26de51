"""What a user gets who installs zsadbench without this checkout: every plugin, weight and table is in the wheel."""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The wheel, unpacked into a folder of its own."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # a copy: building leaves files behind, and an old build/ would hide what is missing
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    for name in ("zsadbench", "methods", "datasets", "results"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*build, "--wheel-dir", str(folder), str(source)], check=True, capture_output=True)
    wheel = next(folder.glob("zsadbench-*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run(site: Path, code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(site)!r})\n{code}"],
        cwd=site.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def plugin_names(folder: str) -> list[str]:
    files = [*(ROOT / folder).glob("*.py"), *(path.parent for path in (ROOT / folder).glob("*/__init__.py"))]
    return sorted(path.stem for path in files)


def test_a_wheel_lists_every_plugin_of_the_checkout(site):
    code = (
        "import json, zsadbench; from zsadbench import methods, datasets\n"
        "assert zsadbench.__file__.startswith(sys.path[0])\n"
        "names = [[m.name for m in methods.available()], [d.name.partition('.')[0] for d in datasets.available()]]\n"
        "print(json.dumps([sorted(set(kind)) for kind in names]))"
    )
    found_methods, found_datasets = json.loads(run(site, code))
    assert found_methods == plugin_names("methods")
    assert found_datasets == plugin_names("datasets")


def test_a_wheel_holds_the_demo_encoder_the_prompts_and_the_published_numbers(site):
    code = (
        "from zsadbench import encoders; from zsadbench.components import prompts\n"
        "from zsadbench.records import published; from zsadbench.training import checkpoints\n"
        "print(len(encoders.load('demo').blocks), len(prompts.names()) > 5, len(published.load()) > 3000)\n"
        "print(*sorted(path.parent.name for path in checkpoints.shipped().glob('*/weights.safetensors')))"
    )
    shipped = sorted(path.name for path in (ROOT / "results" / "checkpoints").iterdir())
    assert run(site, code).split() == ["12", "True", "True", *shipped]


def test_a_wheel_has_the_digests_of_the_checkout_so_that_its_records_stand_in_each_other_s_place(site):
    code = (
        "from zsadbench import datasets, methods; from zsadbench.support import source\n"
        "print(source.of_harness(source.RESULTS), source.of_harness(source.TRAININGS))\n"
        "print(*(source.of_plugin(methods.lookup(name)[0]) for name in ('winclip', 'aa_clip')))\n"
        "print(source.of_plugin(datasets.plugins.registered('zsadbench.datasets', 'mvtec', datasets.Dataset)))\n"
    )
    assert run(site, code) == run(ROOT, code)


def test_a_wheel_installs_no_top_level_methods_or_datasets(site):
    assert sorted(path.name for path in site.iterdir() if not path.name.endswith(".dist-info")) == ["zsadbench"]
