"""Residual networks of timm as encoders: layer l is the l-th stage, its positions are the patch tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from timm.models.resnet import ResNet
from torch import Tensor, nn

from zsadbench.data.images import Preprocess
from zsadbench.encoders import weights as weight_files
from zsadbench.encoders.base import Encoder, Options, Settings, check_size
from zsadbench.encoders.features import FeatureRequest, Features
from zsadbench.errors import UsageError

COUNTER = "num_batches_tracked"  # of batch norms; older weight files lack it, and only training reads it


class ConvolutionalEncoder(Encoder):
    """A frozen residual network without its head; it answers requests for tokens alone.

    Stages differ in width and grid (`layer_shape`), and there is neither text nor class token nor block: what vision
    transformers have beside is a UsageError here.
    """

    def __init__(self, model: ResNet, settings: Settings, device: str) -> None:
        """Wrap a model that `build` loaded."""
        super().__init__(model, settings, device)
        self.model, self.depth = model, len(_stages(model))
        self.joint_width, self.logit_scale = None, None

    @property
    def shape(self) -> dict[str, Any]:
        """See Encoder."""
        return {"size": self.size, "shapes": [self.layer_shape(1 + stage) for stage in range(self.depth)]}

    @property
    def whole_pass(self) -> FeatureRequest:
        """The tokens of the last stage."""
        return FeatureRequest(tokens=frozenset({self.depth}))

    def layer_shape(self, layer: int) -> tuple[int, int]:
        """See Encoder."""
        info: dict[str, Any] = self.model.feature_info[layer]  # the first entry is the stem
        return self.size // int(info["reduction"]), int(info["num_chs"])

    def encode(self, images: Tensor, request: FeatureRequest) -> Features:
        """Return the tokens [B, L, D] of the stages that the request names, and no prefix tokens [B, 0, D]."""
        if request != FeatureRequest(tokens=request.tokens) or not request.tokens <= set(range(1, self.depth + 1)):
            raise UsageError(
                f"Encoder {self.spec!r} is a convolutional network: it gives the tokens of its stages 1 to "
                f"{self.depth} alone, got a request for {', '.join(sorted(request.keys()))}. Choose a transformer."
            )
        found: dict[str, Tensor] = {}
        with self.autocast():
            x = self.model.maxpool(self.model.act1(self.model.bn1(self.model.conv1(images))))
            for layer, stage in enumerate(_stages(self.model)[: max(request.tokens)], start=1):
                x = stage(x)
                if layer in request.tokens:
                    tokens = x.flatten(2).mT.float().contiguous()
                    found |= {f"tokens.{layer}": tokens, f"prefix.{layer}": tokens[:, :0]}
        return Features(found)


def build(
    model: ResNet,
    tensors: Mapping[str, Tensor],
    spec: str,
    options: Options,
    sha256: str,
    pretrained: Mapping[str, Any],
) -> ConvolutionalEncoder:
    """Return the encoder of a model on the meta device, its tensors, and the input statistics of timm's config."""
    size = check_options(model, spec, options, pretrained)
    preprocess = Preprocess(
        size,
        interpolation="bilinear" if pretrained["interpolation"] == "bilinear" else "bicubic",
        mean=tuple(pretrained["mean"]),
        std=tuple(pretrained["std"]),
    )
    model.to_empty(device="cpu")
    needed = {name: tensor for name, tensor in tensors.items() if not name.startswith("fc.")}
    counters = {name: torch.zeros(()) for name in model.state_dict() if name.endswith(COUNTER)}
    weight_files.load_into(model, needed | counters, spec)
    model.to(options.device).eval().requires_grad_(False)
    settings = Settings(spec, "relu", options.precision, options.pos_embed, sha256, preprocess)
    return ConvolutionalEncoder(model, settings, options.device)


def check_options(model: ResNet, spec: str, options: Options, pretrained: Mapping[str, Any]) -> int:
    """Return the image side of a network at some options. Raises UsageError."""
    size = int(pretrained["input_size"][-1]) if options.size is None else options.size
    info: dict[str, Any] = model.feature_info[-1]
    check_size(spec, size, int(info["reduction"]))
    if options.activation is not None:
        raise UsageError(f"Encoder {spec!r} is a convolutional network; leave the activation out.")
    return size


def _stages(model: ResNet) -> list[nn.Module]:
    return [model.get_submodule(f"layer{number}") for number in (1, 2, 3, 4)]
