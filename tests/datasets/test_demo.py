"""The embedded demo set: drawn once, whole or not at all, and always the same pictures."""

import hashlib
from pathlib import Path

import pytest

from zsadbench import datasets
from zsadbench.data import procedural
from zsadbench.errors import DataError
from zsadbench.support import plugins
from zsadbench.testing import check_dataset

DEMO = plugins.load("zsadbench.datasets", "demo")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def demo(cache, monkeypatch):
    monkeypatch.setenv("ZSADBENCH_CACHE", str(cache))
    return datasets.create("demo")


def digest(root: Path) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(root.rglob("*.png")))).hexdigest()


def test_the_demo_set_keeps_the_dataset_contract_and_its_expected_counts(demo):
    check_dataset(demo)
    for category in demo.categories():
        samples = demo.samples(category.name)
        labels = [sample.label for sample in samples]
        assert (labels.count(0), labels.count(1)) == demo.card.expected[category.name]
        assert len(demo.samples(category.name, "train")) == demo.card.expected_train[category.name]


def test_it_is_drawn_once_and_then_found(demo, monkeypatch):
    monkeypatch.setattr(DEMO, "draw", lambda *arguments: pytest.fail("drawn again"))
    assert datasets.create("demo").root == demo.root


def test_two_drawings_are_equal_byte_for_byte(tmp_path):
    composition = DEMO.Composition(("leather", "gear"), train=1, good=1, per_defect=1, first_seed=5)
    for name in ("a", "b"):
        DEMO.draw(tmp_path / name, composition)
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"], "no half-drawn folder is left"


def test_an_interrupted_drawing_leaves_nothing_behind(tmp_path, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(procedural, "render", interrupted)
    with pytest.raises(KeyboardInterrupt):
        DEMO.draw(tmp_path / "demo", DEMO.COMPOSITIONS["default"])
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_a_sentence(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ZSADBENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match="ZSADBENCH_CACHE"):
        datasets.create("demo")


def test_the_training_family_shares_no_category_with_the_held_out_one():
    families = [set(composition.categories) for composition in DEMO.COMPOSITIONS.values()]
    assert not families[0] & families[1]
