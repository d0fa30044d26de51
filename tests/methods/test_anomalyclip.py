"""AnomalyCLIP: prompts, local path, losses, checkpoints and their errors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from zsadbench import encoders, methods
from zsadbench.datasets import Category
from zsadbench.encoders.features import FeatureRequest
from zsadbench.encoders.weights import read_checkpoint
from zsadbench.errors import NeedsCheckpoint, OptionError, WeightsError
from zsadbench.methods import TrainableMethod
from zsadbench.running.loading import from_tensor
from zsadbench.testing import check_method, toy_images
from zsadbench.training import cross_dataset

CATEGORY = Category("metal_nut", "metal nut", "toy")


@pytest.fixture(scope="module")
def encoder() -> encoders.base.Encoder:
    return encoders.load("tiny")


def make(encoder: encoders.base.Encoder, **changes: object) -> TrainableMethod:
    """Return a method with fresh weights."""
    method = methods.create("anomalyclip", encoder=encoder, **changes)
    method.initialise(seed=0)
    return method


def official(method: TrainableMethod) -> dict[str, Tensor]:
    """Return random vectors under all official names (§Checkpoints), shaped for the method's text tower."""
    width, context = method.text.width, method.config.context
    shapes = {f"ctx_{state}": (1, 1, context, width) for state in ("pos", "neg")}
    shapes |= {f"token_prefix_{state}": (1, 1, 1, width) for state in ("pos", "neg")}
    shapes |= {f"token_suffix_{state}": (1, 1, 76 - context, width) for state in ("pos", "neg")}
    for i in range(method.deep_depth - 1):
        shapes[f"compound_prompts_text.{i}"] = (method.config.deep_length, width)
        shapes |= {
            f"compound_prompt_projections.{i}.weight": (896, width),
            f"compound_prompt_projections.{i}.bias": (896,),
        }
    generator = torch.Generator().manual_seed(0)
    drawn = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return drawn | {f"tokenized_prompts_{state}": torch.zeros(1, 1, 77, dtype=torch.int32) for state in ("pos", "neg")}


@pytest.mark.parametrize(
    "changes", [{"dpam_blocks": 0}, {"dpam_blocks": 12}, {"layers": (1, 5), "image_norm": True}, {"deep_depth": 1}]
)
def test_other_options_keep_the_contract(changes: dict[str, object]) -> None:
    check_method("anomalyclip", **changes)


@pytest.mark.parametrize(("name", "preset"), [("anomalyclip", "visa"), ("anomalyclip.multi", "multi_visa")])
def test_presets_are_named_after_the_training_set(name: str, preset: str) -> None:
    assert cross_dataset.suited(name, "mvtec") == f"anomalyclip.{preset}"
    assert cross_dataset.suited(name, "visa") == f"anomalyclip.{preset.replace('visa', 'mvtec')}"


def test_published_depths_follow_from_the_towers(encoder: encoders.base.Encoder) -> None:
    method = make(encoder)  # 12 image blocks, 12 text blocks
    assert (method.layers, method.first, method.deep_depth) == ((12,), 3, 9)
    assert method.request == FeatureRequest(vv_path={(3, 12)}, cls=True)
    multi = make(encoder, stages=4, dpam_blocks=6)
    assert multi.request == FeatureRequest(tokens={3, 6}, vv_path={(7, 9), (7, 12)}, cls=True)


def test_prediction_equals_the_formulas_of_the_page(encoder: encoders.base.Encoder) -> None:
    method = make(encoder, layers=(2, 7, 12), dpam_blocks=8)
    batch = from_tensor(toy_images(2, encoder.size), CATEGORY)
    scores, maps = method.predict(batch)
    assert not scores.requires_grad and not maps.requires_grad
    features = encoder.encode(batch.images, FeatureRequest(tokens={2, 4, 12}, vv=range(5, 13)))
    text = method.text_features()
    projection = encoder.tower.projection
    stream = torch.cat([features.prefix(4), features.tokens(4)], dim=1)  # h_4
    local = {2: features.tokens(2)}
    for block in range(5, 13):
        stream = stream + features.vv(block)
        local[block] = stream[:, 1:]
    expected = torch.zeros(2, 8, 8)
    for layer in (2, 7, 12):
        patches = functional.normalize(projection(encoder.tower.norm(local[layer])), dim=2)
        expected += (patches @ text.T / 0.07).softmax(dim=2)[..., 1].reshape(2, 8, 8)
    torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-5)
    token = functional.normalize(projection(features.prefix(12)[:, 0]), dim=1)  # without the final norm
    torch.testing.assert_close(scores, (token @ text.T / 0.07).softmax(dim=1)[:, 1], rtol=1e-4, atol=1e-5)


def test_without_local_path_patches_are_clips_own(encoder: encoders.base.Encoder) -> None:
    method = make(encoder, dpam_blocks=0)
    batch = from_tensor(toy_images(1, encoder.size), CATEGORY)
    features = batch.features(encoder, method.request)
    assert torch.equal(method.local_tokens(features, 12), features.tokens(12))


def test_image_norm_gives_clips_own_embedding(encoder: encoders.base.Encoder) -> None:
    batch = from_tensor(toy_images(1, encoder.size), CATEGORY)
    features = batch.features(encoder, FeatureRequest(cls=True))
    assert torch.equal(make(encoder, image_norm=True).image_embedding(features), features.embedding)
    assert not torch.allclose(make(encoder).image_embedding(features), features.embedding)


def test_sentences_with_the_embeddings_of_real_words_are_plain_sentences(encoder: encoders.base.Encoder) -> None:
    method = make(encoder, context=2, deep_depth=1, deep_length=1)
    word = encoder.text.embed(encoder.text.tokenize(["photo"]))[0, 1]
    with torch.no_grad():
        method.trained.ctx_pos.copy_(word.expand(1, 1, 2, -1))
        method.trained.ctx_neg.copy_(word.expand(1, 1, 2, -1))
    plain = encoder.text.encode(["photo photo object.", "photo photo damaged object."])
    torch.testing.assert_close(method.text_features(), functional.normalize(plain, dim=1))


def test_deep_vectors_are_read_after_rounding_through_float16(encoder: encoders.base.Encoder) -> None:
    rounding, exact = make(encoder), make(encoder, half_deep_prompts=False)
    with torch.no_grad():
        for vectors in exact.trained.compound_prompts_text:
            vectors.copy_(vectors.half().float())
    assert torch.equal(rounding.text_features(), exact.text_features())
    assert not torch.equal(rounding.text_features(), make(encoder, half_deep_prompts=False).text_features())


def test_deep_length_and_depth_give_the_vectors_their_shape(encoder: encoders.base.Encoder) -> None:
    method = make(encoder, deep_depth=3, deep_length=5, context=6)
    shapes = {name: list(tensor.shape) for name, tensor in method.trained.state_dict().items()}
    assert shapes == {
        "ctx_pos": [1, 1, 6, 32],
        "ctx_neg": [1, 1, 6, 32],
        "compound_prompts_text.0": [5, 32],
        "compound_prompts_text.1": [5, 32],
    }


def test_results_know_no_class(encoder: encoders.base.Encoder) -> None:
    method, images = make(encoder), toy_images(2, encoder.size)
    one, other = (method.predict(from_tensor(images, Category(name, name, "toy"))) for name in ("nut", "pill"))
    assert torch.equal(one.scores, other.scores) and torch.equal(one.maps, other.maps)


def test_text_is_encoded_once_for_given_weights(
    encoder: encoders.base.Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, calls = make(encoder), []
    encode = type(encoder.text).encode_embeddings
    monkeypatch.setattr(
        type(encoder.text), "encode_embeddings", lambda *arguments: calls.append(1) or encode(*arguments)
    )
    before = method.text_features()
    assert method.text_features() is before and len(calls) == 1
    with torch.no_grad():
        method.trained.ctx_neg.add_(0.1)  # as an optimiser does
    assert not torch.equal(method.text_features(), before) and len(calls) == 2
    method.initialise(seed=0)
    assert torch.equal(method.text_features(), before)


def test_initial_vectors_depend_on_the_seed_alone_and_have_the_published_spread(encoder: encoders.base.Encoder) -> None:
    state = torch.get_rng_state()
    drawn = []
    for seed in (0, 0, 1):
        method = methods.create("anomalyclip", encoder=encoder)
        method.initialise(seed)
        drawn.append(torch.cat([vectors.flatten() for vectors in method.trained.parameters()]))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert float(drawn[0].detach().std()) == pytest.approx(0.02, rel=0.1)


@dataclass
class Step:
    """What a loss needs of a training batch."""

    images: Tensor

    def features(self, encoder: encoders.base.Encoder, request: FeatureRequest) -> object:
        with torch.no_grad():
            return encoder.encode(self.images, request)


def test_the_loss_equals_the_formulas_of_the_page(encoder: encoders.base.Encoder) -> None:
    method = make(encoder, layers=(6, 12), local_weight=3.0, temperature=0.05)
    images, labels = toy_images(2, encoder.size), torch.tensor([0, 1])
    masks = torch.zeros(2, encoder.size, encoder.size)
    masks[1, :9, :7] = 1
    terms = method.loss(Step(images), labels, masks)
    features, text = Step(images).features(encoder, method.request), method.text_features()
    token = functional.normalize(encoder.tower.projection(features.class_token), dim=1)
    expected = {"image": functional.cross_entropy(token @ text.T / 0.05, labels), "focal": 0.0, "dice": 0.0}
    for layer in (6, 12):
        patches = functional.normalize(encoder.project(features.vv_path(3, layer)[:, 1:]), dim=2)
        grid = (patches @ text.T / 0.05).softmax(dim=2).transpose(1, 2).reshape(2, 2, 8, 8)
        normal, abnormal = functional.interpolate(grid, 64, mode="bilinear", align_corners=False).unbind(dim=1)
        chosen = masks * abnormal + (1 - masks) * normal
        expected["focal"] += 3 * (-((1 - chosen) ** 2) * chosen.log()).mean()
        for map_, truth in ((abnormal, masks), (normal, 1 - masks)):
            overlap = 2 * (map_ * truth).sum(dim=(1, 2)) + 1
            expected["dice"] += 3 * (1 - overlap / (map_.sum(dim=(1, 2)) + truth.sum(dim=(1, 2)) + 1)).mean()
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(terms[name].detach(), value, rtol=1e-3, atol=1e-4)


def test_all_learned_vectors_and_nothing_else_get_gradients(encoder: encoders.base.Encoder) -> None:
    method = make(encoder)
    masks = torch.zeros(2, encoder.size, encoder.size)
    masks[1, :9, :7] = 1
    terms = method.loss(Step(toy_images(2, encoder.size)), torch.tensor([0, 1]), masks)
    torch.stack(list(terms.values())).sum().backward()
    assert {name for name, vectors in method.trained.named_parameters() if vectors.grad.abs().sum() > 0} == {
        "ctx_pos",
        "ctx_neg",
        *(f"compound_prompts_text.{i}" for i in range(8)),
    }
    assert encoder.text.embed(encoder.text.tokenize(["a"])).requires_grad is False


def test_official_file_is_read_and_sets_what_the_weights_were_trained_on(
    encoder: encoders.base.Encoder, tmp_path: Path
) -> None:
    method = methods.create("anomalyclip.mvtec", encoder=encoder)
    tensors = official(method)
    assert len(tensors) == 32  # §Checkpoints
    torch.save({"prompt_learner": tensors}, tmp_path / "epoch_15.pth")
    method.load_checkpoint(read_checkpoint(tmp_path / "epoch_15.pth"), "epoch_15.pth")
    assert method.trained_on == {"mvtec"}
    assert torch.equal(method.trained.ctx_neg, tensors["ctx_neg"])
    assert torch.equal(method.trained.compound_prompts_text[7], tensors["compound_prompts_text.7"])
    again = methods.create("anomalyclip.mvtec", encoder=encoder)
    again.load_checkpoint(method.trained.state_dict(), "own names")
    assert torch.equal(again.text_features(), method.text_features())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"ctx_pos": torch.zeros(1, 1, 12, 768)},
            r"official.pth.* ctx_pos \[1, 1, 12, 768\] instead of \[1, 1, 12, 32\]",
        ),
        ({"compound_prompts_text.8": torch.zeros(4, 32)}, "unknown compound_prompts_text.8"),
        ({"visual.proj": torch.zeros(1)}, "unknown visual.proj"),
    ],
)
def test_weights_of_another_architecture_are_refused(
    encoder: encoders.base.Encoder, changes: dict[str, Tensor], message: str
) -> None:
    method = methods.create("anomalyclip", encoder=encoder)
    with pytest.raises(WeightsError, match=message):
        method.load_checkpoint(official(method) | changes, "official.pth")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dpam_blocks": 13}, "anomalyclip.dpam_blocks is 13; expected 0 to 12"),
        ({"deep_depth": 13}, "anomalyclip.deep_depth is 13; expected 1 to 12"),
        ({"deep_length": 13}, "anomalyclip.deep_length is 13; expected 1 to 12"),
    ],
)
def test_options_that_do_not_fit_the_encoder_are_refused(
    encoder: encoders.base.Encoder, changes: dict[str, int], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        methods.create("anomalyclip", encoder=encoder, **changes)


def test_predicting_without_weights_asks_for_a_checkpoint(encoder: encoders.base.Encoder) -> None:
    method = methods.create("anomalyclip.mvtec", encoder=encoder)
    with pytest.raises(
        NeedsCheckpoint, match=r"anomalyclip.mvtec needs trained .* --checkpoint anomalyclip.mvtec=PATH"
    ):
        method.predict(from_tensor(toy_images(1, encoder.size), CATEGORY))
