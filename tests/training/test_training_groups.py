"""Batches of groups: normal images of one category each, drawn anew for every step."""

import pytest
from toy_tree import write_tree

from zsadbench import datasets
from zsadbench.data.images import Preprocess
from zsadbench.errors import DataError
from zsadbench.methods import Stage, TrainRecipe
from zsadbench.training import job
from zsadbench.training.data import Place, TrainingData
from zsadbench.training.request import TrainRequest

RECIPE = TrainRecipe((Stage(3, 1e-3),), batch_size=8, groups=4)


def examples(root, epoch=0, recipe=RECIPE):
    dataset = datasets.create("mvtec", root)
    samples = [sample for category in dataset.categories() for sample in dataset.samples(category.name)]
    data = TrainingData(dataset, samples, Preprocess(size=64), device="cpu", seed=0, pool=None)
    return [example.samples[0] for example in data.examples(recipe, Place(0, epoch))]


def test_a_group_holds_different_normal_images_of_one_category(mvtec_tree):
    drawn = [sample for epoch in range(10) for sample in examples(mvtec_tree, epoch)]
    groups = [drawn[i : i + 2] for i in range(0, len(drawn), 2)]
    assert all(first.category == second.category and first != second for first, second in groups)
    assert {sample.label for sample in drawn} == {0}
    assert {sample.category for sample in drawn} == {"bottle", "grid"}


def test_every_epoch_draws_one_batch_of_its_own(mvtec_tree):
    first, again, other = (examples(mvtec_tree, epoch) for epoch in (0, 0, 1))
    assert first == again != other
    assert len(first) == RECIPE.epoch_size_of(0, 26) == 8
    assert TrainRecipe((Stage(1, 1e-3),), batch_size=8).epoch_size_of(0, 26) == 26


def prepare(root, recipe=RECIPE):
    return job._normal_samples(datasets.create("mvtec", root), TrainRequest("acr", "mvtec", root), recipe)


def test_images_are_the_normal_ones_of_the_train_split(mvtec_tree):
    samples = prepare(mvtec_tree)
    assert {(sample.split, sample.label) for sample in samples} == {("train", 0)}
    assert len(samples) == 6


def test_without_a_train_split_they_are_the_normal_ones_of_the_test_split():
    demo = datasets.create("demo.train")
    samples = job._normal_samples(demo, TrainRequest("acr", "demo.train", demo.root), RECIPE)
    assert {(sample.split, sample.label) for sample in samples} == {("test", 0)}


def test_categories_with_less_than_a_group_are_left_out(tmp_path):
    write_tree(tmp_path / "mvtec")
    for number in (1, 2):
        (tmp_path / f"mvtec/grid/train/good/00{number}.png").unlink()
    assert {sample.category for sample in prepare(tmp_path)} == {"bottle"}
    with pytest.raises(DataError, match="no category has 4 normal images in its train split"):
        prepare(tmp_path, TrainRecipe((Stage(1, 1e-3),), batch_size=8, groups=2))
