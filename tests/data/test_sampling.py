"""Draws: seeded, independent of what else runs, stratified."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zsadbench.data import sampling
from zsadbench.datasets import Dataset, DatasetCard, Sample
from zsadbench.errors import DataError
from zsadbench.protocol import EvaluationProtocol


class Toy(Dataset):
    cards = {
        "default": DatasetCard(
            title="Toy", domain="custom", reference="", source="", licence="", image_level=True, pixel_level=False
        )
    }

    def scan(self):
        for name in ("a", "b"):
            for i in range(10):
                yield Sample(self.root / name / f"good_{i}.png", None, 0, name)
            for defect, count in (("hole", 20), ("crack", 10)):
                for i in range(count):
                    yield Sample(self.root / name / f"{defect}_{i}.png", None, 1, name, defect)
            for i in range(3):
                yield Sample(self.root / name / f"train_{i}.png", None, 0, name, split="train")


TOY = Toy(Path("/toy"), "default", "toy")


def names(samples):
    return [sample.image.name for sample in samples]


def test_the_order_is_a_permutation_drawn_from_the_seed_and_the_category():
    first = sampling.test_samples(TOY, "a", EvaluationProtocol(seed=1))
    assert names(first) == names(sampling.test_samples(TOY, "a", EvaluationProtocol(seed=1)))
    assert sorted(names(first)) == sorted(names(TOY.samples("a")))
    assert names(first) != names(sampling.test_samples(TOY, "a", EvaluationProtocol(seed=2)))
    assert names(first) != names(sampling.test_samples(TOY, "b", EvaluationProtocol(seed=1)))
    assert names(sampling.test_samples(TOY, "a", EvaluationProtocol(order="dataset"))) == names(TOY.samples("a"))


def test_a_limit_keeps_the_shares_of_labels_and_defects():
    chosen = sampling.test_samples(TOY, "a", EvaluationProtocol(limit=12))
    assert Counter(sample.defect for sample in chosen) == {"": 3, "hole": 6, "crack": 3}


def test_a_limit_beyond_the_category_takes_everything():
    assert len(sampling.test_samples(TOY, "a", EvaluationProtocol(limit=1000))) == 40


@given(
    normal=st.integers(0, 30),
    holes=st.integers(0, 30),
    cracks=st.integers(0, 5),
    share=st.floats(0.01, 1),
    seed=st.integers(0, 99),
)
def test_a_limit_takes_exactly_its_number_and_keeps_both_labels(normal, holes, cracks, share, seed):
    samples = [Sample(Path(f"n{i}"), None, 0, "a") for i in range(normal)]
    samples += [Sample(Path(f"h{i}"), None, 1, "a", "hole") for i in range(holes)]
    samples += [Sample(Path(f"c{i}"), None, 1, "a", "crack") for i in range(cracks)]
    if not samples:
        return
    limit = max(1, int(share * len(samples)))
    chosen = sampling.stratified(samples, limit, np.random.default_rng(seed))
    assert len(chosen) == len(set(chosen)) == limit
    assert list(chosen) == sorted(chosen, key=samples.index)
    if limit >= 2:
        assert {sample.label for sample in chosen} == {sample.label for sample in samples}


def test_references_are_normal_train_images_drawn_without_replacement():
    drawn = sampling.references(TOY, "a", 3, seed=0)
    assert sorted(names(drawn)) == ["train_0.png", "train_1.png", "train_2.png"]
    assert names(drawn) == names(sampling.references(TOY, "a", 3, seed=0))


def test_too_few_references_are_an_error_that_says_how_many_there_are():
    with pytest.raises(
        DataError, match=r"toy, category a: 4 normal reference images are needed, the train split has 3"
    ):
        sampling.references(TOY, "a", 4, seed=0)
