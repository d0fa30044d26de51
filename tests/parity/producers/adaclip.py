"""AdaCLIP: per-image text features, maps, scores, the training loss and its gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from zsadbench.methods.adaclip import fusion

from zsadbench.datasets import Category
from zsadbench.running import loading

if TYPE_CHECKING:
    from produce import Fixture
    from torch import Tensor

    from zsadbench.methods import TrainableMethod
    from zsadbench.running.loading import ImageBatch


def produce(fixture: Fixture) -> dict[str, Tensor]:
    """Return the outputs of every image, each alone and with its own seed, and the loss of the first."""
    fixture.expect(
        kmeans="scikit-learn KMeans(n_init='auto'), drawn from numpy's global state",
        loss="focal(score) + sum over layers of focal + dice(abnormal) + dice(normal), batch 1, dice over mask rows",
    )
    fixture.describes("numpy_seed")  # the number stands beside the options
    fixture.expect_sentences({**fixture.spec["states"], "templates": fixture.spec["templates"]}, "adaclip")
    images = [image(fixture, number) for number in range(len(fixture.spec["class_names"]))]
    return {name: torch.cat([one[name] for one in images]) for name in images[0]} | train(fixture)


def image(fixture: Fixture, number: int) -> dict[str, Tensor]:
    """Return the outputs of one image."""
    method, batch = make(fixture, number), one_image(fixture, number)
    encoded = method.encode(batch, [batch.category])
    logits = method.patch_logits(encoded)
    chosen = reference_order(method, logits)
    maps = method.predict(batch).maps
    found = {
        "text_features": encoded.text,
        "score": method.image_logit(encoded, logits, chosen).sigmoid(),
        "map_raw": maps,
        "map": fixture.full_size(maps, method),
    }
    if fixture.options["use_hsf"]:
        layers = encoded.patches[0, :, chosen[0]].transpose(0, 1).flatten(1)
        labels = fusion.cluster(layers[None], method.config.clusters, method.config.cluster_seed)
        found |= {"hsf_index": chosen, "hsf_labels": labels}
    return found


@torch.inference_mode(False)
@torch.enable_grad()
def train(fixture: Fixture) -> dict[str, Tensor]:
    """Return the loss of the first image and its gradients."""
    method, batch = make(fixture, 0), one_image(fixture, 0)
    batch.categories = (batch.category,)
    with torch.no_grad():
        chosen = reference_order(method, method.patch_logits(method.encode(batch, batch.categories)))
    terms = method.loss(batch, torch.tensor([1]), fixture.inputs["gt"][:1].float(), chosen=chosen)
    total = terms["cls"] + terms["seg"]
    total.backward()
    parts = method.trained
    return {
        "loss_cls": terms["cls"].detach()[None],
        "loss_seg": terms["seg"].detach()[None],
        "loss_total": total.detach()[None],
        "grad_visual_static1": parts.visual_prompter.static_prompts[1].grad,
        "grad_text_static1": parts.text_prompter.static_prompts[1].grad,
        "grad_patch0_bias": parts.patch_token_layer.head[0].bias.grad,
        "grad_cls_weight": parts.cls_token_layer.head[0].weight.grad,
    }


def make(fixture: Fixture, number: int) -> TrainableMethod:
    """Return the method with the fixture's options and weights, and the k-means seed of one image."""
    options = fixture.options
    method = fixture.method(
        "adaclip",
        fixture.encoder(),
        layers=tuple(options["layers"]),
        prompt_towers=options["prompt_branch"],
        prompt_kinds=options["prompt_type"],
        prompt_length=options["prompt_length"],
        prompt_depth=options["prompt_depth"],
        half_prompts=options["prompts_rounded_through_float16"],
        score="hsf" if options["use_hsf"] else "class_token",
        clusters=options["k_clusters"],
        cluster_weight=options["hsf_alpha"],
        cluster_seed=fixture.spec["numpy_seed"] + number,
        logit_scale=options["logit_scale"],
        align_corners=options["align_corners"],
        sigma=options["smoothing_sigma"],
    )
    method.load_checkpoint(fixture.trained, "fixture")
    return method


def one_image(fixture: Fixture, number: int) -> ImageBatch:
    """Return one image with its class name."""
    name = fixture.spec["class_names"][number]
    return loading.from_tensor(fixture.inputs["images"][number : number + 1], Category(name, name, "fixture"))


def reference_order(method: TrainableMethod, logits: Tensor) -> Tensor:
    """Return the chosen patches in descending abnormality, the order in which the reference's k-means draws."""
    mean = logits.mean(dim=1)
    chosen = fusion.most_abnormal(mean, method.config.clusters)
    return chosen.gather(1, mean.gather(1, chosen).argsort(dim=1, descending=True))
