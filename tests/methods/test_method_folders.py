"""A method that is a folder `NAME/__init__.py` works everywhere a file does."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from zsadbench import methods
from zsadbench.protocol import EvaluationProtocol
from zsadbench.records import results
from zsadbench.running import backends, executors
from zsadbench.running.plan import make_plan
from zsadbench.running.progress import Silent
from zsadbench.running.request import Request
from zsadbench.support import plugins, source
from zsadbench.testing import check_method

ROOT = Path(__file__).parents[2]

METHOD = '''
"""A method of two files."""
from dataclasses import dataclass
from zsadbench.data.images import Preprocess
from zsadbench.methods import Method, MethodCard, Prediction, register
from .levels import darkness

@dataclass(frozen=True)
class Config:
    gain: float = 1.0

@register
class Dark(Method):
    card = MethodCard(title="Dark", reference="nobody, 2026", scope="image")
    presets = {"default": Config(), "strong": Config(gain=2.0)}
    preprocess = Preprocess(size=16)

    def predict(self, batch):
        maps = self.config.gain * darkness(batch.images)
        return Prediction(maps.amax(dim=(1, 2)), maps)
'''
SIBLING = "def darkness(images):\n    return 1 - images.mean(dim=1)\n"


def write_method(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(METHOD)
    (folder / "levels.py").write_text(SIBLING)
    return folder


@pytest.fixture
def user_folder(tmp_path, forgotten_plugins):
    """A --plugins folder with one method that is a folder; forgotten again after the test."""
    write_method(tmp_path / "methods" / "user_dark")
    plugins.add_folder(tmp_path)
    return tmp_path


def test_listing_imports_nothing_and_creating_imports_the_siblings(user_folder):
    listing = {item.name: item for item in methods.available()}["user_dark"]
    assert (listing.card.title, listing.presets) == ("Dark", ("default", "strong"))
    assert "zsadbench.methods.user_dark" not in sys.modules
    assert methods.create("user_dark.strong").config.gain == 2.0
    check_method("user_dark")


def test_a_folder_without_init_file_is_no_plugin(user_folder):
    (user_folder / "methods" / "notes").mkdir()
    (user_folder / "methods" / "notes" / "todo.py").write_text("")
    assert "notes" not in plugins.names("zsadbench.methods")


def test_its_digest_covers_every_file_of_the_folder_and_no_compiled_one(user_folder):
    def digest() -> str:
        source.of_plugin.cache_clear()  # a process takes it once
        return source.of_plugin(methods.lookup("user_dark")[0])

    folder = user_folder / "methods" / "user_dark"
    before = digest()
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "levels.pyc").write_bytes(b"compiled")
    assert digest() == before
    (folder / "levels.py").write_text(SIBLING.replace("1 -", "2 -"))
    assert digest() != before


def test_workers_in_other_processes_find_it(user_folder, tmp_path):
    request = Request(["user_dark"], ["demo"], tmp_path / "out", protocol=EvaluationProtocol(limit=2, batch_size=2))
    executors.run(make_plan(request), request, Silent(), backends.parse("loky:2"))
    records = results.load_run(request.out)
    assert records and all(record.status == "done" for record in records), [record.error for record in records]


def test_an_installed_package_may_hold_it(tmp_path):
    write_method(tmp_path / "site" / "third_party_folder" / "thirddark")
    (tmp_path / "site" / "third_party_folder" / "__init__.py").write_text("")
    info = tmp_path / "site" / "third_party_folder-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: third-party-folder\nVersion: 1.0\n")
    entry = "[zsadbench.methods]\nthirddark = third_party_folder.thirddark\n"
    (info / "entry_points.txt").write_text(entry)
    code = textwrap.dedent(
        """
        import sys
        from zsadbench import methods
        from zsadbench.support import source
        card = {m.name: m for m in methods.available()}["thirddark"].card
        assert "third_party_folder.thirddark" not in sys.modules
        print(card.title, methods.create("thirddark.strong").config.gain)
        print(sorted(path.name for path in source.files_of(methods.lookup("thirddark")[0])))
        """
    )
    done = subprocess.run(
        [sys.executable, "-B", "-c", code],
        env={"PYTHONPATH": f"{tmp_path / 'site'}:{ROOT}", "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["Dark 2.0", "['__init__.py', 'levels.py']"]
