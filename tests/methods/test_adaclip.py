"""AdaCLIP: prompts in both towers, semantic fusion, official checkpoints, losses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from test_april_gan import CATEGORY, Steps
from torch import Tensor
from torch.nn import functional
from zsadbench.methods.adaclip import fusion
from zsadbench.methods.adaclip.hybrid_prompts import HybridPrompts

from zsadbench import encoders, methods
from zsadbench.datasets import Category
from zsadbench.encoders.base import Encoder
from zsadbench.encoders.features import FeatureRequest
from zsadbench.encoders.weights import read_checkpoint
from zsadbench.errors import NeedsCheckpoint, UsageError, WeightsError
from zsadbench.methods import TrainableMethod
from zsadbench.running.loading import from_tensor
from zsadbench.testing import check_method, toy_images

OTHER = Category("pipe-fryum", "pipe fryum", "toy")


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return encoders.load("tiny")


def make(encoder: Encoder, **changes: object) -> TrainableMethod:
    """Return the method with prompts that are long enough to matter."""
    method = methods.create("adaclip", encoder=encoder, **changes)
    method.initialise(seed=0)
    with torch.no_grad():
        for name, parameter in method.trained.named_parameters():
            parameter.mul_(50 if "static_prompts" in name else 1)
    return method


@pytest.mark.parametrize(
    ("score", "towers", "kinds"),
    [("hsf_paper", "none", "static"), ("map_max", "visual", "dynamic"), ("class_token", "visual+text", "static")],
)
def test_variants_keep_the_contract(score: str, towers: str, kinds: str) -> None:
    check_method("adaclip", count=3, score=score, clusters=8, prompt_towers=towers, prompt_kinds=kinds)


# The page's formulas, written out


def expected_text(method: TrainableMethod, category: Category, dynamic: Tensor) -> Tensor:
    """Return the text features [2, J] of one image, sentence by sentence (§Text)."""
    tower, static = method.encoder.text, method.trained.text_prompter.static_prompts
    normal = ["{}", "flawless {}", "perfect {}", "unblemished {}"]
    normal += ["{} without flaw", "{} without defect", "{} without damage"]
    abnormal = ["damaged {}", "broken {}", "{} with flaw", "{} with defect", "{} with damage"]
    templates = ["a bad photo of a {}.", "a low resolution photo of the {}."]
    templates += ["a bad photo of the {}.", "a cropped photo of the {}."]

    def between(layer: int, x: Tensor) -> Tensor:
        x = x.clone()
        if layer in (1, 2, 3):
            x[0, 1:6] = (dynamic + static[layer]).half().float()
        return x

    rows = []
    for kind in (normal, abnormal):
        vectors = []
        for state in kind:
            for template in templates:
                ids = tower.tokenize([template.format(state.format(category.name.replace("-", " ")))])
                vector = tower.encode_embeddings(tower.embed(ids), ids.argmax(dim=1), between)[0]
                vectors.append(vector / vector.norm())
        mean = torch.stack(vectors).mean(dim=0)
        rows.append(mean / mean.norm())
    return torch.stack(rows)


def expected_vision(method: TrainableMethod, image: Tensor, dynamic: Tensor) -> tuple[list[Tensor], Tensor]:
    """Return the unit patch features [L, J] a layer and the unit class token [J] of one image (§Image side)."""
    encoder, weights = method.encoder, method.trained
    x = encoder.tower.norm_pre(encoder.embed(image[None]))
    patches = []
    for number, block in enumerate(encoder.blocks):
        if number < 4:
            prompt = (dynamic + weights.visual_prompter.static_prompts[number]).half().float()
            x = torch.cat([x[:, :65], prompt[None]], dim=1)
        x = block(x)
        if number + 1 in (3, 6, 9, 12):
            head = weights.patch_token_layer.head[len(patches)]
            patches.append(functional.normalize(x[0, 1:65] @ head.weight.T + head.bias, dim=1))
    token = encoder.tower.projection(encoder.tower.norm(x[0, 0]))
    head = weights.cls_token_layer.head[0]
    return patches, functional.normalize(head.weight @ token + head.bias, dim=0)


def expected_clusters(patches: list[Tensor], abnormal: Tensor, clusters: int) -> Tensor:
    """Return the direction of the clusters of one image, cluster by cluster (§Semantic fusion)."""
    chosen = sorted(abnormal.argsort(descending=True)[: 5 * clusters].tolist())
    rows = np.concatenate([layer[chosen].numpy() for layer in patches], axis=1)
    labels = KMeans(clusters, n_init=1, random_state=111).fit_predict(rows)
    centres = []
    for label in range(clusters):
        members = [i for i, own in zip(chosen, labels, strict=True) if own == label]
        centres.append(torch.cat([layer[members] for layer in patches]).mean(dim=0))
    return functional.normalize(torch.stack(centres).mean(dim=0), dim=0)


@torch.no_grad()
def test_prediction_equals_the_formulas_of_the_page(encoder: Encoder) -> None:
    method = make(encoder, clusters=6, half_prompts=True)
    images = toy_images(2, encoder.size)
    scores, maps = method.predict(from_tensor(images, OTHER))
    for i, image in enumerate(images):
        frozen = encoder.encode(image[None], FeatureRequest(cls=True)).embedding[0]
        heads = method.trained.dynamic_visual_prompt_generator.head, method.trained.dynamic_text_prompt_generator.head
        visual, textual = (torch.stack([layer(frozen) for layer in head]) for head in heads)
        text = expected_text(method, OTHER, textual)
        patches, token = expected_vision(method, image, visual)
        logits = torch.stack([100 * layer @ text.T for layer in patches])  # [l, L, 2]
        grid = logits.transpose(1, 2).reshape(4, 2, 8, 8)
        upsampled = functional.interpolate(grid, size=64, mode="bilinear", align_corners=True).mean(dim=0)
        torch.testing.assert_close(maps[i], upsampled.softmax(dim=0)[1], rtol=1e-3, atol=1e-4)
        abnormal = logits.mean(dim=0).softmax(dim=1)[:, 1]
        fused = functional.normalize(0.2 * expected_clusters(patches, abnormal, 6) + 0.8 * token, dim=0)
        torch.testing.assert_close(scores[i], (100 * fused @ text.T).softmax(dim=0)[1], rtol=1e-3, atol=1e-4)
    assert float((scores[0] - scores[1]).abs()) > 1e-3


@torch.no_grad()
def test_each_image_of_a_mixed_batch_has_the_text_features_that_it_has_alone(encoder: Encoder) -> None:
    method = make(encoder)
    frozen = torch.randn(2, encoder.joint_width, generator=torch.Generator().manual_seed(0))
    mixed = method.text_features((CATEGORY, OTHER), frozen)
    for i, category in enumerate((CATEGORY, OTHER)):
        torch.testing.assert_close(mixed[i], method.text_features((category,), frozen[i : i + 1])[0])
    again = method.text_features((CATEGORY, CATEGORY), frozen)
    assert float((again[0] - again[1]).abs().max()) > 1e-4  # dynamic prompts: text depends on the image


@torch.no_grad()
@pytest.mark.parametrize(("towers", "kinds"), [("visual", "static+dynamic"), ("visual+text", "static")])
def test_text_without_dynamic_prompts_depends_on_the_category_alone(encoder: Encoder, towers: str, kinds: str) -> None:
    method = make(encoder, prompt_towers=towers, prompt_kinds=kinds)
    frozen = torch.randn(3, encoder.joint_width, generator=torch.Generator().manual_seed(0))
    text = method.text_features((CATEGORY, OTHER, CATEGORY), frozen)
    assert torch.equal(text[0], text[2])
    assert not torch.equal(text[0], text[1])


@torch.no_grad()
def test_without_visual_prompts_the_tower_runs_once_as_it_is(encoder: Encoder) -> None:
    method = make(encoder, prompt_towers="none")
    assert method.request == FeatureRequest(tokens={3, 6, 9, 12}, cls=True)
    assert not [name for name, _ in method.trained.named_parameters() if "prompt" in name]
    images = toy_images(1, encoder.size)
    encoded = method.encode(from_tensor(images, CATEGORY), [CATEGORY])
    features = encoder.encode(images, method.request)
    expected = functional.normalize(method.trained.patch_token_layer.head[1](features.tokens(6)), dim=2)
    torch.testing.assert_close(encoded.patches[:, 1], expected)
    assert make(encoder).request == FeatureRequest(cls=True)
    assert make(encoder, prompt_kinds="static").request == FeatureRequest()


@torch.no_grad()
def test_prompts_fill_as_many_blocks_and_tokens_as_the_options_say(encoder: Encoder) -> None:
    method = make(encoder, prompt_depth=2, prompt_length=3, layers=(1, 2, 3))
    contexts = method.trained.prompts("visual", torch.zeros(2, encoder.joint_width))
    assert [list(context.shape) for context in contexts] == [[2, 3, 64]] * 2
    assert float((contexts[0] - contexts[1]).abs().min()) > 0  # one set a block
    tokens, _ = method.prompted_pass(toy_images(2, encoder.size), contexts)
    changed, _ = method.prompted_pass(toy_images(2, encoder.size), [contexts[0], -contexts[1]])
    assert tokens[0].shape == (2, 64, 64)
    assert [torch.allclose(one, other) for one, other in zip(tokens, changed, strict=True)] == [True, False, False]


@torch.no_grad()
def test_half_prompts_are_the_rounded_sums(encoder: Encoder) -> None:
    batch = from_tensor(toy_images(1, encoder.size), CATEGORY)
    exact, rounded = (make(encoder, half_prompts=half).predict(batch).maps for half in (False, True))
    assert 0 < float((exact - rounded).abs().max()) < 1e-2


def test_image_score_follows_its_option(encoder: Encoder) -> None:
    batch = from_tensor(toy_images(2, encoder.size), CATEGORY)
    choices = ("hsf", "hsf_paper", "class_token", "map_max")
    with torch.no_grad():
        found = {choice: make(encoder, score=choice, clusters=6).predict(batch) for choice in choices}
        alone = make(encoder, clusters=6, cluster_weight=0.0).predict(batch).scores
    torch.testing.assert_close(alone, found["class_token"].scores)
    torch.testing.assert_close(found["map_max"].scores, found["hsf"].maps.amax(dim=(1, 2)))
    assert len({tuple(prediction.scores.tolist()) for prediction in found.values()}) == 4
    assert all(torch.equal(prediction.maps, found["hsf"].maps) for prediction in found.values())


# Semantic fusion

PATCHES = functional.normalize(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.1, 1.0], [1.0, 0.1], [-1.0, 0.0]]), dim=1)


def test_clusters_count_alike_whatever_their_size() -> None:
    patches = torch.stack([PATCHES, PATCHES])[None]  # two layers alike
    chosen = torch.tensor([[0, 1, 3]])  # clusters {0, 3} and {1}
    centre = (PATCHES[0] + PATCHES[3]) / 2
    expected = functional.normalize((centre + PATCHES[1]) / 2, dim=0)
    result = fusion.cluster_mean(patches, chosen, clusters=2, seed=0)
    torch.testing.assert_close(result[0], expected)


def test_papers_version_takes_the_centre_of_the_most_abnormal_cluster() -> None:
    abnormal = torch.tensor([[0.9, 0.4, 0.5, 0.1, 0.2]])  # clusters {0, 3}: 0.5 mean, {1, 2}: 0.45, {4}: 0.2
    result = fusion.abnormal_cluster(PATCHES[None, None], abnormal, clusters=3, seed=0)
    expected = functional.normalize(PATCHES[0] + PATCHES[3], dim=0)
    torch.testing.assert_close(result[0], expected)


def test_most_abnormal_patches_come_in_raster_order() -> None:
    scores = torch.tensor([[0.1, 0.9, 0.3, 0.8, 0.7, 0.95, 0.2]])
    assert fusion.most_abnormal(scores, clusters=1).tolist() == [[1, 2, 3, 4, 5]]
    assert fusion.most_abnormal(scores, clusters=2).tolist() == [[0, 1, 2, 3, 4, 5, 6]]


def test_clusters_neither_read_nor_move_the_global_random_state() -> None:
    rows = torch.randn(3, 40, 4, generator=torch.Generator().manual_seed(0))
    labels = []
    for seed in (0, 1):
        np.random.seed(seed)  # the state that must not matter
        before = np.random.get_state()[1].copy()
        labels.append(fusion.cluster(rows, clusters=5, seed=7))
        assert (np.random.get_state()[1] == before).all()
    assert torch.equal(*labels)
    alone = torch.cat([fusion.cluster(image[None], clusters=5, seed=7) for image in rows])
    assert torch.equal(labels[0], alone)


def test_gradients_reach_the_members_of_clusters_only() -> None:
    patches = PATCHES[None, None].clone().requires_grad_()
    fusion.cluster_mean(patches, torch.tensor([[0, 1, 3]]), clusters=2, seed=0).sum().backward()
    assert patches.grad.abs().sum(dim=3).flatten().bool().tolist() == [True, True, False, True, False]


# Checkpoints


def test_official_checkpoints_have_these_38_tensors() -> None:
    widths = {"visual": 1024, "text": 768}
    with torch.device("meta"):
        module = HybridPrompts(
            widths, joint_width=768, kinds="static+dynamic", length=5, depth=4, projections=(4, 1024)
        )
    shapes = {name: list(tensor.shape) for name, tensor in module.state_dict().items()}
    expected = {f"text_prompter.static_prompts.{i}": [5, 768] for i in range(4)}
    expected |= {f"visual_prompter.static_prompts.{i}": [5, 1024] for i in range(4)}
    heads = {"patch_token_layer": (4, 768, 1024), "cls_token_layer": (1, 768, 768)}
    heads |= {"dynamic_visual_prompt_generator": (5, 1024, 768), "dynamic_text_prompt_generator": (5, 768, 768)}
    for name, (count, outputs, inputs) in heads.items():
        for i in range(count):
            expected |= {f"{name}.head.{i}.weight": [outputs, inputs], f"{name}.head.{i}.bias": [outputs]}
    assert shapes == expected
    assert sum(parameter.numel() for parameter in module.parameters()) == 10_665_472  # §Image side


def test_official_file_loads_and_tells_both_of_its_datasets(encoder: Encoder, tmp_path: Path) -> None:
    source = make(encoder)
    path = tmp_path / "pretrained_visa_clinicdb.pth"
    torch.save({f"clip_model.{name}": tensor for name, tensor in source.trained.state_dict().items()}, path)
    method = methods.create("adaclip.visa_clinicdb", encoder=encoder)
    method.load_checkpoint(read_checkpoint(path), str(path))
    assert method.trained_on == {"visa", "clinicdb"}
    batch = from_tensor(toy_images(1, encoder.size), CATEGORY)
    with torch.no_grad():
        assert torch.equal(method.predict(batch).maps, source.predict(batch).maps)


def test_tensors_that_the_module_lacks_are_refused(encoder: Encoder) -> None:
    tensors = {f"clip_model.{name}": tensor for name, tensor in make(encoder).trained.state_dict().items()}
    del tensors["clip_model.cls_token_layer.head.0.bias"]
    with pytest.raises(WeightsError, match=r"lacks cls_token_layer\.head\.0\.bias"):
        make(encoder).load_checkpoint(tensors, "official.pth")


def test_initial_weights_depend_on_the_seed_alone_and_have_their_published_spread(encoder: Encoder) -> None:
    states = []
    for seed in (0, 0, 1):
        method = methods.create("adaclip", encoder=encoder)
        method.initialise(seed)
        states.append(method.trained.state_dict())
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name])
        assert not torch.equal(tensor, states[2][name])
    assert 0.017 < float(states[0]["visual_prompter.static_prompts.0"].std()) < 0.023
    assert float(states[0]["patch_token_layer.head.0.weight"].abs().max()) <= 1 / 8  # width 64


# Errors


def test_predicting_without_weights_asks_for_a_checkpoint(encoder: Encoder) -> None:
    with pytest.raises(NeedsCheckpoint, match=r"adaclip\.mvtec needs trained .* --checkpoint adaclip\.mvtec=PATH"):
        methods.create("adaclip.mvtec", encoder=encoder).predict(from_tensor(toy_images(1, 64), CATEGORY))


@pytest.mark.parametrize("clusters", [0, 65])
def test_more_clusters_than_patches_are_refused(encoder: Encoder, clusters: int) -> None:
    with pytest.raises(UsageError, match=f"clusters is {clusters}; expected 1 to 64"):
        methods.create("adaclip", encoder=encoder, clusters=clusters)


def test_prompts_that_would_overwrite_the_end_of_a_sentence_are_refused(encoder: Encoder) -> None:
    batch = from_tensor(toy_images(1, encoder.size), Category("nut", "nut", "toy"))
    with pytest.raises(UsageError, match=r"prompt_length is 8, .* ends at token 8.* at most 7"):
        make(encoder, prompt_length=8).predict(batch)
    with torch.no_grad():
        make(encoder, prompt_length=7).predict(batch)


def test_encoder_without_text_tower_is_refused() -> None:
    blind = encoders.load("tiny")
    blind.text = None
    with pytest.raises(WeightsError, match="no text tower"):
        methods.create("adaclip", encoder=blind)


# Training


def test_every_parameter_but_the_unused_prompts_of_the_first_text_block_learns(encoder: Encoder) -> None:
    method = make(encoder)
    masks = torch.zeros(2, 64, 64)
    masks[1, :8, :8] = 1
    terms = method.loss(Steps(toy_images(2, 64), (CATEGORY, OTHER)), torch.tensor([0, 1]), masks)
    sum(terms.values()).backward()
    idle = [name for name, parameter in method.trained.named_parameters() if parameter.grad is None]
    assert idle == ["text_prompter.static_prompts.0"]
    assert all(
        parameter.grad.abs().sum() > 0 for name, parameter in method.trained.named_parameters() if name not in idle
    )


@pytest.mark.parametrize("dice", ["rows", "images"])
def test_loss_of_a_mixed_batch_is_the_mean_over_its_images(encoder: Encoder, dice: str) -> None:
    method = make(encoder, dice=dice)
    images, masks, labels = toy_images(2, 64), torch.zeros(2, 64, 64), torch.tensor([0, 1])
    masks[1, :8, :8] = 1
    with torch.no_grad():
        mixed = method.loss(Steps(images, (CATEGORY, OTHER)), labels, masks)
        alone = [
            method.loss(Steps(images[i : i + 1], (category,)), labels[i : i + 1], masks[i : i + 1])
            for i, category in enumerate((CATEGORY, OTHER))
        ]
    for name in ("cls", "seg"):
        torch.testing.assert_close(mixed[name], (alone[0][name] + alone[1][name]) / 2, rtol=1e-3, atol=1e-4)


def test_losses_equal_the_formulas_of_the_page(encoder: Encoder) -> None:
    masks = torch.zeros(1, 64, 64)
    masks[0, :8, :8] = 1
    values = {}
    for dice in ("rows", "images"):
        method = make(encoder, dice=dice)
        step = Steps(toy_images(1, 64), (CATEGORY,))
        with torch.no_grad():
            terms = method.loss(step, torch.tensor([1]), masks)
            encoded = method.encode(step, step.categories)
            score = method.predict(from_tensor(step.images, CATEGORY)).scores[0]
        agreement = score * (1 - 1e-5) + (1 - score) * 1e-5 + 1e-5
        torch.testing.assert_close(terms["cls"], -((1 - agreement) ** 2) * agreement.log(), rtol=1e-3, atol=1e-6)
        values[dice] = terms["seg"]
        expected = torch.zeros(())
        for layer in range(4):
            logits = (100 * encoded.patches[0, layer] @ encoded.text[0].T).T.reshape(1, 2, 8, 8)
            p = functional.interpolate(logits, size=64, mode="bilinear", align_corners=True).softmax(dim=1)[0]
            agreement = torch.where(masks[0] == 1, p[1], p[0]) * (1 - 1e-5) + 1e-5
            agreement = agreement + torch.where(masks[0] == 1, p[0], p[1]) * 1e-5
            expected = expected + (-((1 - agreement) ** 2) * agreement.log()).mean()
            for map_, truth in ((p[1], masks[0]), (p[0], 1 - masks[0])):
                axis = (1,) if dice == "rows" else (0, 1)
                overlap = (2 * (map_ * truth).sum(axis) + 1) / (map_.sum(axis) + truth.sum(axis) + 1)
                expected = expected + (1 - overlap).mean()
        torch.testing.assert_close(terms["seg"], expected, rtol=1e-3, atol=1e-4)
    assert float((values["rows"] - values["images"]).abs()) > 1e-2
