"""AnomalyCLIP: text features, maps, scores, the training loss and its gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from produce import Fixture
    from torch import Tensor

    from zsadbench.methods import TrainableMethod


def produce(fixture: Fixture) -> dict[str, Tensor]:
    """Return maps, scores, losses and gradients, with the intermediates."""
    fixture.expect(
        softmax_after_upsampling=False,
        loss="cross-entropy + 4 * sum over layers of focal + dice(abnormal) + dice(normal)",
    )
    assert fixture.options["dual_path_blocks"] == fixture.options["dpam_layer"] - 1
    method, batch = make(fixture), fixture.batch()
    expect_prompts(fixture, method)
    scores, maps = method.predict(batch)
    features = batch.features(method.encoder, method.request)
    image = method.image_embedding(features)
    return {
        "pos_embed": method.encoder.positions,
        "text_features": method.text_features(),
        "image_feature": image / image.norm(dim=1, keepdim=True),
        "score": scores,
        "map_raw": fixture.full_size(maps, make(fixture, sigma=0.0)),
        "map": fixture.full_size(maps, method),
        **train(fixture),
    }


def expect_prompts(fixture: Fixture, method: TrainableMethod) -> None:
    """Refuse a fixture with other prompts than the method's, as sentences or as token ids."""
    given = fixture.spec["prompts"]
    placeholders = " ".join(["X"] * fixture.options["prompt_length"])
    ours = [f"{placeholders} {phrase}." for phrase in ("object", "damaged object")]
    if given != ours or not torch.equal(method.encoder.text.tokenize(given), fixture.inputs["token_ids"]):
        raise NotImplementedError(f"prompts {given}; only {ours} are implemented")


@torch.inference_mode(False)
@torch.enable_grad()
def train(fixture: Fixture) -> dict[str, Tensor]:
    """Return the losses of the fixture's images and masks, and gradients of their sum."""
    method, batch = make(fixture), fixture.batch()
    terms = method.loss(batch, fixture.inputs["labels"], fixture.inputs["gt"].float())
    total = torch.stack(list(terms.values())).sum()
    total.backward()
    learner = method.trained
    return {
        "loss_image": terms["image"].detach()[None],
        "loss_local": (terms["focal"] + terms["dice"]).detach()[None] / method.config.local_weight,
        "loss_total": total.detach()[None],
        "grad_ctx_pos": learner.ctx_pos.grad,
        "grad_ctx_neg": learner.ctx_neg.grad,
        "grad_deep0": learner.compound_prompts_text[0].grad,
    }


def make(fixture: Fixture, **changes: object) -> TrainableMethod:
    """Return the method with the fixture's options and vectors."""
    options = fixture.options
    given = {
        "layers": tuple(options["features_list"]),
        "dpam_blocks": options["dual_path_blocks"],
        "context": options["prompt_length"],
        "deep_depth": options["deep_prompt_depth"],
        "deep_length": options["deep_prompt_length"],
        "half_deep_prompts": options["deep_prompts_rounded_through_float16"],
        "image_norm": options["image_embedding_ln_post"],
        "temperature": options["temperature"],
        "align_corners": options["align_corners"],
        "sigma": float(options["smoothing_sigma"] or 0),
    }
    method = fixture.method("anomalyclip", fixture.encoder(), **given | changes)
    method.load_checkpoint(fixture.trained, "fixture")
    return method
