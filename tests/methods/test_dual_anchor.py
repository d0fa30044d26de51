"""Dual-Anchor: merge blocks, prompts, refiner, losses, ablations, encoders and checkpoints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor
from zsadbench.methods.dual_anchor.anchors import (
    StatePrompts,
    group_loss,
    orthogonality_loss,
    pool_masks,
    prompt_template,
    refine,
)
from zsadbench.methods.dual_anchor.merging import (
    check_sizes,
    gumbel_noise,
    merge_choice,
    merge_half,
    merge_to,
)

from zsadbench import encoders, methods
from zsadbench.datasets import Category
from zsadbench.encoders.base import Encoder
from zsadbench.encoders.features import FeatureRequest, Features
from zsadbench.errors import NeedsCheckpoint, UsageError, WeightsError
from zsadbench.records.results import load
from zsadbench.running.loading import from_tensor
from zsadbench.running.plan import make_plan
from zsadbench.running.progress import Silent
from zsadbench.running.request import Request
from zsadbench.running.runner import run
from zsadbench.support import plugins
from zsadbench.testing import check_method, toy_images

dual_anchor = plugins.load("zsadbench.methods", "dual_anchor")
CATEGORY = Category("metal_nut", "metal nut", "toy")
OTHER = Category("leather", "leather", "toy")
# What each switch changes beside numbers: prefixes of the names that go away, and of those that come.
ABLATIONS = {
    "hgm": (("groups.", "blocks.", "proj_assign."), ("anchors.static",)),
    "ggtr": (("refiner.",), ()),
    "dsp": (("prompt.group_proj.",), ("prompt.slot_normal", "prompt.slot_abnormal")),
    "init_first_block": (("blocks.0.init.",), ()),
}
SWITCHES = [
    {"hgm": False},
    {"hgm": False, "dsp": False, "ggtr": False},
    {"ggtr": False},
    {"dsp": False},
    {"hard": True},
    {"tau": 0.5},
    {"init_first_block": False},
    {"update_residual": False},
    {"ggtr_norm": "layernorm"},
    {"ggtr_norm": "none"},
    {"ggtr_form": "mul"},
    {"map_mode": "mean_plus_assign"},
    {"map_mode": "mean_plus_assign", "hgm": False},
    {"score": "fused", "top": 5},
    {"align": "text_up"},
    {"align": "text_up", "hgm": False},
    {"context": 4, "noun": "object"},
    {"dice_normal": True},
    {"groups": (32, 8, 2, 2)},
    {"groups": (8, 2), "layers": (6, 12)},
    {"crop_from": 70},
]


class Step:
    """A training batch of images that are already in memory."""

    def __init__(self, images: Tensor, categories: Sequence[Category], seed: int = 0) -> None:
        self.images, self.categories = images, tuple(categories)
        self.paths = tuple(f"image_{i}.png" for i in range(len(images)))
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return len(self.images)

    def features(self, encoder: Encoder, request: FeatureRequest) -> Features:
        with torch.no_grad():
            return encoder.encode(self.images, request)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return encoders.load("tiny")


def make(encoder: Encoder, seed: int = 0, **changes: object) -> methods.TrainableMethod:
    method = methods.create("dual_anchor", encoder=encoder, **changes)
    method.initialise(seed)
    return method


def shaken(method: methods.TrainableMethod) -> methods.TrainableMethod:
    """Move every parameter, so that nothing hides behind a start at zero."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in method.trained.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return method


def square_masks(size: int, count: int = 3) -> Tensor:
    """Return masks whose first is empty."""
    masks = torch.zeros(count, size, size)
    masks[1:, 8:29, 16:40] = 1
    return masks


def step(method: methods.TrainableMethod, seed: int = 0) -> tuple[Step, Tensor, Tensor]:
    """Return a batch of mixed categories with labels and masks."""
    size = method.preprocess.size
    return Step(toy_images(3, size), [CATEGORY, OTHER, CATEGORY], seed), torch.tensor([0, 1, 1]), square_masks(size)


# Merging


def test_merging_averages_every_target_with_all_its_sources_in_the_order_of_the_targets() -> None:
    # tokens: source 0 and source 2 point at target 3, target 1 has no source
    tokens = torch.tensor([[[0.0, 2.0], [1.0, 0.0], [0.1, 3.0], [0.0, 1.0]]])
    assert merge_choice(tokens).tolist() == [[1, 1]]
    torch.testing.assert_close(merge_half(tokens), torch.tensor([[[1.0, 0.0], [0.1 / 3, 2.0]]]))


def test_merging_takes_the_first_target_of_equal_ones() -> None:
    tokens = torch.tensor([[[1.0, 0.0], [2.0, 0.0], [1.0, 1.0], [5.0, 0.0]]])
    assert merge_choice(tokens).tolist() == [[0, 0]]


@settings(max_examples=25, deadline=None)
@given(pairs=st.permutations(range(4)), seed=st.integers(0, 1000))
def test_merging_a_bijection_gives_the_mean_of_each_pair(pairs: list[int], seed: int) -> None:
    targets = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(seed)))[0][:4]
    sources = torch.stack([2 * targets[pair] for pair in pairs])
    tokens = torch.stack([sources, targets], dim=1).reshape(1, 8, 6)
    assert merge_choice(tokens)[0].tolist() == list(pairs)
    torch.testing.assert_close(merge_half(tokens)[0], 1.5 * targets)


def test_merging_to_a_quarter_halves_twice() -> None:
    tokens = torch.randn(2, 32, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(merge_to(tokens, 8), merge_half(merge_half(tokens)))


@pytest.mark.parametrize("sizes", [(16, 8, 4), (16, 8, 4, 1), (16, 8, 8, 3), (24, 8, 4, 2), (2, 4, 4, 2), ()])
def test_group_counts_that_cannot_be_merged_are_refused(sizes: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="Option groups is"):
        check_sizes(sizes, 4)


def test_gumbel_noise_has_its_mean_and_spread_and_follows_the_generator() -> None:
    noise = gumbel_noise((200_000,), torch.Generator().manual_seed(0))
    assert noise.mean() == pytest.approx(0.5772, abs=0.01)
    assert noise.std() == pytest.approx(math.pi / math.sqrt(6), abs=0.01)
    assert torch.equal(noise, gumbel_noise((200_000,), torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("hard", [False, True])
def test_every_patch_is_assigned_in_shares_that_sum_to_one(encoder: Encoder, hard: bool) -> None:
    method = shaken(make(encoder, hard=hard))
    with torch.inference_mode():
        maps = method.attention_maps(from_tensor(toy_images(2, 64), CATEGORY))
    assert [tuple(map_.shape) for map_ in maps] == [(2, n, 8, 8) for n in (16, 8, 4, 2)]
    for map_ in maps:
        torch.testing.assert_close(map_.sum(dim=1), torch.ones(2, 8, 8))
        assert (set(map_.unique().tolist()) == {0.0, 1.0}) == hard


def test_noise_is_divided_by_the_temperature(encoder: Encoder) -> None:
    method = shaken(make(encoder, tau=2.0))
    assign = method.trained.blocks[0].assign
    generator = torch.Generator().manual_seed(0)
    patches, groups = torch.randn(1, 9, 64, generator=generator), torch.randn(1, 4, 64, generator=generator)
    noise = torch.randn(1, 9, 4, generator=generator)
    plain, noisy = assign(patches, groups)[0].log(), assign(patches, groups, noise)[0].log()
    expected = (plain + noise / 2).log_softmax(dim=2)
    torch.testing.assert_close(noisy, expected)


def test_hard_assignment_has_the_gradient_of_the_soft_one() -> None:
    assign = dual_anchor.merging.MergeBlock(8, 2, tau=1.0, hard=True, init=False, update=False, residual=True).assign
    patches = torch.randn(1, 5, 8, requires_grad=True)
    groups, weights = torch.randn(1, 3, 8), torch.randn(1, 5, 3)
    gradients = []
    for assign.hard in (True, False):
        patches.grad = None
        (assign(patches, groups)[0] * weights).sum().backward()
        gradients.append(patches.grad)
    torch.testing.assert_close(*gradients)


# Prompts and refiner


def test_prompts_of_real_words_equal_the_encoded_sentence(encoder: Encoder) -> None:
    tower = encoder.text
    words = "a clean photo of the very good"  # seven words of one token each: five context, one state, one slot
    prompts = StatePrompts(5, encoder.width, tower.width, dynamic=False)
    embedded = tower.embed(tower.tokenize([f"{words} metal nut."]))[0]
    with torch.no_grad():
        for state in ("normal", "abnormal"):
            getattr(prompts, f"context_{state}").copy_(embedded[1:6])
            getattr(prompts, f"state_{state}").copy_(embedded[6:7])
            getattr(prompts, f"slot_{state}").copy_(embedded[7:8])
        ids = tower.tokenize([prompt_template("metal nut", 5)])
        spliced = prompts(tower.embed(ids), torch.empty(0))
        encoded = tower.encode_embeddings(spliced[0], ids.argmax(dim=1).expand(2))
    expected = tower.encode([f"{words} metal nut."]).expand(2, -1)
    torch.testing.assert_close(encoded, expected)


def test_prompts_carry_each_anchor_in_the_slot_of_its_state() -> None:
    prompts = StatePrompts(2, 3, 4, dynamic=True)
    with torch.no_grad():
        for name, parameter in prompts.named_parameters():
            parameter.fill_({"context_normal": 1, "state_normal": 2, "context_abnormal": 3, "state_abnormal": 4}.get(
                name, 0
            ))  # fmt: skip
        prompts.group_proj.weight[:, 0] = 1
        embedded = torch.arange(10.0, 17.0)[None, :, None].expand(1, 7, 4)
        anchors = torch.tensor([[[7.0, 0, 0], [8.0, 0, 0]]])
        rows = prompts(embedded, anchors)[0, :, :, 0]
    assert rows.tolist() == [[10, 1, 1, 2, 7, 15, 16], [10, 3, 3, 4, 8, 15, 16]]


@pytest.mark.parametrize(("norm", "cosines"), [("none", (0.6, 0.8)), ("l2", (0.6, 0.8)), ("layernorm", (-1.0, 1.0))])
@pytest.mark.parametrize("form", ["add", "mul"])
def test_refiner_gates_the_class_token_by_its_cosines_with_the_anchors(
    norm: str, cosines: tuple[float, float], form: str
) -> None:
    linear = torch.nn.Linear(2, 2)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
        linear.bias.copy_(torch.tensor([0.5, -1.0]))
    token, anchors = torch.tensor([[3.0, 4.0]]), torch.tensor([[[2.0, 0.0], [0.0, 0.1]]])
    gates = [1 / (1 + math.exp(-value)) for value in (cosines[0] + 0.5, 2 * cosines[1] - 1)]
    expected = [3 + gates[0], 4 + gates[1]] if form == "add" else [3 * (1 + gates[0]), 4 * (1 + gates[1])]
    assert refine(token, anchors, linear, norm, form)[0].tolist() == pytest.approx(expected, abs=2e-3)


# Losses


def test_pooled_masks_are_the_anomalous_share_of_each_patch() -> None:
    masks = torch.zeros(1, 8, 8)
    masks[0, 0, 0], masks[0, 4:, 4:] = 1, 1
    assert pool_masks(masks, 4).tolist() == [[1 / 16, 0, 0, 1]]


def test_orthogonality_loss_is_the_mean_squared_cosine() -> None:
    anchors = torch.tensor([[[2.0, 0.0], [3.0, 3.0]], [[0.0, 1.0], [5.0, 0.0]]])
    assert float(orthogonality_loss(anchors)) == pytest.approx(0.25)


def test_group_loss_weights_abnormal_patches_by_their_share_and_normal_ones_equally() -> None:
    patches = torch.tensor([[[1.0, 0.0], [3.0, 0.0], [0.0, 1.0], [1.0, 0.0]]])
    fractions = torch.tensor([[0.0, 0.0, 0.75, 0.25]])
    anchors = torch.tensor([[[0.0, 1.0], [0.75, 0.0]]])
    # normal mean (2, 0): cosine 0; abnormal mean (0.25, 0.75): cosine 0.25 / sqrt(0.625)
    expected = 0.5 * 1 + 0.5 * (1 - 0.25 / math.sqrt(0.625))
    assert float(group_loss(anchors, patches, fractions)) == pytest.approx(expected)


def test_group_loss_of_normal_images_has_the_normal_half_alone() -> None:
    patches = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    anchors = torch.randn(2, 2, 3, generator=torch.Generator().manual_seed(1))
    cosines = torch.cosine_similarity(anchors[:, 0], patches.mean(dim=1))
    found = group_loss(anchors, patches, torch.zeros(2, 4))
    assert float(found) == pytest.approx(float((1 - cosines).mean() / 2), abs=1e-6)


def test_group_loss_averages_each_state_over_the_images_that_have_it() -> None:
    anchors = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]] * 3)
    patches = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]).expand(3, -1, -1)
    fractions = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    # normal: images 0 (cosine sqrt(1/2)) and 1 (cosine 1); abnormal: images 1 (1) and 2 (sqrt(1/2))
    expected = (1 - math.sqrt(0.5)) / 2
    assert float(group_loss(anchors, patches, fractions)) == pytest.approx(expected, abs=1e-6)


def test_losses_are_those_of_the_page_and_their_sum_reaches_every_parameter(encoder: Encoder) -> None:
    method = shaken(make(encoder))
    batch, labels, masks = step(method)
    terms = method.loss(batch, labels, masks)
    assert list(terms) == ["cls", "seg", "ortho", "group"]
    torch.stack(list(terms.values())).sum().backward()
    silent = [name for name, parameter in method.trained.named_parameters() if not parameter.grad.abs().sum() > 0]
    assert silent == []
    assert all(parameter.grad is None for parameter in encoder.text._clip.parameters())


def test_fresh_cross_attention_is_the_identity_and_its_output_still_learns(encoder: Encoder) -> None:
    method = make(encoder)
    init = method.trained.blocks[1].init
    patches, groups = torch.randn(1, 9, 64), torch.randn(1, 8, 64)
    assert torch.equal(init(patches, groups), patches)
    torch.stack(list(method.loss(*step(method)).values())).sum().backward()
    assert init.q.weight.grad.abs().sum() == 0
    assert init.out.weight.grad.abs().sum() > 0


def test_loss_of_a_normal_batch_is_finite(encoder: Encoder) -> None:
    method = make(encoder)
    batch, labels, masks = step(method)
    terms = method.loss(batch, torch.zeros_like(labels), torch.zeros_like(masks))
    assert all(torch.isfinite(term) for term in terms.values())


def test_noise_is_drawn_from_the_generator_of_the_step_alone(encoder: Encoder) -> None:
    method = make(encoder)
    before = torch.get_rng_state()
    totals = [float(method.loss(*step(method, seed))["seg"].detach()) for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), before)
    assert totals[0] == totals[1] != totals[2]


def test_given_noise_replaces_drawn_noise(encoder: Encoder) -> None:
    method = make(encoder)
    batch, labels, masks = step(method)
    generator = torch.Generator().manual_seed(0)
    noise = [gumbel_noise((3, 64, n), generator) for n in (16, 8, 4, 2)]
    assert torch.equal(method.loss(batch, labels, masks)["seg"], method.loss(batch, labels, masks, noise=noise)["seg"])


def test_training_steps_lower_the_loss(encoder: Encoder) -> None:
    method = make(encoder)
    optimiser = torch.optim.Adam(method.trained.parameters(), lr=3e-3)
    totals = []
    for _ in range(12):
        loss = torch.stack(list(method.loss(*step(method)).values())).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        totals.append(float(loss.detach()))
    assert totals[-1] < 0.8 * totals[0]


# The method


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_every_switch_keeps_the_contract_and_trains(encoder: Encoder, switches: dict[str, object]) -> None:
    check_method("dual_anchor", encoder, count=3, **switches)
    method = make(encoder, **switches)
    terms = method.loss(*step(method))
    torch.stack(list(terms.values())).sum().backward()
    assert ("group" in terms) == switches.get("hgm", True)
    idle = {name for name, parameter in method.trained.named_parameters() if parameter.grad is None}
    nobody_reads_anchors = switches == {"hgm": False, "dsp": False, "ggtr": False}
    assert idle == ({"anchors.static"} if nobody_reads_anchors else set())


@pytest.mark.parametrize("switch", ABLATIONS)
def test_an_ablation_has_only_the_parameters_that_it_uses(encoder: Encoder, switch: str) -> None:
    full = make(encoder).trained.state_dict().keys()
    ablated = make(encoder, **{switch: False}).trained.state_dict().keys()
    gone, new = ABLATIONS[switch]
    assert full - ablated == {name for name in full if name.startswith(gone)}
    assert ablated - full == set(new)


def test_prediction_is_free_of_noise_and_a_mean_of_layer_maps(encoder: Encoder) -> None:
    method = shaken(make(encoder))
    batch = from_tensor(toy_images(2, 64), CATEGORY)
    with torch.no_grad():
        scores, maps = method.predict(batch)
        result = method.forward(batch, [CATEGORY] * 2)
    assert maps.shape == (2, 64, 64)
    assert len(result.maps) == 5
    torch.testing.assert_close(maps, sum(result.maps) / 5)
    torch.testing.assert_close(scores, result.logit.sigmoid())
    cosines = torch.cosine_similarity(method.trained.proj_cls(result.refined)[:, None], result.text, dim=2)
    expected = (cosines / 0.07 * math.exp(float(method.trained.log_scale_image.detach()) - math.log(1 / 0.07))).softmax(
        dim=1
    )
    torch.testing.assert_close(scores, expected[:, 1])


def test_mixed_batches_use_the_prompt_of_each_image(encoder: Encoder) -> None:
    for switches in ({}, {"dsp": False}):
        method = shaken(make(encoder, **switches))
        images = toy_images(3, 64)
        categories = [OTHER, CATEGORY, OTHER]
        with torch.inference_mode():
            mixed = method.forward(Step(images, categories), categories).text
            for i, category in enumerate(categories):
                alone = method.forward(Step(images[i : i + 1], [category]), [category]).text
                torch.testing.assert_close(mixed[i], alone[0])
        assert not torch.allclose(mixed[0], mixed[1])


def test_fused_score_averages_the_score_with_the_largest_pixels(encoder: Encoder) -> None:
    batch = from_tensor(toy_images(2, 64), CATEGORY)
    with torch.inference_mode():
        scores, maps = make(encoder).predict(batch)
        fused = make(encoder, score="fused", top=3).predict(batch).scores
    torch.testing.assert_close(fused, (scores + maps.flatten(1).sort(dim=1).values[:, -3:].mean(dim=1)) / 2)


def test_cropped_input_repeats_the_map_at_its_edge(encoder: Encoder) -> None:
    method = make(encoder, crop_from=70)
    images = toy_images(1, 70)
    with torch.inference_mode():
        maps = method.predict(from_tensor(images, CATEGORY)).maps
        inner = make(encoder).predict(from_tensor(images[:, :, :64, :64], CATEGORY)).maps
    assert maps.shape == (1, 70, 70)
    assert torch.equal(maps[:, :64, :64], inner)
    assert torch.equal(maps[:, 64:, :64], inner[:, -1:].expand(-1, 6, -1))


def test_anchors_without_merge_blocks_have_no_attention_maps(encoder: Encoder) -> None:
    with pytest.raises(UsageError, match=r"Set dual_anchor\.hgm=true"):
        make(encoder, hgm=False).attention_maps(from_tensor(toy_images(1, 64), CATEGORY))


def test_options_that_do_not_fit_are_refused(encoder: Encoder) -> None:
    for changes, message in (
        ({"heads": 7}, "Option heads is 7"),
        ({"crop_from": 32}, "Option crop_from is 32"),
        ({"groups": (16, 8, 4, 2), "layers": (6, 12)}, "expected 2 counts"),
    ):
        with pytest.raises(UsageError, match=message):
            make(encoder, **changes)


# Weights


def test_full_size_has_the_published_design_s_parameter_count() -> None:
    with torch.device("meta"):
        network = dual_anchor.Network(dual_anchor.DualAnchorConfig(), 4, 1024, 768, 768)
    counts = {name: parameter.numel() for name, parameter in network.named_parameters()}

    def total(prefix: str) -> int:
        return sum(count for name, count in counts.items() if name.startswith(prefix))

    assert [total(f"blocks.{h}.") for h in range(4)] == [8_401_920] * 3 + [10_500_096]
    assert total("groups.") + total("blocks.") == 35_722_240
    assert total("prompt.") - total("prompt.group_proj") == 19_968
    assert (total("refiner."), total("prompt.group_proj"), total("log_scale")) == (3_072, 787_200, 2)
    assert sum(counts.values()) == 41_251_074


def test_initial_weights_depend_on_the_seed_alone(encoder: Encoder) -> None:
    before = torch.get_rng_state()
    first, again, other = (make(encoder, seed).trained.state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["groups.bank"], other["groups.bank"])
    assert all(torch.isfinite(tensor).all() for tensor in first.values())


def test_maps_from_patches_start_as_clip_s_projection_where_the_towers_share_a_space(encoder: Encoder) -> None:
    tokens = torch.randn(3, encoder.width, generator=torch.Generator().manual_seed(0))
    trained = make(encoder).trained
    for linear in (trained.proj[0], trained.proj_assign, trained.proj_cls):
        torch.testing.assert_close(linear(tokens), encoder.tower.projection(tokens), rtol=1e-4, atol=1e-4)
    lender = encoders.load("tiny")
    lender.borrow_text(encoder.text, "tiny", "abc")
    assert not torch.equal(make(lender).trained.proj_cls.weight, trained.proj_cls.weight)


def test_checkpoint_round_trip_keeps_predictions_and_says_what_was_seen(encoder: Encoder) -> None:
    source = shaken(make(encoder))
    target = methods.create("dual_anchor.mvtec", encoder=encoder)
    tensors = source.trained.state_dict()
    target.load_checkpoint(tensors, "test")
    assert target.trained_on == {"mvtec"}
    batch = from_tensor(toy_images(2, 64), CATEGORY)
    with torch.inference_mode():
        assert torch.equal(source.predict(batch).maps, target.predict(batch).maps)
    assert not any(
        tensors[name].data_ptr() == parameter.data_ptr() for name, parameter in target.trained.named_parameters()
    )


def test_checkpoint_of_another_setting_is_refused_by_name(encoder: Encoder) -> None:
    method = make(encoder)
    before = method.trained
    with pytest.raises(WeightsError, match=r"other\.safetensors.*lacks blocks\.0\.assign"):
        method.load_checkpoint(make(encoder, hgm=False).trained.state_dict(), "other.safetensors")
    assert method.trained is before


def test_predicting_without_weights_names_the_training_command(encoder: Encoder) -> None:
    method = methods.create("dual_anchor.mvtec", encoder=encoder)
    with pytest.raises(NeedsCheckpoint, match=r"train --method dual_anchor\.mvtec --dataset mvtec"):
        method.predict(from_tensor(toy_images(1, 64), CATEGORY))


# Two towers


def test_another_encoder_brings_its_text_tower_unless_it_is_one_of_timm() -> None:
    def text_encoder(name: str, spec: str | None) -> str:
        return methods.configure(name, spec)[2].text_encoder

    clip = "open_clip:ViT-L-14-336/openai"
    assert text_encoder("dual_anchor", None) == clip
    assert text_encoder("dual_anchor", "timm:vit_large_patch14_dinov2.lvd142m") == clip
    assert text_encoder("dual_anchor.demo", "timm:vit_large_patch14_dinov2.lvd142m") == clip
    assert text_encoder("dual_anchor", "demo") == ""


def test_encoder_borrows_the_text_tower_that_the_options_name(encoder: Encoder) -> None:
    config = methods.configure("dual_anchor", "demo", {"text_encoder": "tiny"})[2]
    loaded = encoders.load_for(config)
    assert loaded.identity["text_spec"] == "tiny"
    assert loaded.identity["text_sha256"] == encoders.identify("tiny")
    sentence = ["a photo of a metal nut."]
    assert torch.equal(loaded.text.encode(sentence), encoder.text.encode(sentence))
    assert "text_spec" not in encoders.load("demo").identity
    method = dual_anchor.DualAnchor(config, loaded)
    method.initialise(0)
    assert method.trained.proj_cls.weight.shape == (32, 48)
    assert method.predict(from_tensor(toy_images(1, 96), CATEGORY)).maps.shape == (1, 96, 96)


def test_run_records_the_digest_of_both_towers(encoder: Encoder, mvtec_tree: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    save_file(make(encoder, trained_on="visa").trained.state_dict(), weights)
    options = {"methods": ["dual_anchor"], "datasets": ["mvtec"], "data_root": mvtec_tree, "encoder": "tiny"}
    fingerprints = set()
    for text_encoder in ("", "tiny"):
        changes = {"dual_anchor": {"text_encoder": text_encoder}}
        request = Request(
            **options, out=tmp_path / f"run{text_encoder}", checkpoints={"dual_anchor": weights}, changes=changes
        )
        plan = make_plan(request)
        (cell, *_), *_ = plan.groups
        assert cell.planned.text_sha256 == (encoders.identify("tiny") if text_encoder else "")
        fingerprints.add(cell.fingerprint)
    assert len(fingerprints) == 2
    run(plan, request, Silent())
    record = load(request.out / "mvtec" / "dual_anchor" / "bottle.json")
    assert record.status == "done", record.error
    assert record.encoder["text_sha256"] == record.encoder["sha256"] == encoders.identify("tiny")


def test_tower_without_text_is_refused_with_a_remedy() -> None:
    config = replace(methods.lookup("dual_anchor.demo")[2], encoder="tiny")
    encoder = encoders.load_for(config)
    encoder.text = None
    with pytest.raises(WeightsError, match=r"--set dual_anchor\.text_encoder="):
        dual_anchor.DualAnchor(config, encoder)
