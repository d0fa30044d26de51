"""Mosaics: which samples are drawn, and how they are put together. Changes: what is drawn, and what it does."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_tree import save

from zsadbench import datasets
from zsadbench.data.images import Preprocess
from zsadbench.datasets import Sample
from zsadbench.methods import Augmentation, Stage, TrainRecipe
from zsadbench.training import augment
from zsadbench.training.augment import Change
from zsadbench.training.data import Place, TrainingData


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


def test_changes_are_drawn_within_their_extents_and_as_often_as_their_chances_say():
    rules = Augmentation(0.5, 0.4, 0.3, 0.7, 30, 0.15, 0.5, horizontal_flip=0.2, vertical_flip=0.9)
    rng = np.random.default_rng(0)
    drawn = [augment.draw_change(rules, rng) for _ in range(4000)]
    for name, extent in (("brightness", 0.5), ("contrast", 0.4), ("saturation", 0.3)):
        factors = np.array([getattr(change, name) for change in drawn])
        assert np.mean(factors != 1) == pytest.approx(0.7, abs=0.03)
        assert np.abs(factors - 1).max() == pytest.approx(extent, rel=0.01) and abs(factors.mean() - 1) < 0.01
    angles = np.array([change.angle for change in drawn])
    assert np.mean(angles != 0) == pytest.approx(0.5, abs=0.03) and np.abs(angles).max() == pytest.approx(30, rel=0.01)
    shifts = np.array([change.shift for change in drawn])
    assert np.mean(shifts != 0, axis=0) == pytest.approx(0.5, abs=0.03), "along both axes, or along none"
    assert ((shifts[:, 0] != 0) == (shifts[:, 1] != 0)).all() and np.abs(shifts).max() == pytest.approx(0.15, rel=0.01)
    assert np.mean([change.mirrored for change in drawn]) == pytest.approx(0.2, abs=0.03)
    assert np.mean([change.upended for change in drawn]) == pytest.approx(0.9, abs=0.03)
    assert augment.draw_change(Augmentation(), rng) == Change()


def test_moves_of_a_small_image_worked_by_hand():
    pixels = torch.arange(1.0, 17.0).reshape(1, 4, 4)
    assert augment.move(pixels, Change()) is pixels
    assert torch.equal(augment.move(pixels, Change(angle=90.0)), pixels.rot90(1, (1, 2)))
    shifted = augment.move(pixels, Change(shift=(0.25, -0.25)))[0]  # one to the right, one up
    assert shifted.tolist() == [[0, 5, 6, 7], [0, 9, 10, 11], [0, 13, 14, 15], [0, 0, 0, 0]]
    assert torch.equal(augment.move(pixels, Change(mirrored=True)), pixels.flip(2))
    assert torch.equal(augment.move(pixels, Change(upended=True)), pixels.flip(1))
    turned = augment.move(torch.ones(1, 9, 9), Change(angle=30.0))
    assert set(turned.unique().tolist()) == {0.0, 1.0}, "a mask stays one"


def test_colours_change_the_image_alone():
    image = np.array([[[100, 40, 200], [20, 60, 100]]], np.uint8)
    assert augment.recolour(image, Change(angle=10.0)) is image
    assert augment.recolour(image, Change(brightness=0.5)).tolist() == [[[50, 20, 100], [10, 30, 50]]]
    assert augment.recolour(image, Change(brightness=2.0)).tolist() == [[[200, 80, 255], [40, 120, 200]]]
    grey = augment.recolour(image, Change(saturation=0.0))
    assert (grey == grey[..., :1]).all() and grey[0, 0, 0] == 76, "0.299 * 100 + 0.587 * 40 + 0.114 * 200"
    assert np.ptp(augment.recolour(image, Change(contrast=0.0))) == 0


def changing(**fields):
    return TrainRecipe((Stage(1, 1e-3, augment=Augmentation(**fields)),), batch_size=2)


def test_a_changed_image_and_its_mask_show_the_same_places_and_are_never_kept(data):
    moving = changing(rotation=30, translation=0.3, warp_chance=1, horizontal_flip=0.5, vertical_flip=0.5)
    examples = data.examples(moving, Place(0, 0))
    assert all(example.number is None for example in examples)
    moved = [data.mask(example) for example in examples]
    for example, mask in zip(examples, moved, strict=True):
        assert ((data.image(example).mean(0) > 0.5) == (mask > 0.5)).float().mean() > 0.97, "but for the edges"
    still = {example.samples: data.mask(example) for example in data.examples(changing(), Place(0, 0))}
    assert any(not torch.equal(mask, still[example.samples]) for mask, example in zip(moved, examples, strict=True))


def test_changes_differ_between_epochs_and_are_the_same_again(data):
    recipe = changing(brightness=0.5, colour_chance=0.5)
    first, again, other = (data.examples(recipe, place) for place in (Place(0, 0), Place(0, 0), Place(0, 1)))
    assert first == again != other
    assert all((example.number is None) == (example.change != Change()) for example in first + other)
    order = [example.samples for example in data.examples(changing(), Place(0, 0))]
    assert [example.samples for example in first] == order, "augmentation leaves the order alone"
