"""Bayes-PFL: prompt flows with given noise, maps and scores of both stages, losses and gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from zsadbench.methods.bayes_pfl import IMAGE_STAGE, fuse
from zsadbench.methods.bayes_pfl.flows import Noise

from zsadbench.datasets import Category
from zsadbench.methods import Prediction
from zsadbench.running.loading import from_tensor

if TYPE_CHECKING:
    from produce import Fixture
    from torch import Tensor

    from zsadbench.methods import TrainableMethod

STATES = ("normal", "abnormal")


def produce(fixture: Fixture) -> dict[str, Tensor]:
    """Return maps, scores, losses and gradients, with the intermediates."""
    fixture.expect(
        kl_state_logdet_divided_by_batch=True,
        rca_scale="D**-0.5",
        softmax_after_upsampling=True,
        minmax_eps=1e-8,
        tokens_before_ln_post=True,
    )
    method = make(fixture)
    outputs = {"pos_embed": method.encoder.positions, **train(fixture)}
    texts, embeddings = [], []
    for i, category in enumerate(categories(fixture, "test")):
        features = image(fixture, i, category).features(method.encoder, method.request)
        texts.append(method.text([category], features.embedding, noise(fixture, i))[0].flatten(1, 2))
        embeddings.append(features.embedding)
    outputs |= {"text_test": torch.cat(texts), "image_features_test": torch.cat(embeddings)}
    for stage in (1, 2):
        for top in fixture.options["top_k"]:
            evidence, maps = collect(fixture, make(fixture, stage=stage, top=top))
            outputs[f"score_stage{stage}_k{top}"] = fuse(evidence, "minmax", fixture.options["score_alpha"])
            outputs[f"p_stage{stage}"] = evidence[:, 0]
    return outputs | {"map": maps, "map_smoothed": fixture.full_size(maps, method)}


def collect(fixture: Fixture, method: TrainableMethod) -> Prediction:
    """Return what scores are made of, for the test images, each with its own category and noise."""
    of_each = enumerate(categories(fixture, "test"))
    parts = [method.drawn(image(fixture, i, one), noise(fixture, i)) for i, one in of_each]
    return Prediction(*(torch.cat(column) for column in zip(*parts, strict=True)))


@torch.inference_mode(False)
@torch.enable_grad()
def train(fixture: Fixture) -> dict[str, Tensor]:
    """Return the losses of both stages for the fixture's images and masks, and gradients."""
    inputs, method, batch = fixture.inputs, make(fixture), fixture.batch()
    batch.categories = categories(fixture, "train")
    drawn = Noise(inputs["noise_train_context"][:, None], *(inputs[f"noise_train_{state}"][None] for state in STATES))
    given = {"noise": drawn, "entry": fixture.options["loss_prompt_index"]}
    terms = method.loss(batch, inputs["labels"], inputs["gt"].float(), **given)
    total = torch.stack(list(terms.values())).sum()
    total.backward()
    network = method.trained
    outputs = {f"loss_{name}": term.detach()[None] for name, term in terms.items()} | {
        "loss_stage1": total.detach()[None],
        "grad_normal_amor_w": network.PFL_normal.amor_w.grad,
        "grad_context_amor_u_bias": network.PFL_context.amor_u.bias.grad,
        "grad_prompt_context": network.prompt_context.grad,
        "grad_rca_linear0": network.RCA.linear_proj[0].weight.grad,
    }
    network.zero_grad(set_to_none=True)  # the first stage's gradients stay as they are
    (second,) = method.loss(batch, inputs["labels"], inputs["gt"].float(), IMAGE_STAGE, **given).values()
    second.backward()
    text, draws = method.text(batch.categories, batch.features(method.encoder, method.request).embedding, drawn)
    return (
        outputs
        | {f"flow_train_{name}": drawn.offsets.detach()[:, 0] for name, drawn in draws.items()}
        | {
            "loss_stage2": second.detach()[None],
            "grad_stage2_fuse_post": network.fuse.post_process.weight.grad,
            "text_train": text.detach().flatten(1, 2),
            "logdet_train_context": draws["context"].log_det.detach()[:, 0],
        }
    )


def categories(fixture: Fixture, part: str) -> tuple[Category, ...]:
    """Return the categories of the train or test images; their nouns are those of the fixture's prompts."""
    prompts = fixture.spec["prompt_strings"]
    return tuple(Category(name, noun_of(prompts[name]), "fixture") for name in fixture.spec[f"{part}_class_names"])


def noun_of(prompt: str) -> str:
    """Return what follows the placeholder of a prompt: "X metal nut" -> "metal nut"."""
    placeholder, _, noun = prompt.partition(" ")
    if placeholder != "X" or not noun:
        raise NotImplementedError(f"prompt {prompt!r}; only 'X NOUN' is implemented")
    return noun


def image(fixture: Fixture, i: int, category: Category) -> object:
    """Return a batch of the i-th test image alone."""
    return from_tensor(fixture.inputs["images_test"][i : i + 1], category)


def noise(fixture: Fixture, i: int) -> Noise:
    """Return the noise of the i-th test image."""
    inputs = fixture.inputs
    return Noise(inputs["noise_test_context"][i : i + 1], *(inputs[f"noise_test_{state}"][None] for state in STATES))


def make(fixture: Fixture, **changes: object) -> TrainableMethod:
    """Return the method with the fixture's options and weights."""
    options = fixture.options
    method = fixture.method(
        "bayes_pfl",
        fixture.encoder(),
        layers=tuple(options["features_list"]),
        bank=options["prompt_num"],
        context=options["prompt_context_len"],
        states=options["prompt_state_len"],
        flows=options["num_flows"],
        heads=options["rca_heads"],
        kl_weight=options["kl_weight"],
        samples=options["sample_num"],
        align_corners=options["align_corners"],
        sigma=float(options["smoothing_sigma"]),
        **{"top": options["top_k"][0]} | changes,
    )
    fixture.expect(flow_hidden=method.encoder.width // 2)
    method.load_checkpoint(fixture.trained, "fixture")
    return method
