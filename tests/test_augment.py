"""Mosaics: which samples are drawn, and how they are put together."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from toy_tree import save

from zsadbench import augment, datasets
from zsadbench.datasets import Sample
from zsadbench.methods import Stage, TrainRecipe
from zsadbench.preprocess import Preprocess
from zsadbench.training_data import Place, TrainingData


def sample(name, defect=""):
    return Sample(Path(f"{name}.png"), None, int(bool(defect)), "nut", defect)


def test_every_defect_is_drawn_as_often_as_any_other_however_many_files_it_has():
    samples = [sample(f"good{i}") for i in range(90)] + [sample("hole", "hole"), sample("crack", "crack")]
    rng = np.random.default_rng(0)
    drawn = Counter(one.defect for _ in range(3000) for one in augment.draw(samples, rng))
    assert sum(drawn.values()) == 4 * 3000
    assert all(abs(count / (4 * 3000) - 1 / 3) < 0.02 for count in drawn.values())


def test_tiles_lie_row_by_row_at_the_first_ones_size():
    parts = [np.full(shape, value, np.uint8) for value, shape in ((1, (2, 3)), (2, (2, 3)), (3, (5, 9)), (4, (1, 1)))]
    assert augment.tile(parts).tolist() == [
        [1, 1, 1, 2, 2, 2],
        [1, 1, 1, 2, 2, 2],
        [3, 3, 3, 4, 0, 0],
        [3, 3, 3, 0, 0, 0],
    ]
    assert augment.tile([np.zeros((2, 3, 3), np.uint8)] * 4).shape == (4, 6, 3)


@pytest.fixture
def data(tmp_path):
    """One category whose pictures are black with a white, masked square each, in one of four corners."""
    for i in range(4):
        image = np.zeros((64, 64, 3), np.uint8)
        image[i // 2 * 32 :, i % 2 * 32 :][:32, :32] = 255
        save(tmp_path / f"mvtec/metal_nut/test/hole{i}/000.png", image)
        save(tmp_path / f"mvtec/metal_nut/ground_truth/hole{i}/000_mask.png", image[..., 0])
    save(tmp_path / "mvtec/metal_nut/test/good/000.png", np.zeros((64, 64, 3), np.uint8))
    save(tmp_path / "mvtec/metal_nut/train/good/000.png", np.zeros((64, 64, 3), np.uint8))
    dataset = datasets.create("mvtec", tmp_path)
    plain = Preprocess(size=64, mean=(0, 0, 0), std=(1, 1, 1))
    return TrainingData(dataset, dataset.samples("metal_nut"), plain, device="cpu", seed=0, pool=None)


def recipe(mosaic):
    return TrainRecipe((Stage(1, 1e-3),), batch_size=2, mosaic=mosaic)


def test_image_and_mask_of_a_mosaic_show_the_same_places(data):
    examples = data.examples(recipe(1.0), Place(0, 0))
    assert all(len(example.samples) == 4 and example.number is None for example in examples)
    for example in examples:
        image, mask = data.image(example), data.mask(example)
        assert example.label == int(mask.any())
        assert ((image.mean(0) > 0.5) == (mask > 0.5)).float().mean() > 0.97, "but for the antialiased edges"


def test_the_share_of_mosaics_is_the_recipes_and_they_change_from_epoch_to_epoch(data):
    data.samples = data.samples * 200
    first, again, other = (data.examples(recipe(0.2), place) for place in (Place(0, 0), Place(0, 0), Place(0, 1)))
    share = sum(example.number is None for example in first) / len(first)
    assert share == pytest.approx(0.2, abs=0.04)
    assert first == again != other
    assert not any(example.number is None for example in data.examples(recipe(0.0), Place(0, 0)))


def test_without_shuffling_the_order_is_the_datasets(data):
    plain = TrainRecipe((Stage(1, 1e-3),), batch_size=2, shuffle=False)
    assert [example.number for example in data.examples(plain, Place(0, 0))] == [0, 1, 2, 3, 4]
