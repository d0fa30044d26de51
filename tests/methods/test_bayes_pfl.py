"""Bayes-PFL: flows, prompts, maps and scores against the page's formulas; losses, checkpoints and errors."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
import whole
from torch import Tensor
from zsadbench.methods.bayes_pfl import (
    IMAGE_BRANCH,
    IMAGE_STAGE,
    fuse,
    prompt_noun,
)
from zsadbench.methods.bayes_pfl.flows import Draws, Gaussian, Noise, StateFlow, kl_divergence, planar
from zsadbench.methods.bayes_pfl.losses import balanced_focal, batch_dice, orthogonality_loss
from zsadbench.methods.bayes_pfl.network import Network

from zsadbench import datasets, encoders, methods
from zsadbench.datasets import Category
from zsadbench.encoders.base import Encoder
from zsadbench.errors import UsageError, WeightsError
from zsadbench.methods import TrainableMethod
from zsadbench.running.loading import from_tensor
from zsadbench.testing import check_method, toy_images

CATEGORY = Category("metal_nut", "metal nut", "toy")
OTHER = Category("pcb1", "pcb", "toy")


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return encoders.load("tiny")


def make(encoder: Encoder, **changes: object) -> TrainableMethod:
    """Return a method with initial weights, few draws and short prompts."""
    small = {"samples": 2, "bank": 2, "context": 2, "states": 3, "flows": 3, "top": 20}
    method = methods.create("bayes_pfl", encoder=encoder, **small | changes)
    method.initialise(seed=0)
    return method


def unit(vectors: Tensor) -> Tensor:
    return vectors / vectors.norm(dim=-1, keepdim=True)


# --- flows -----------------------------------------------------------------------------------------------------------


def test_planar_steps_by_hand() -> None:
    z = torch.tensor([[[1.0, 2.0]]])
    moved, log_det = planar(z, torch.tensor([[3.0, 0.5]]), torch.tensor([[0.0, 1.0]]), torch.tensor([-2.0]))
    assert torch.equal(moved, z), "tanh(0) moves nothing"
    assert float(log_det) == pytest.approx(np.log(1.5 + 1e-5), rel=1e-6)  # 1 + w . u at the steepest point


def test_log_determinants_are_those_of_the_jacobian() -> None:
    torch.manual_seed(0)
    flow, gaussian = StateFlow(4, 3), Gaussian(4, 5, 4)
    for parameter in flow.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    noise = torch.randn(1, 1, 4)
    draws = flow(gaussian, noise)
    jacobian = torch.autograd.functional.jacobian(lambda x: flow(gaussian, x[None, None]).offsets[0, 0], noise[0, 0])
    scale = draws.variance.sqrt().log().sum()  # of the Gaussian itself
    expected = torch.linalg.slogdet(jacobian).logabsdet - scale
    torch.testing.assert_close(draws.log_det[0, 0], expected, rtol=1e-3, atol=1e-3)


def test_kl_of_a_gaussian_without_steps_is_the_closed_form_in_the_mean() -> None:
    mean, variance = torch.tensor([[[0.5, -1.0]]]), torch.tensor([[[0.5, 2.0]]])
    noise = torch.randn(1, 100_000, 2, generator=torch.Generator().manual_seed(0))
    start = mean + variance.sqrt() * noise
    estimate = kl_divergence(Draws(start, start, torch.zeros(1, 100_000), mean, variance), images=1)
    closed = (variance + mean.square() - 1 - variance.log()).sum() / 2
    assert float(estimate) == pytest.approx(float(closed), abs=0.02)


def test_kl_divides_log_determinants_by_the_number_of_images() -> None:
    zero, one = torch.zeros(1, 1, 2), torch.ones(1, 1, 2)
    shared = Draws(zero, zero, torch.tensor([[6.0]]), zero, one)
    assert float(kl_divergence(shared, images=3)) == -2  # one state draw for three images (§Prompt flows)
    each = Draws(zero.expand(3, 1, 2), zero.expand(3, 1, 2), torch.tensor([[3.0], [6.0], [9.0]]), zero, one)
    assert float(kl_divergence(each, images=3)) == -6  # a mean


# --- prediction ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"score": "mean"}, {"score": "class_token", "stage": 1}])
def test_bayes_pfl_keeps_the_contract_of_its_scope(changes: dict[str, object]) -> None:
    check_method("bayes_pfl", count=3, samples=2, bank=1, **changes)
    method = methods.create("bayes_pfl", encoder="tiny", **changes)
    assert (method.scope, method.image_scope) == ("image", "image" if "score" in changes else "category")


def text_pairs(method: TrainableMethod, embedding: Tensor, sentence: str) -> list[tuple[Tensor, Tensor]]:
    """Return (normal, abnormal) unit text features of one image, a prompt at a time: draws outside, bank inside."""
    network, tower = method.trained, method.encoder.text
    ids = tower.tokenize([sentence])
    tokens, pairs = tower.embed(ids), []

    def offset(flow: object, encoder: Gaussian, condition: Tensor, noise: Tensor, steps: tuple[Tensor, ...]) -> Tensor:
        mean, log_variance = encoder.weight_mean(condition), encoder.weight_log_variance(condition)
        z = mean + (0.5 * log_variance).exp().sqrt() * noise
        for u, w, b in zip(*steps, strict=True):
            z = z + u * torch.tanh(w @ z + b)
        return z

    for r in range(method.config.samples):
        context, width = network.PFL_context, tower.width
        steps = (
            context.amor_u(embedding).reshape(-1, width),
            context.amor_w(embedding).reshape(-1, width),
            context.amor_b(embedding),
        )
        moved = offset(context, network.context_encoder, embedding, method.noise.context[0, r], steps)
        for b in range(method.config.bank):
            rows = []
            for state in ("normal", "abnormal"):
                flow = getattr(network, f"PFL_{state}")
                steps = flow.amor_u[0, :, :, 0], flow.amor_w[0, :, 0], flow.amor_b[0, :, 0, 0]
                drawn = offset(flow, network.state_encoder, flow.state[0], getattr(method.noise, state)[0, r], steps)
                bank = getattr(network, f"prompt_state_{state}")
                learned = torch.cat([network.prompt_context[b] + moved, bank[b] + drawn])
                prompt = torch.cat([tokens[0, :1], learned, tokens[0, 2:]])[: tower.context_length]
                end = ids.argmax(dim=1) + len(learned) - 1
                rows.append(unit(tower.encode_embeddings(prompt[None], end)[0]))
            pairs.append((rows[0], rows[1]))
    return pairs


def attend(network: Network, text: Tensor, patches: Tensor, heads: int) -> Tensor:
    """Return one text feature [J] after reading unit patches [L, J], a head at a time."""
    width = len(text)
    query = network.RCA.q_proj_pre.weight[:, :, 0] @ text + network.RCA.q_proj_pre.bias
    parts = []
    for h in range(heads):
        part = slice(h * width // heads, (h + 1) * width // heads)
        weights = (patches[:, part] @ query[part] * width**-0.5).softmax(dim=0)
        parts.append(weights @ patches[:, part])
    return unit(text + torch.cat(parts))


@pytest.mark.parametrize("stage", [1, 2])
def test_prediction_equals_the_formulas_of_the_page(encoder: Encoder, stage: int) -> None:
    method = make(encoder, score="mean", stage=stage, alpha=0.3)
    network, batch = method.trained, from_tensor(toy_images(1, encoder.size), OTHER)
    with torch.no_grad():
        features = batch.features(encoder, method.request)
        tokens = [features.tokens(layer)[0] for layer in (3, 6, 9, 12)]
        image = features.embedding[0]
        pairs = text_pairs(method, image, "X printed circuit board")
        if stage == 2:
            fused = network.fuse.fuse_modules(torch.cat(tokens, dim=1))
            pooled = (network.fuse.compress(fused).softmax(dim=0) * fused).sum(dim=0)
            image = network.image_mapping(image + network.fuse.post_process(pooled))
        probabilities, maps = [], []
        for pair in pairs:
            logits = [network.temperature_image.exp() * unit(network.class_mapping(t)) @ unit(image) for t in pair]
            probabilities.append(torch.stack(logits).softmax(dim=0)[1])
            for i, layer in enumerate(tokens):
                patches = unit(layer @ network.RCA.linear_proj[i].weight.T)
                refined = torch.stack([attend(network, text, patches, 4) for text in pair])
                grid = (network.temperature_pixel.exp() * refined @ patches.T).reshape(1, 2, 8, 8)
                upsampled = torch.nn.functional.interpolate(grid, size=64, mode="bilinear", align_corners=True)
                maps.append(upsampled.softmax(dim=1)[0, 1])
        expected = torch.stack(maps).mean(dim=0)
        top = expected.flatten().sort(descending=True).values[:20].mean()
        scores, predicted = whole.predict(method, batch)
    torch.testing.assert_close(predicted[0], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(scores[0], 0.3 * torch.stack(probabilities).mean() + 0.7 * top, rtol=1e-4, atol=1e-5)


def test_scores_are_scaled_over_the_category_or_not_at_all_or_the_class_token_alone() -> None:
    evidence = torch.tensor([[0.2, 0.6], [0.4, 0.5], [0.3, 0.7]])
    torch.testing.assert_close(fuse(evidence, "minmax", 0.5), torch.tensor([0.25, 0.5, 0.75]))
    torch.testing.assert_close(fuse(evidence, "mean", 0.25), torch.tensor([0.5, 0.475, 0.6]))
    assert torch.equal(fuse(evidence, "class_token", 0.5), evidence[:, 0])
    assert torch.equal(fuse(torch.ones(2, 2), "minmax", 0.5), torch.zeros(2)), "equal images score 0"


def test_draws_depend_on_the_seed_and_on_how_many_there_are(encoder: Encoder) -> None:
    batch = from_tensor(toy_images(2, encoder.size), CATEGORY)
    with torch.inference_mode():
        maps = [make(encoder, **one).predict(batch).maps for one in ({}, {}, {"seed": 1}, {"samples": 3})]
    assert torch.equal(maps[0], maps[1])
    assert not torch.equal(maps[0], maps[2]) and not torch.equal(maps[0], maps[3])


def test_another_top_k_holds_in_the_named_categories_alone(encoder: Encoder) -> None:
    screw = Category("screw", "screw", "toy")
    special = make(encoder, small_top=5)
    assert (special.top(screw), special.top(CATEGORY), make(encoder).top(screw)) == (5, 20, 20)
    assert methods.configure("bayes_pfl.class_specific_top")[2].small_top == 20
    assert methods.configure("bayes_pfl")[2].small_top is None


def test_nouns_in_prompts_are_those_of_the_code() -> None:
    names = ("macaroni2", "pcb1", "pipe_fryum", "metal_nut", "bottle")
    readable = [prompt_noun(Category(name, datasets.readable_noun(name), ""), "readable") for name in names]
    assert readable == ["macaroni", "printed circuit board", "pipe fryum", "metal nut", "bottle"]
    assert prompt_noun(Category("Class1", "class", ""), "raw") == "class1"


# --- weights ---------------------------------------------------------------------------------------------------------


def official(network: Network) -> dict[str, Tensor]:
    """Return the weights as the official files hold them: shared modules repeated, decoders beside them."""
    tensors = {}
    for name, tensor in network.state_dict().items():
        key = name
        for mlp in ("weight_mean", "weight_log_variance"):
            key = key.replace(f"{mlp}.", f"{mlp}.module.")
        tensors[f"MyModel.{key}"] = tensor
        owner, _, rest = key.partition(".")
        for flow in {"context_encoder": ["context"], "state_encoder": ["normal", "abnormal"]}.get(owner, []):
            tensors[f"MyModel.PFL_{flow}.encoder.{rest}"] = tensor
    tensors["MyModel.PFL_normal.p_mu.0.weight"] = torch.zeros(2, 2)
    tensors["MyModel.PFL_context.decoder.weight_mean.module.0.bias"] = torch.zeros(2)
    tensors["MyModel.state_decoder.weight_mean.module.0.bias"] = torch.zeros(2)
    return tensors


def test_official_key_names_load_the_same_weights(encoder: Encoder) -> None:
    method, loaded = make(encoder), make(encoder)
    loaded.trained = None
    loaded.load_checkpoint(official(method.trained), "official")
    expected, got = method.trained.state_dict(), loaded.trained.state_dict()
    assert expected.keys() == got.keys() and all(torch.equal(expected[name], got[name]) for name in expected)
    assert loaded.trained_on == {"visa"}


def test_weights_of_another_bank_are_refused(encoder: Encoder) -> None:
    with pytest.raises(WeightsError, match=r"prompt_context \[2, 2, 32\] instead of \[3, 2, 32\]"):
        make(encoder, bank=3).load_checkpoint(make(encoder).trained.state_dict(), "other")


def test_the_published_sizes_give_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        sizes = {"bank": 3, "context": 5, "states": 5, "flows": 10, "heads": 4, "levels": 4}
        network = Network(**sizes, width=1024, text_width=768, joint_width=768)
    decoders = 2 * (768 * 512 + 512 + 512 * 512 + 512 + 512 * 768 + 768)
    means = 3 * (768 * 768 + 768)  # p_mu of each flow
    assert sum(parameter.numel() for parameter in network.parameters()) + decoders + means == 27_370_017  # §Image side


def test_initial_weights_follow_the_page(encoder: Encoder) -> None:
    network = make(encoder, bank=20, flows=20).trained
    means = [getattr(network, f"prompt_{name}").mean().item() for name in ("context", "state_normal", "state_abnormal")]
    assert means == pytest.approx([0, 0.5, -0.5], abs=0.01)
    assert network.prompt_state_normal.std().item() == pytest.approx(0.02, rel=0.1)
    assert network.PFL_normal.amor_u.std().item() == pytest.approx(1, rel=0.1)
    assert network.PFL_context.amor_u.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert network.temperature_pixel.exp().item() == pytest.approx(1 / 0.07)
    assert network.RCA.q_proj_pre.weight.abs().max() <= 32**-0.5 and not network.class_mapping.bias.any()


def test_options_that_do_not_fit_are_sentences(encoder: Encoder) -> None:
    with pytest.raises(UsageError, match="heads is 5, which does not divide the joint width 32"):
        methods.create("bayes_pfl", encoder=encoder, heads=5)
    with pytest.raises(UsageError, match="are 5000 and None; expected 1 to 4096, the pixels of a map"):
        methods.create("bayes_pfl", encoder=encoder, top=5000)
    with pytest.raises(UsageError, match="samples is 0; expected at least one draw"):
        methods.create("bayes_pfl", encoder=encoder, samples=0)


# --- losses ----------------------------------------------------------------------------------------------------------


@dataclass
class Steps:
    """What a loss needs of a training batch."""

    images: Tensor
    categories: tuple[Category, ...]
    generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.images)

    def features(self, encoder: Encoder, request: object) -> object:
        with torch.no_grad():
            return encoder.encode(self.images, request)


def steps(encoder: Encoder) -> tuple[Steps, Tensor, Tensor]:
    """Return a mixed batch with labels and masks."""
    masks = torch.zeros(2, encoder.size, encoder.size)
    masks[1, :8, :8] = 1
    return Steps(toy_images(2, encoder.size), (CATEGORY, OTHER)), torch.tensor([0, 1]), masks


def test_focal_loss_counts_both_kinds_of_pixels_alike() -> None:
    maps, masks = torch.tensor([[[0.2, 0.5, 0.5]]]), torch.tensor([[[1.0, 0.0, 0.0]]])
    expected = -0.64 * np.log(0.2) - 0.25 * np.log(0.5)
    assert float(balanced_focal(maps, masks)) == pytest.approx(expected, rel=1e-5)
    assert float(balanced_focal(maps, torch.zeros(1, 1, 3))) == pytest.approx(
        (-0.04 * np.log(0.8) - 2 * 0.25 * np.log(0.5)) / 3, rel=1e-5
    )


def test_dice_loss_is_of_the_batch_as_a_whole() -> None:
    maps, masks = torch.tensor([[[0.5]], [[0.25]]]), torch.tensor([[[1.0]], [[0.0]]])
    assert float(batch_dice(maps, masks)) == pytest.approx(1 - 1.0 / 1.75, rel=1e-4)


def test_orthogonality_by_hand() -> None:
    normal = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    abnormal = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    assert float(orthogonality_loss(torch.stack([normal, abnormal])[None])) == pytest.approx(2 * 0.36 / 4)


def test_each_stage_has_its_terms_and_its_gradients(encoder: Encoder) -> None:
    method = make(encoder)
    batch, labels, masks = steps(encoder)
    terms = method.loss(batch, labels, masks)
    assert set(terms) == {"cls", "focal", "dice", "kl_context", "kl_normal", "kl_abnormal", "ortho"}
    torch.stack(list(terms.values())).sum().backward()
    without = {name for name, parameter in method.trained.named_parameters() if parameter.grad is None}
    assert without == {name for name, _ in method.trained.named_parameters() if name.startswith(("fuse", "image_map"))}
    method.trained.zero_grad(set_to_none=True)
    for name, parameter in method.trained.named_parameters():  # as the training loop does for the second stage
        parameter.requires_grad_(name.startswith(IMAGE_BRANCH))
    terms = method.loss(batch, labels, masks, IMAGE_STAGE)
    assert set(terms) == {"cls"}
    terms["cls"].backward()
    assert all((p.grad is not None) == n.startswith(IMAGE_BRANCH) for n, p in method.trained.named_parameters())


def test_losses_draw_from_the_batchs_generator_alone(encoder: Encoder) -> None:
    method = make(encoder)
    state = torch.get_rng_state()
    first, second = (method.loss(*steps(encoder)) for _ in range(2))
    assert torch.equal(state, torch.get_rng_state()) and all(torch.equal(first[name], second[name]) for name in first)
    batch, labels, masks = steps(encoder)
    batch.generator.manual_seed(1)
    assert not torch.equal(method.loss(batch, labels, masks)["kl_context"], first["kl_context"])


def test_the_loss_uses_each_images_own_category_and_noise(encoder: Encoder) -> None:
    method, (batch, labels, masks) = make(encoder), steps(encoder)
    noise = Noise.draw(2, 1, encoder.text.width, torch.Generator().manual_seed(0))
    mixed = method.loss(batch, labels, masks, noise=noise, entry=1)["cls"]
    alone = [
        method.loss(
            Steps(batch.images[i : i + 1], batch.categories[i : i + 1]),
            labels[i : i + 1],
            masks[i : i + 1],
            noise=noise._replace(context=noise.context[i : i + 1]),
            entry=1,
        )["cls"]
        for i in range(2)
    ]
    torch.testing.assert_close(mixed, torch.stack(alone).mean(), rtol=1e-4, atol=1e-5)


# --- training --------------------------------------------------------------------------------------------------------
