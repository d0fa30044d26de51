"""Dual-Anchor: the full model with every variant, the losses of a training step with given noise, and gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from zsadbench.methods.dual_anchor.anchors import prompt_template

from zsadbench.datasets import Category
from zsadbench.running import loading

if TYPE_CHECKING:
    from produce import Fixture
    from torch import Tensor

    from zsadbench.encoders.base import Encoder
    from zsadbench.encoders.features import FeatureRequest, Features
    from zsadbench.methods import Method

# What a fixture calls an option -> ours; the others that a variant may switch have our names.
RENAMED = {"ggtr.norm": "ggtr_norm", "ggtr.form": "ggtr_form", "E": "context"}
SWITCHES = (
    "groups", "heads", "E", "tau", "hard", "init_first_block", "update_residual", "hgm", "ggtr", "dsp", "ggtr.norm",
    "ggtr.form", "map_mode", "score", "sigma", "align",
)  # fmt: skip


class Step:
    """The training batch of a fixture, whose images have a category each."""

    def __init__(self, images: Tensor, categories: Sequence[Category]) -> None:
        self.images, self.categories = images, tuple(categories)

    def __len__(self) -> int:
        return len(self.images)

    def features(self, encoder: Encoder, request: FeatureRequest) -> Features:
        with torch.no_grad():
            return encoder.encode(self.images, request)


def produce(fixture: Fixture) -> dict[str, Tensor]:
    """Return maps and scores of every variant, and the losses and gradients of the default."""
    fixture.expect(
        assignment_scale="1/sqrt(C)",
        assign_eps=1,
        layernorm_eps=1e-5,
        loss_weights=[1, 1, 1, 1],
        final_norm_on_every_layer=True,
        focal={"gamma": 2, "smooth": 1e-5},
        dice={"smooth": 1, "per": "sample", "channel": "abnormal"},
    )
    fixture.describes(
        "prompt_order", "merge", "upsample", "smoothing", "fused_score", "mean_plus_assign", "losses_in",
        "group_patch_weights", "ggtr_layernorm", "backbone",
    )  # fmt: skip
    with torch.inference_mode(False):  # tensors made under it could not be trained
        encoder = fixture.encoder()
        default = build(fixture, encoder, {})
        outputs = inference(fixture, default) | intermediates(fixture, default) | training(fixture, default)
        for name, switches in fixture.options["variants"].items():
            found = inference(fixture, build(fixture, encoder, switches))
            outputs |= {f"{name}_{key}": tensor for key, tensor in found.items()}
    expect_prompts(fixture, default)
    named = fixture.spec["outputs"].keys()
    return {name: tensor.detach() for name, tensor in outputs.items() if name in named}


def build(fixture: Fixture, encoder: Encoder, switches: Mapping[str, Any]) -> Method:
    """Return the method with one setting and the fixture's weights, as far as the setting has them."""
    options = fixture.options.changed(switches)
    changes = {RENAMED.get(name, name): options[name] for name in SWITCHES}
    changes |= {"layers": tuple(options["layers"]), "groups": tuple(options["groups"])}
    method = fixture.method("dual_anchor", encoder, **changes)
    method.initialise(0)
    names = method.trained.state_dict().keys()
    method.load_checkpoint({name: fixture.trained[name] for name in names}, "fixture")
    return method


def categories(fixture: Fixture) -> list[Category]:
    """Return one category an image."""
    return [Category(noun.replace(" ", "_"), noun, "fixture") for noun in fixture.options["class_names"]]


def expect_prompts(fixture: Fixture, method: Method) -> None:
    """Refuse a fixture whose prompts are not those that the method tokenises, or whose towers have other widths."""
    prompts = [prompt_template(one.noun, method.config.context) for one in categories(fixture)]
    if not torch.equal(method.encoder.text.tokenize(prompts), fixture.inputs["token_ids"]):
        raise NotImplementedError(f"the fixture's token ids are not those of {prompts}")
    text = method.encoder.text
    fixture.expect(visual_width=method.encoder.width, text_width=text.width, joint_dim=text.joint_width)


def inference(fixture: Fixture, method: Method) -> dict[str, Tensor]:
    """Return map and score; images go one by one, because a Batch has one category."""
    images = fixture.inputs["images"]
    with torch.no_grad():
        batches = [loading.from_tensor(images[i : i + 1], one) for i, one in enumerate(categories(fixture))]
        scores, maps = (torch.cat(parts) for parts in zip(*map(method.predict, batches), strict=True))
    return {"score": scores, "map_raw": maps, "map": fixture.full_size(maps, method)}


def intermediates(fixture: Fixture, method: Method) -> dict[str, Tensor]:
    """Return what lies between the images and the default's results."""
    step = Step(fixture.inputs["images"], categories(fixture))
    with torch.no_grad():
        result = method.forward(step, step.categories)
        features = step.features(method.encoder, method.request)
    return {
        "patch_features": torch.stack(result.patches),
        "cls_token": features.cls,
        "anchors": result.anchors,
        "feature_assigned": result.merged.patches,
        "assign_first": result.merged.assignments[0],
        "assign_last": result.merged.assignments[-1],
        "cls_refined": result.refined,
        "text_features": result.text,
    }


def training(fixture: Fixture, method: Method) -> dict[str, Tensor]:
    """Return the losses without noise and with the fixture's, and gradients of their sum with it."""
    given, step = fixture.inputs, Step(fixture.inputs["images"], categories(fixture))
    noise = [given[f"noise_block_{h}"] for h in range(len(method.layers))]
    outputs = {}
    with torch.enable_grad():
        for prefix, drawn in (("eval_loss_", [torch.zeros_like(part) for part in noise]), ("loss_", noise)):
            terms = method.loss(step, given["labels"], given["masks"].float(), noise=drawn)
            total = torch.stack(list(terms.values())).sum()
            outputs |= {f"{prefix}{name}": value[None] for name, value in (terms | {"total": total}).items()}
        total.backward()
        result = method.forward(step, step.categories, noise)
    parameters = dict(method.trained.named_parameters())
    gradients = {
        "groups_bank": "groups.bank",
        "context_abnormal": "prompt.context_abnormal",
        "init0_out_weight": "blocks.0.init.out.weight",
        "refiner_weight": "refiner.weight",
    }
    return outputs | {
        "train_score": result.logit.sigmoid(),
        "train_map_raw": torch.stack(result.maps).mean(dim=0),
        **{f"grad_{name}": parameters[ours].grad for name, ours in gradients.items()},
    }
