"""APRIL-GAN: stage maps, checkpoints and their errors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import whole
from torch import Tensor

from zsadbench import encoders, methods
from zsadbench.datasets import Category
from zsadbench.encoders.weights import read_checkpoint
from zsadbench.errors import NeedsCheckpoint, UsageError, WeightsError
from zsadbench.methods import TrainableMethod
from zsadbench.running.loading import from_tensor
from zsadbench.testing import check_method, toy_images

CATEGORY = Category("metal_nut", "metal nut", "toy")


@pytest.fixture(scope="module")
def encoder() -> encoders.base.Encoder:
    return encoders.load("tiny")


def checkpoint(encoder: encoders.base.Encoder, stages: int = 4) -> dict[str, Tensor]:
    """Return random layers under the official names."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"weight": (encoder.joint_width, encoder.width), "bias": (encoder.joint_width,)}
    return {
        f"fc.{i}.{kind}": torch.randn(shape, generator=generator)
        for i in range(stages)
        for kind, shape in shapes.items()
    }


def make(encoder: encoders.base.Encoder, **changes: object) -> TrainableMethod:
    return methods.create("april_gan", encoder=encoder, **changes)


@pytest.mark.parametrize("name", ["april_gan", "april_gan.visa", "april_gan.mvtec", "april_gan.demo"])
def test_april_gan_keeps_the_contract(name: str) -> None:
    check_method(name)


def test_prediction_equals_the_formulas_of_the_page(encoder: encoders.base.Encoder) -> None:
    method = make(encoder)
    tensors = checkpoint(encoder)
    method.load_checkpoint(tensors, "test")
    batch = from_tensor(toy_images(2, encoder.size), CATEGORY)
    scores, maps = whole.predict(method, batch)
    text = method.text(CATEGORY)
    features = batch.features(encoder, method.request)
    embedding = features.embedding / features.embedding.norm(dim=1, keepdim=True)
    torch.testing.assert_close(scores, (100 * embedding @ text.T).softmax(dim=1)[:, 1], rtol=1e-4, atol=1e-5)
    expected = torch.zeros(2, 64, 64)
    for i, layer in enumerate((3, 6, 9, 12)):
        mapped = features.tokens(layer) @ tensors[f"fc.{i}.weight"].T + tensors[f"fc.{i}.bias"]
        logits = 100 * (mapped / mapped.norm(dim=2, keepdim=True)) @ text.T  # [B, L, 2]
        grid = logits.transpose(1, 2).reshape(2, 2, 8, 8)
        upsampled = torch.nn.functional.interpolate(grid, size=64, mode="bilinear", align_corners=True)
        expected += upsampled.softmax(dim=1)[:, 1]
    torch.testing.assert_close(maps, expected, rtol=1e-3, atol=1e-4)


def test_maps_have_the_input_size_and_lie_between_zero_and_the_number_of_stages(
    encoder: encoders.base.Encoder,
) -> None:
    method = make(encoder, layers=(6, 12))
    method.initialise(seed=0)
    with torch.inference_mode():
        scores, maps = whole.predict(method, from_tensor(toy_images(3, encoder.size), CATEGORY))
    assert maps.shape == (3, encoder.size, encoder.size)
    assert 0 <= float(maps.min()) <= float(maps.max()) <= 2
    assert 0 <= float(scores.min()) <= float(scores.max()) <= 1


def test_predicting_without_weights_asks_for_a_checkpoint(encoder: encoders.base.Encoder) -> None:
    with pytest.raises(NeedsCheckpoint, match=r"april_gan.mvtec needs trained .* --checkpoint april_gan.mvtec=PATH"):
        methods.create("april_gan.mvtec", encoder=encoder).predict(from_tensor(toy_images(1, 64), CATEGORY))


def test_official_and_flat_key_names_load_the_same_weights(encoder: encoders.base.Encoder) -> None:
    tensors = checkpoint(encoder)
    batch = from_tensor(toy_images(1, encoder.size), CATEGORY)
    maps = []
    for prefix in ("", "trainable_linearlayer."):
        method = make(encoder)
        method.load_checkpoint({prefix + key: tensor for key, tensor in tensors.items()}, "test")
        maps.append(method.predict(batch).maps)
    assert torch.equal(maps[0], maps[1])


def test_official_file_is_read_and_sets_what_the_weights_were_trained_on(
    encoder: encoders.base.Encoder, tmp_path: Path
) -> None:
    path = tmp_path / "mvtec_pretrained.pth"
    torch.save({"trainable_linearlayer": checkpoint(encoder), "optimizer": {"step": torch.zeros(1)}}, path)
    method = methods.create("april_gan.mvtec", encoder=encoder)
    assert method.trained_on is None
    method.load_checkpoint(read_checkpoint(path), str(path))
    assert method.trained_on == {"mvtec"}
    assert torch.equal(method.trained.fc[3].bias, checkpoint(encoder)["fc.3.bias"])


def test_weights_of_another_shape_are_refused_with_both_shapes(encoder: encoders.base.Encoder) -> None:
    tensors = checkpoint(encoder) | {"fc.2.weight": torch.zeros(768, 1024)}
    with pytest.raises(WeightsError, match=r"official.pth.* fc.2.weight \[768, 1024\] instead of \[32, 64\]"):
        make(encoder).load_checkpoint(tensors, "official.pth")


@pytest.mark.parametrize(("stages", "message"), [(3, "lacks fc.3.bias"), (5, "unknown fc.4.bias")])
def test_weights_for_another_number_of_stages_are_refused(
    encoder: encoders.base.Encoder, stages: int, message: str
) -> None:
    with pytest.raises(WeightsError, match=message):
        make(encoder).load_checkpoint(checkpoint(encoder, stages), "test")


def test_refused_weights_leave_the_earlier_ones(encoder: encoders.base.Encoder) -> None:
    method = make(encoder)
    method.load_checkpoint(checkpoint(encoder), "good")
    batch = from_tensor(toy_images(1, encoder.size), CATEGORY)
    before = method.predict(batch).maps
    with pytest.raises(WeightsError):
        method.load_checkpoint(checkpoint(encoder, 3), "bad")
    assert torch.equal(method.predict(batch).maps, before)


def test_initial_weights_depend_on_the_seed_alone(encoder: encoders.base.Encoder) -> None:
    batch = from_tensor(toy_images(1, encoder.size), CATEGORY)
    maps = []
    state = torch.get_rng_state()
    for seed in (0, 0, 1):
        method = make(encoder)
        method.initialise(seed)
        maps.append(method.predict(batch).maps)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(maps[0], maps[1])
    assert not torch.equal(maps[0], maps[2])


def test_stage_maps_are_differentiable_in_the_layers(encoder: encoders.base.Encoder) -> None:
    method = make(encoder)
    method.initialise(seed=0)
    batch = from_tensor(toy_images(1, encoder.size), CATEGORY)
    with torch.no_grad():
        tokens = batch.features(encoder, method.request).tokens(3)
    method.stage_map(tokens, 0, method.text(CATEGORY)).sum().backward()
    assert method.trained.fc[0].weight.grad.abs().sum() > 0
    assert method.trained.fc[1].weight.grad is None


@pytest.mark.parametrize(("score", "scope"), [("minmax", "category"), ("bounded", "image")])
def test_few_shot_keeps_the_contract_of_its_scope(score: str, scope: str) -> None:
    check_method("april_gan", shots=2, few_shot_score=score)
    assert methods.create("april_gan", encoder="tiny", shots=2, few_shot_score=score).image_scope == scope
    assert methods.create("april_gan", encoder="tiny", few_shot_score=score).image_scope == "image"


def few_shot(encoder: encoders.base.Encoder, **changes: object) -> TrainableMethod:
    """Return a method with random layers that remembers two references."""
    method = make(encoder, shots=2, **changes)
    method.load_checkpoint(checkpoint(encoder), "test")
    method.remember(from_tensor(toy_images(2, encoder.size, seed=1), CATEGORY))
    return method


def test_few_shot_maps_and_scores_equal_the_formulas_of_the_page(encoder: encoders.base.Encoder) -> None:
    zero_shot, method = make(encoder), few_shot(encoder)
    zero_shot.load_checkpoint(checkpoint(encoder), "test")
    batch = from_tensor(toy_images(3, encoder.size), CATEGORY)
    probability, expected = whole.predict(zero_shot, batch)
    references = from_tensor(toy_images(2, encoder.size, seed=1), CATEGORY).features(encoder, method.request)
    features = batch.features(encoder, method.request)
    for layer in (3, 6, 9, 12):
        memory = torch.nn.functional.normalize(references.tokens(layer), dim=2).reshape(-1, 64)
        tokens = torch.nn.functional.normalize(features.tokens(layer), dim=2)
        distance = (1 - tokens @ memory.T).min(dim=2).values.reshape(3, 1, 8, 8)
        expected = expected + torch.nn.functional.interpolate(distance, 64, mode="bilinear", align_corners=True)[:, 0]
    scores, maps = whole.predict(method, batch)
    torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-4)
    peak = expected.flatten(1).max(dim=1).values
    minmax = (peak - peak.min()) / (peak.max() - peak.min())
    torch.testing.assert_close(scores, (probability + minmax) / 2, rtol=1e-4, atol=1e-4)
    bounded = whole.predict(few_shot(encoder, few_shot_score="bounded"), batch).scores
    torch.testing.assert_close(bounded, (probability + peak / 8) / 2, rtol=1e-4, atol=1e-4)


def test_a_reference_image_itself_adds_nothing_to_its_map(encoder: encoders.base.Encoder) -> None:
    method = few_shot(encoder)
    batch = from_tensor(toy_images(2, encoder.size, seed=1), CATEGORY)
    assert method.memory_map(batch.features(encoder, method.request), CATEGORY).max() < 1e-4


def test_equal_images_have_equal_few_shot_scores_and_no_nan(encoder: encoders.base.Encoder) -> None:
    images = toy_images(1, encoder.size).repeat(3, 1, 1, 1)
    scores, _ = whole.predict(few_shot(encoder), from_tensor(images, CATEGORY))
    assert torch.isfinite(scores).all() and scores.unique().numel() == 1


def test_few_shot_without_references_of_the_category_is_a_sentence(encoder: encoders.base.Encoder) -> None:
    method = few_shot(encoder)
    other = Category("pill", "pill", "toy")
    with pytest.raises(UsageError, match="shots=2 knows no references of category 'pill'"):
        method.predict(from_tensor(toy_images(1, encoder.size), other))


@dataclass
class Steps:
    """What a loss needs of a training batch."""

    images: Tensor
    categories: tuple[Category, ...]

    def features(self, encoder: encoders.base.Encoder, request: object) -> object:
        with torch.no_grad():
            return encoder.encode(self.images, request)


def test_the_loss_uses_each_images_own_category(encoder: encoders.base.Encoder) -> None:
    method, other = make(encoder), Category("pill", "pill", "toy")
    method.initialise(seed=0)
    images, masks = toy_images(2, encoder.size), torch.zeros(2, encoder.size, encoder.size)
    masks[1, :8, :8] = 1
    labels = torch.tensor([0, 1])
    mixed = method.loss(Steps(images, (CATEGORY, other)), labels, masks)
    alone = [
        method.loss(Steps(images[i : i + 1], (category,)), labels[i : i + 1], masks[i : i + 1])
        for i, category in enumerate((CATEGORY, other))
    ]
    for name in ("focal", "dice"):
        torch.testing.assert_close(mixed[name], (alone[0][name] + alone[1][name]) / 2, rtol=1e-4, atol=1e-5)
