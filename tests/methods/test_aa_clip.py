"""AA-CLIP: both towers' adapters, both stages' losses, the rules of a domain, checkpoints and their errors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import whole
from torch import Tensor
from torch.nn import functional
from zsadbench.methods.aa_clip.adapters import mix

from zsadbench import encoders, methods
from zsadbench.components import prompts
from zsadbench.components.postprocess import finish
from zsadbench.datasets import Category
from zsadbench.encoders.weights import read_checkpoint
from zsadbench.errors import NeedsCheckpoint, OptionError, WeightsError
from zsadbench.methods import TrainableMethod
from zsadbench.running.loading import from_tensor
from zsadbench.support.plugins import load
from zsadbench.testing import check_method, toy_images

CATEGORY, OTHER = Category("metal_nut", "metal nut", "toy"), Category("pill", "white pill", "toy")
LEVELS = (3, 6, 9, 12)


@pytest.fixture(scope="module")
def encoder() -> encoders.base.Encoder:
    return encoders.load("tiny")


def make(encoder: encoders.base.Encoder, **changes: object) -> TrainableMethod:
    method = methods.create("aa_clip", encoder=encoder, **changes)
    method.initialise(seed=0)
    return method


@dataclass
class Steps:
    """What a loss needs of a training batch."""

    images: Tensor
    categories: tuple[Category, ...]

    def features(self, encoder: encoders.base.Encoder, request: object) -> object:
        with torch.no_grad():
            return encoder.encode(self.images, request)


def steps(encoder: encoders.base.Encoder) -> tuple[Steps, Tensor, Tensor]:
    """Return a batch of two categories, its labels and masks."""
    masks = torch.zeros(3, encoder.size, encoder.size)
    masks[1:, :16, :24] = 1
    return Steps(toy_images(3, encoder.size), (CATEGORY, OTHER, CATEGORY)), torch.tensor([0, 1, 1]), masks


@pytest.mark.parametrize("changes", [{"relu": True}, {"domain": "medical"}, {"levels": (6, 12)}])
def test_options_keep_the_contract(changes: dict[str, object]) -> None:
    check_method("aa_clip", **changes)


def test_the_residual_rule_adds_the_adaptation_at_the_tokens_own_length() -> None:
    x, adapted = torch.tensor([[3.0, 4.0]]), torch.tensor([[0.25, 0.0]])
    assert torch.allclose(mix(x, adapted, 0.1), torch.tensor([[0.1 * 5 + 0.9 * 3, 0.9 * 4]]))


def adapted_tower(method: TrainableMethod, images: Tensor) -> tuple[list[Tensor], Tensor]:
    """Return segmentation tokens of each level and the detection token, by the page's formulas (§Image side)."""
    encoder, weights = method.encoder, method.trained.state_dict()
    x, captured = encoder.tower.norm_pre(encoder.embed(images)), []
    for i, block in enumerate(encoder.blocks):
        x = block(x)
        if i < 3:  # a quarter of 12
            a = functional.leaky_relu(x @ weights[f"image_adapter.layer_adapters.{i}.fc.0.weight"].T, 0.01)
            a = a * x.norm(dim=-1, keepdim=True) / a.norm(dim=-1, keepdim=True)
            x = 0.1 * a + 0.9 * x
        if i + 1 in LEVELS:
            captured.append(encoder.tower.norm(x[:, 1:]))
    tokens = [t @ weights[f"image_adapter.seg_proj.{i}.fc.weight"].T for i, t in enumerate(captured)]
    detection = captured[-1] @ weights["image_adapter.det_proj.fc.weight"].T
    return [t / t.norm(dim=-1, keepdim=True) for t in tokens], (detection / detection.norm(dim=-1, keepdim=True)).mean(
        dim=1
    )


def anchors(method: TrainableMethod, noun: str) -> Tensor:
    """Return a noun's unit rows [normal, abnormal], by the page's formulas (§Text)."""
    tower, weights, rows = method.text, method.trained.state_dict(), []

    def adapt(layer: int, x: Tensor) -> Tensor:
        if layer > 3:  # a quarter of 12
            return x
        a = functional.leaky_relu(x @ weights[f"text_adapter.{layer - 1}.fc.0.weight"].T, 0.01)
        return 0.1 * a * x.norm(dim=-1, keepdim=True) / a.norm(dim=-1, keepdim=True) + 0.9 * x

    for sentences in prompts.sentences(prompts.get("aa_clip"), noun):
        ids = tower.tokenize(sentences)
        ends = tower.end_tokens(tower.embed(ids), ids.argmax(dim=1), adapt)
        embeddings = functional.leaky_relu(ends @ weights["text_adapter.3.fc.0.weight"].T, 0.01)
        mean = (embeddings / embeddings.norm(dim=1, keepdim=True)).mean(dim=0)
        rows.append(mean / mean.norm())
    return torch.stack(rows)


@pytest.mark.parametrize(("domain", "side", "sigma"), [("industrial", 7, 1.0), ("medical", 9, 1.5)])
def test_prediction_equals_the_formulas_of_the_page(
    encoder: encoders.base.Encoder, domain: str, side: int, sigma: float
) -> None:
    method, images = make(encoder, domain=domain), toy_images(3, encoder.size)
    text = anchors(method, "metal nut")
    segmentation, detection = adapted_tower(method, images)
    offsets = torch.arange(side) - side // 2
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel = torch.outer(kernel, kernel) / kernel.sum() ** 2
    total = torch.zeros(3, encoder.size, encoder.size)
    for tokens in segmentation:
        scores = ((100 * tokens @ text[1] + 1 - 100 * tokens @ text[0]) / 2).reshape(3, 1, 8, 8)
        padded = functional.pad(scores, [side // 2] * 4, mode="reflect")
        blurred = functional.conv2d(padded, kernel[None, None])
        total += functional.interpolate(blurred, encoder.size, mode="bilinear", align_corners=True)[:, 0]
    expected = (total - total.min()) / (total.max() - total.min())
    scores, maps = whole.predict(method, from_tensor(images, CATEGORY))
    torch.testing.assert_close(finish(maps, method, encoder.size), expected, rtol=1e-4, atol=1e-4)
    peaks, raw = expected.flatten(1).amax(dim=1), (detection @ text[1] + 1) / 2
    image = (raw - raw.min()) / (raw.max() - raw.min())
    torch.testing.assert_close(scores, peaks if domain == "medical" else (peaks + image) / 2, rtol=1e-4, atol=1e-4)


def test_without_scaling_scores_and_maps_are_the_raw_ones_of_an_image_alone(encoder: encoders.base.Encoder) -> None:
    batch = from_tensor(toy_images(3, encoder.size), CATEGORY)
    scaled, plain = (make(encoder, score=score) for score in ("minmax", "plain"))
    (_, highest, detected), raw = scaled.predict(batch).scores.unbind(1), scaled.predict(batch).maps
    scores, maps = whole.predict(plain, batch)
    assert torch.equal(maps, raw) and (plain.scope, plain.image_scope) == ("image", "image")
    torch.testing.assert_close(scores, (highest + detected) / 2)
    assert whole.predict(scaled, batch).maps.max() <= 1 < raw.max(), "one line for all maps of the category"


def test_a_category_of_equal_images_has_equal_scores_and_no_nan(encoder: encoders.base.Encoder) -> None:
    images = toy_images(1, encoder.size).expand(3, -1, -1, -1)
    scores, maps = whole.predict(make(encoder), from_tensor(images, CATEGORY))
    assert torch.isfinite(maps).all() and torch.isfinite(scores).all() and scores.unique().numel() == 1


def test_anchors_use_the_noun_that_the_option_names(encoder: encoders.base.Encoder) -> None:
    method = make(encoder)
    readable, raw = (make(encoder, noun=noun).known_text(CATEGORY) for noun in ("readable", "raw"))
    torch.testing.assert_close(readable, anchors(method, "metal nut"))
    torch.testing.assert_close(raw, anchors(method, "metal_nut"))
    assert not torch.allclose(readable, raw)


def test_anchors_are_computed_once_and_anew_when_the_adapters_change(
    encoder: encoders.base.Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, calls = make(encoder), []
    original = method.encode_text
    monkeypatch.setattr(method, "encode_text", lambda noun: calls.append(noun) or original(noun))
    with torch.inference_mode():
        first = method.known_text(CATEGORY)
        method.known_text(CATEGORY)
    assert calls == ["metal nut"]
    with torch.no_grad():
        method.trained.image_adapter["det_proj"].fc.weight.mul_(2)
    assert method.known_text(CATEGORY) is first and not first.is_inference()
    with torch.no_grad():
        method.trained.text_adapter[0].fc[0].weight.normal_(generator=torch.Generator().manual_seed(1))
    assert not torch.allclose(method.known_text(CATEGORY), first)


def test_value_attention_runs_over_images_at_each_position_or_over_the_tokens_of_an_image(
    encoder: encoders.base.Encoder,
) -> None:
    attend_values = load("zsadbench.methods", "aa_clip").attend_values
    x = torch.randn(3, 5, encoder.width, generator=torch.Generator().manual_seed(0))
    block = encoder.blocks[4]
    values = block.qkv(block.norm1(x))[2]  # [3, heads, 5, d]
    by_token = torch.stack(
        [torch.stack([row @ row.T * block.scale for row in image]).softmax(dim=-1) @ image for image in values]
    )
    torch.testing.assert_close(attend_values(block, x, "tokens"), block.out(by_token))
    by_image = torch.empty_like(values)
    for head in range(values.shape[1]):
        for position in range(5):
            v = values[:, head, position]  # [3, d]
            by_image[:, head, position] = (v @ v.T * block.scale).softmax(dim=-1) @ v
    torch.testing.assert_close(attend_values(block, x, "batch"), block.out(by_image))
    alone = attend_values(block, x[:1], "batch")
    torch.testing.assert_close(alone, block.out(values[:1]), msg="one image attends to itself alone")


def test_surgery_starts_at_its_first_block_and_adds_the_image_embedding(encoder: encoders.base.Encoder) -> None:
    batch, _, _ = steps(encoder)
    clip = batch.features(encoder, encoders.features.FeatureRequest(tokens=LEVELS, cls=True))
    image = functional.normalize(clip.embedding, dim=1)[:, None]
    plain = [functional.normalize(encoder.project(clip.tokens(level)), dim=2) + image for level in LEVELS]
    none = make(encoder, surgery_blocks=0).surgery_features(batch)
    late = make(encoder, surgery_blocks=6).surgery_features(batch)
    default = make(encoder).surgery_features(batch)  # blocks 3 to 12
    assert len(none) == len(late) == len(default) == 4
    for level in range(4):
        torch.testing.assert_close(none[level], plain[level])
        assert torch.allclose(late[level], plain[level], atol=1e-5) == (level < 2)
        assert not torch.allclose(default[level], plain[level], atol=1e-2)


def test_the_first_stage_depends_on_the_batch_only_along_the_batch_axis(encoder: encoders.base.Encoder) -> None:
    batch, _, _ = steps(encoder)
    first = Steps(batch.images[:1], batch.categories[:1])
    for axis, same in (("tokens", True), ("batch", False)):
        method = make(encoder, surgery_attention_axis=axis)
        whole, alone = (method.surgery_features(one)[-1][0] for one in (batch, first))
        assert torch.allclose(whole, alone, atol=1e-4) == same


def seg_loss(method: TrainableMethod, levels: list[Tensor], text: Tensor, masks: Tensor) -> Tensor:
    """Return the segmentation loss of the page (§Training), summed over levels."""
    total = torch.zeros(())
    for tokens in levels:
        logits = (100 * tokens @ text.mT).transpose(1, 2).unflatten(2, (8, 8))  # [B, 2, g, g]
        full = functional.interpolate(logits, method.encoder.size, mode="bilinear", align_corners=True).softmax(dim=1)
        target = torch.stack([1 - masks, masks], dim=1).clamp(1e-5, 1 - 1e-5)
        pt = (target * full).sum(dim=1) + 1e-5
        total = total - ((1 - pt) ** 2 * pt.log()).mean()
        for channel, mask in enumerate((1 - masks, masks)):
            sums = [(full[:, channel] * mask).sum((1, 2)), full[:, channel].sum((1, 2)), mask.sum((1, 2))]
            total = total + (1 - (2 * sums[0] + 1) / (sums[1] + sums[2] + 1)).mean()
    return total


def test_losses_of_both_stages_equal_the_formulas_of_the_page(encoder: encoders.base.Encoder) -> None:
    batch, labels, masks = steps(encoder)
    method = make(encoder)
    text = torch.stack([anchors(method, category.noun) for category in batch.categories])
    levels = method.surgery_features(batch)
    overlap = (text[:, 0] * text[:, 1]).sum(dim=1).mean() ** 2
    last = method.loss(batch, labels, masks, "text")
    torch.testing.assert_close(last["seg"], seg_loss(method, levels[-1:], text, masks))
    torch.testing.assert_close(last["ortho"], 0.1 * overlap)
    every = make(encoder, stage1_loss="paper_sum", text_norm_weight=0.5).loss(batch, labels, masks, "text")
    torch.testing.assert_close(every["seg"], seg_loss(method, levels, text, masks))
    torch.testing.assert_close(every["ortho"], 0.5 * overlap)
    image = method.loss(batch, labels, masks, "image")
    segmentation, detection = adapted_tower(method, batch.images)
    torch.testing.assert_close(image["seg"], seg_loss(method, segmentation, text, masks), rtol=1e-4, atol=1e-4)
    log = torch.einsum("bcj,bj->bc", text, detection).log_softmax(dim=1)
    torch.testing.assert_close(image["cls"], -(log[0, 0] + log[1, 1] + log[2, 1]) / 3)


@pytest.mark.parametrize("stage", ["text", "image"])
def test_each_stage_reaches_exactly_its_own_parameters(encoder: encoders.base.Encoder, stage: str) -> None:
    method = make(encoder)
    (own,) = (one.parameters for one in method.recipe.stages if one.name == stage)
    sum(method.loss(*steps(encoder), stage).values()).backward()
    for name, parameter in method.trained.named_parameters():
        reached = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
        assert reached == name.startswith(own), name


def test_the_recipe_is_the_published_one() -> None:
    text, image = methods.configure("aa_clip")[2].recipe.stages
    assert (text.epochs, text.lr, image.epochs, image.lr) == (5, 1e-5, 20, 5e-4)
    assert methods.configure("aa_clip")[2].recipe.batch_size_of(0) == 16 and image.batch_size == 2
    assert image.schedule.factor(15_999, 21_620) == 1 and image.schedule.factor(16_000, 21_620) == 0.5
    assert text.augment.colour_chance == 0 and image.augment.colour_chance == 0.7
    assert methods.configure("aa_clip.visa_epoch15")[2].recipe.stages[1].epochs == 15


def test_the_two_official_files_are_read_together(encoder: encoders.base.Encoder, tmp_path: Path) -> None:
    method = make(encoder)
    tensors = method.trained.state_dict()
    text = {key.removeprefix("text_adapter."): value for key, value in tensors.items() if key.startswith("text")}
    image = {key.removeprefix("image_adapter."): value for key, value in tensors.items() if key.startswith("image")}
    assert sorted(text) == ["0.fc.0.weight", "1.fc.0.weight", "2.fc.0.weight", "3.fc.0.weight"]
    assert sorted(image) == sorted(
        [f"layer_adapters.{i}.fc.0.weight" for i in range(3)]
        + [f"seg_proj.{i}.fc.weight" for i in range(4)]
        + ["det_proj.fc.weight"]
    )
    optimiser = {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-5}]}
    paths = tmp_path / "text_adapter.pth", tmp_path / "image_adapter_20.pth"
    torch.save({"epoch": 5, "text_adapter": text, "text_optimizer": optimiser}, paths[0])
    torch.save({"epoch": 20, "image_adapter": image, "image_optimizer": optimiser}, paths[1])
    loaded = methods.create("aa_clip", encoder=encoder)
    loaded.load_checkpoint(read_checkpoint(*paths), "both")
    assert loaded.trained_on == {"visa"}
    assert all(torch.equal(value, tensors[key]) for key, value in loaded.trained.state_dict().items())


def test_relu_projections_have_the_official_names_and_a_leaky_relu(encoder: encoders.base.Encoder) -> None:
    method = make(encoder, relu=True)
    assert {"image_adapter.seg_proj.0.fc.0.weight", "image_adapter.det_proj.fc.0.weight"} <= set(
        method.trained.state_dict()
    )
    projected = method.trained.image_adapter["det_proj"](toy_tokens := torch.randn(4, encoder.width))
    linear = toy_tokens @ method.trained.state_dict()["image_adapter.det_proj.fc.0.weight"].T
    torch.testing.assert_close(projected, torch.where(linear > 0, linear, 0.01 * linear))


def test_one_file_of_the_two_is_refused(encoder: encoders.base.Encoder) -> None:
    tensors = {key: value for key, value in make(encoder).trained.state_dict().items() if key.startswith("text")}
    with pytest.raises(WeightsError, match=r"text_adapter\.pth.* lacks image_adapter"):
        make(encoder).load_checkpoint(tensors, "text_adapter.pth")


def test_predicting_without_weights_asks_for_a_checkpoint(encoder: encoders.base.Encoder) -> None:
    with pytest.raises(NeedsCheckpoint, match=r"aa_clip.mvtec needs trained .* --checkpoint aa_clip.mvtec=PATH"):
        methods.create("aa_clip.mvtec", encoder=encoder).predict(from_tensor(toy_images(1, 64), CATEGORY))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_adapt_until": 13}, r"aa_clip.image_adapt_until is 13; expected 0 to 12"),
        ({"text_adapt_until": -1}, r"aa_clip.text_adapt_until is -1; expected 0 to 12"),
        ({"levels": (6, 24)}, r"aa_clip.levels is \(6, 24\); expected blocks 1 to 12"),
        ({"surgery_blocks": 20}, r"aa_clip.surgery_blocks is 20; expected 0 to 12"),
    ],
)
def test_options_that_do_not_fit_the_encoder_are_sentences(
    encoder: encoders.base.Encoder, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        methods.create("aa_clip", encoder=encoder, **changes)


def test_a_grid_smaller_than_half_the_blur_is_a_sentence() -> None:
    small = encoders.load("tiny", size=32)  # 4 x 4 patches
    assert make(small).predict(from_tensor(toy_images(2, 32), CATEGORY)).maps.shape == (2, 4, 4)
    with pytest.raises(OptionError, match=r"blurs maps over 9 patches; the grid of 'tiny' has 4 at a side"):
        make(small, domain="medical")
