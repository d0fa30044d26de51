"""AA-CLIP: maps and scores by both domain rules, losses of both stages and their gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from zsadbench.datasets import Category
from zsadbench.running import loading

if TYPE_CHECKING:
    from produce import Fixture
    from torch import Tensor

    from zsadbench.methods import TrainableMethod


def produce(fixture: Fixture) -> dict[str, Tensor]:
    """Return the outputs of inference and of both stages."""
    fixture.expect(
        surgery_attention="V-V, single path",
        align_corners=True,
        leaky_relu_slope=0.01,
        blur_before_upsampling=True,
        text_projection_used=False,
        blur_industrial={"kernel": 7, "sigma": 1.0, "border": "reflect"},
        blur_medical={"kernel": 9, "sigma": 1.5, "border": "reflect"},
        stage1_loss=["upstream_last", "paper_sum"],
    )
    fixture.expect_sentences(fixture.spec["prompts"], "aa_clip")
    if not fixture.spec["states_outer_templates_inner"]:
        raise NotImplementedError("sentences are made of each state with each template, states first")
    method = make(fixture)
    segmentation, detection = method.encode_images(fixture.inputs["images"])
    nouns = [fixture.spec["real_names"][name] for name in sorted(fixture.spec["real_names"])]
    return {
        "text_features": torch.stack([method.encode_text(noun) for noun in nouns]),
        "pos_embed": method.encoder.positions,
        "stage1_features": torch.stack(method.surgery_features(training_batch(fixture)))[:, :, ::3],
        "seg_tokens": torch.stack(segmentation)[:, :, ::3],
        "det_token": detection,
        **infer(fixture, "industrial"),
        **infer(fixture, "medical"),
        **train(fixture),
    }


def infer(fixture: Fixture, domain: str) -> dict[str, Tensor]:
    """Return maps and scores of the images as one category, by the rule of a domain."""
    method = make(fixture, domain=domain)
    batch = loading.from_tensor(fixture.inputs["images"], category(fixture, fixture.spec["test_class_name"]))
    evidence, raw = method.predict(batch)
    final = method.finalise(evidence)
    return {
        f"map_raw_{domain}": fixture.full_size(raw, method),
        f"map_{domain}": fixture.full_size(final.scaled(raw), method),
        f"score_{domain}": final.scores,
        "score_cls_raw": evidence[:, 2],
    }


@torch.inference_mode(False)
@torch.enable_grad()
def train(fixture: Fixture) -> dict[str, Tensor]:
    """Return the losses of both stages and gradients of some layers."""
    axis, produced = fixture.options["surgery_attention_axis"], {}
    for loss, output in (("upstream_last", "stage1_last"), ("paper_sum", "stage1_sum")):
        terms, layers = backward(fixture, "text", stage1_loss=loss, surgery_attention_axis=axis)
        produced[f"loss_{output}"] = total(terms)
        produced[f"grad_{output}_adapter0"] = layers["text_adapter.0.fc.0.weight"]
        last = fixture.options["text_adapt_until"]
        produced[f"grad_{output}_proj"] = layers[f"text_adapter.{last}.fc.0.weight"]
        tokens, _ = backward(fixture, "text", stage1_loss=loss, surgery_attention_axis="tokens")
        produced[f"loss_{output}_token_axis"] = total(tokens)
    terms, layers = backward(fixture, "image")
    relu = "0." if fixture.options["projection_relu"] else ""
    return produced | {
        "loss_stage2_cls": terms["cls"].detach()[None],
        "loss_stage2_seg": terms["seg"].detach()[None],
        "loss_stage2_total": total(terms),
        "grad_stage2_layer_adapter0": layers["image_adapter.layer_adapters.0.fc.0.weight"],
        "grad_stage2_det_proj": layers[f"image_adapter.det_proj.fc.{relu}weight"],
    }


def backward(fixture: Fixture, stage: str, **changes: str) -> tuple[Mapping[str, Tensor], dict[str, Tensor]]:
    """Return the terms of a stage's loss, and its gradients by parameter."""
    method = make(fixture, **changes)
    terms = method.loss(training_batch(fixture), fixture.inputs["labels"], fixture.inputs["gt"].float(), stage)
    sum(terms.values()).backward()
    return terms, {name: parameter.grad for name, parameter in method.trained.named_parameters()}


def total(terms: Mapping[str, Tensor]) -> Tensor:
    """Return the sum of a loss's terms: [1]."""
    return sum(terms.values()).detach()[None]


def training_batch(fixture: Fixture) -> loading.ImageBatch:
    """Return the images as a batch of a training, with a category each."""
    batch = fixture.batch()
    batch.categories = tuple(category(fixture, name) for name in fixture.spec["train_class_names"])
    return batch


def category(fixture: Fixture, name: str) -> Category:
    """Return a class with its description as noun."""
    return Category(name, fixture.spec["real_names"][name], "fixture")


def make(fixture: Fixture, **changes: str) -> TrainableMethod:
    """Return the method with the fixture's options and adapters."""
    options = fixture.options
    method = fixture.method(
        "aa_clip",
        fixture.encoder(),
        levels=tuple(options["levels"]),
        image_adapt_until=options["image_adapt_until"],
        text_adapt_until=options["text_adapt_until"],
        image_adapt_weight=options["image_adapt_weight"],
        text_adapt_weight=options["text_adapt_weight"],
        relu=options["projection_relu"],
        logit_scale=options["logit_scale"],
        surgery_blocks=options["surgery_blocks"],
        text_norm_weight=options["text_norm_weight"],
        **changes,
    )
    method.load_checkpoint(fixture.trained, "fixture")
    return method
