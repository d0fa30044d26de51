"""Encoders in open_clip's layout: CLIP models whose vision tower is a vision transformer."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.transformer import QuickGELU, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from zsadbench.data.images import CLIP_MEAN, CLIP_STD, Preprocess
from zsadbench.encoders import weights as weight_files
from zsadbench.encoders.base import PRECISIONS, Encoder, Options, Settings, check_size
from zsadbench.encoders.hub import Place
from zsadbench.encoders.text import TextEncoder, is_text
from zsadbench.encoders.transformer import Block, Tower, TransformerEncoder, resize_positions
from zsadbench.errors import UnknownName, UsageError
from zsadbench.support import files

FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")  # on the pages of models, best first
ACTIVATIONS = {"gelu": nn.GELU, "quickgelu": QuickGELU}


class ClipBlock(Block):
    """A view of an open_clip ResidualAttentionBlock (docs/encoders.md#traps-of-open_clip)."""

    def __init__(self, block: Any) -> None:
        """Wrap the block; no tensor is copied."""
        self.block: Any = block  # nn.Module tells type checkers too little of its attributes
        self.heads, self.scale, self.norm1 = block.attn.num_heads, block.attn.head_dim**-0.5, block.ln_1

    def qkv(self, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See Block."""
        joint = F.linear(y, self.block.attn.in_proj_weight, self.block.attn.in_proj_bias)
        q, k, v = joint.reshape(*y.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        return q, k, v

    def out(self, mixed: Tensor) -> Tensor:
        """See Block."""
        branch: Tensor = self.block.ls_1(self.block.attn.out_proj(mixed.transpose(1, 2).flatten(2)))
        return branch

    def mlp(self, x: Tensor) -> Tensor:
        """See Block."""
        branch: Tensor = self.block.ls_2(self.block.mlp(self.block.ln_2(x)))
        return branch


def load(name: str, tag: str, *, spec: str, options: Options, weights: Mapping[str, str | Path] | None) -> Encoder:
    """Return the encoder of an open_clip model name and pretrained tag; see `zsadbench.encoders.load`."""
    config, pretrained = trained_config(name, tag, spec)
    path = resolve(name, tag, spec=spec, weights=weights)
    return build(
        config,
        weight_files.read(path),
        spec=spec,
        options=options,
        sha256=files.sha256(path),
        mean=tuple(pretrained.get("mean", CLIP_MEAN)),
        std=tuple(pretrained.get("std", CLIP_STD)),
    )


def load_text(
    name: str, tag: str, *, spec: str, precision: str, device: str, weights: Mapping[str, str | Path] | None
) -> TextEncoder:
    """Return the text tower alone; see `zsadbench.encoders.load_text`."""
    config, _ = trained_config(name, tag, spec)
    tensors = weight_files.read(resolve(name, tag, spec=spec, weights=weights))
    text = {key: tensor for key, tensor in tensors.items() if is_text(key)}
    return text_from_config(config, text, precision=precision, device=device)


def check(name: str, tag: str, *, spec: str, options: Options, weights: Mapping[str, str | Path] | None) -> None:
    """Raise what `load` would raise before it reads weights; see `zsadbench.encoders.check`."""
    config, _ = trained_config(name, tag, spec)
    _pretrained(name, tag, spec, weights)
    check_options(config, spec, options)


def check_options(config: Mapping[str, Any], spec: str, options: Options) -> None:
    """Raise UsageError unless the patches of a config tile the wanted image side."""
    if options.size is not None:
        check_size(spec, options.size, config["vision_cfg"].get("patch_size", open_clip.CLIPVisionCfg.patch_size))


def resolve(
    name: str, tag: str, *, spec: str, weights: Mapping[str, str | Path] | None, may_download: bool = True
) -> Path:
    """Return the weight file of a model name and tag: see `zsadbench.encoders.weights.resolve`."""
    _config(name)
    pretrained = _pretrained(name, tag, spec, weights)
    fetch = partial(open_clip.download_pretrained, pretrained)
    return weight_files.resolve(spec, weights, place(name, tag), fetch, may_download)


def place(name: str, tag: str) -> Place:
    """Return where the weights of a model name and tag come from."""
    pretrained = open_clip.get_pretrained_cfg(name, tag)
    page, _, file = str(pretrained.get("hf_hub", "")).rpartition("/")
    names = (f"{file.rpartition('.')[0]}.safetensors", file) if file else FILES
    return Place(page, names) if page else Place(url=str(pretrained.get("url", "")))


def shapes(config: Mapping[str, Any]) -> dict[str, torch.Size]:
    """Return the shape of every tensor of the state dict that a config asks for."""
    clip = _skeleton(config, "quickgelu" if config.get("quick_gelu") else "gelu")
    return {name: tensor.shape for name, tensor in clip.state_dict().items()}


def from_config(
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    *,
    spec: str,
    size: int | None = None,
    activation: str | None = None,
    pos_embed: str = "bicubic_antialias",
    precision: str = "fp32",
    device: str = "cpu",
    sha256: str = "",
) -> Encoder:
    """Return an encoder from an open_clip model config and a state dict in open_clip's key layout.

    config: embed_dim, vision_cfg, text_cfg and, optionally, quick_gelu. Without any key of the text tower the encoder
    has no text tower. The other arguments are those of `zsadbench.encoders.load`.
    """
    options = Options(size, activation, pos_embed, precision, device)
    _check_supported(config, spec)
    return build(config, tensors, spec=spec, options=options, sha256=sha256)


def text_from_config(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor], *, precision: str = "fp32", device: str = "cpu"
) -> TextEncoder:
    """Return the text tower alone, from an open_clip model config and a state dict with its keys and no others."""
    activation = "quickgelu" if config.get("quick_gelu") else "gelu"
    clip = _skeleton({**config, "vision_cfg": None}, activation)
    del clip.visual, clip.logit_scale
    weight_files.load_into(clip, tensors, "text tower")
    return TextEncoder(_frozen(clip, device), _autocast_type(precision))


def build(
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    *,
    spec: str,
    options: Options,
    sha256: str,
    mean: tuple[float, float, float] = CLIP_MEAN,
    std: tuple[float, float, float] = CLIP_STD,
) -> Encoder:
    """Return an encoder from a config and tensors; mean and std are those of the input channels."""
    activation = options.activation or ("quickgelu" if config.get("quick_gelu") else "gelu")
    clip = _skeleton(config, activation)
    native = clip.visual.image_size[0]
    size = native if options.size is None else options.size
    check_size(spec, size, clip.visual.patch_size[0])
    preprocess = Preprocess(size, mean=mean, std=std)
    has_text = any(not name.startswith("visual.") for name in tensors)
    used = clip if has_text else nn.ModuleDict({"visual": clip.visual})
    weight_files.load_into(used, tensors, spec)
    _frozen(used, options.device)
    return TransformerEncoder(
        _tower(clip.visual, size, options.pos_embed),
        Settings(spec, activation, options.precision, options.pos_embed, sha256, preprocess),
        device=options.device,
        joint_width=clip.visual.output_dim,
        logit_scale=float(clip.logit_scale.exp()) if has_text else None,
        text=TextEncoder(clip, _autocast_type(options.precision)) if has_text else None,
    )


def _config(name: str) -> dict[str, Any]:
    """Return open_clip's config of a model name."""
    config = open_clip.get_model_config(name) if name in open_clip.list_models() else None
    if config is None:
        raise UnknownName("open_clip model", name, open_clip.list_models())
    return dict(config)


def _pretrained(name: str, tag: str, spec: str, weights: Mapping[str, str | Path] | None) -> dict[str, Any]:
    """Return what open_clip knows of a tag, nothing for one's own with a local file. Raises UnknownName."""
    pretrained = open_clip.get_pretrained_cfg(name, tag)
    if not pretrained and not (weights and spec in weights):
        raise UnknownName(f"pretrained tag of {name}", tag, open_clip.list_pretrained_tags_by_model(name))
    return dict(pretrained)


def trained_config(name: str, tag: str, spec: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the config of a model as its tag was trained, and what open_clip knows of the tag."""
    config, pretrained = _config(name), open_clip.get_pretrained_cfg(name, tag)
    _check_supported(config, spec)
    # A tag of OpenAI's weights was trained with QuickGELU, whatever the model's file says (docs/encoders.md).
    config["quick_gelu"] = bool(config.get("quick_gelu") or pretrained.get("quick_gelu"))
    return config, pretrained


def _autocast_type(precision: str) -> torch.dtype | None:
    return None if precision == "fp32" else PRECISIONS[precision]


def _check_supported(config: Mapping[str, Any], spec: str) -> None:
    """Raise a UsageError unless the config is that of a plain CLIP vision transformer read at its class token."""
    vision, text = config.get("vision_cfg") or {}, config.get("text_cfg") or {}
    custom = ("qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc")
    reasons = {
        "a ResNet as its vision tower": isinstance(vision.get("layers"), list | tuple),
        "a timm vision tower (try it as timm:NAME)": bool(vision.get("timm_model_name")),
        "attention pooling": bool(vision.get("attentional_pool")),
        "average pooling": vision.get("pool_type", "tok") != "tok",
        "custom attention blocks": any(vision.get(name) for name in custom) or vision.get("block_type") == "custom",
        "a text tower of another kind than CLIP's": bool(
            config.get("custom_text") or config.get("multimodal_cfg") or text.get("hf_model_name")
        ),
    }
    found = [reason for reason, applies in reasons.items() if applies]
    if found:
        raise UsageError(
            f"Encoder {spec!r} has {found[0]}; expected a plain CLIP vision transformer, whose patch tokens and blocks "
            "the methods read. Choose one of open_clip's ViT models, e.g. ViT-L-14-336."
        )


def _skeleton(config: Mapping[str, Any], activation: str) -> open_clip.CLIP:
    """Return the model without weights (on the meta device, which spends no time on random ones)."""
    with torch.device("meta"):
        clip = open_clip.CLIP(
            config["embed_dim"],
            config.get("vision_cfg") or {},
            config.get("text_cfg") or {},
            quick_gelu=activation == "quickgelu",
        )
    if clip.attn_mask is not None:
        clip.attn_mask = torch.full(clip.attn_mask.shape, float("-inf")).triu_(1)
    for block in [*clip.visual.transformer.resblocks, *clip.transformer.resblocks]:
        if not _has_activation(block.mlp.gelu, activation):
            raise UsageError(f"The model's activation is {block.mlp.gelu}, which is not {activation!r}.")
    return clip


def _has_activation(module: nn.Module, activation: str) -> bool:
    """Tell whether an activation module is the named one; the tanh approximation of GELU is not "gelu"."""
    exact = getattr(module, "approximate", "none") == "none"
    return type(module) is ACTIVATIONS[activation] and exact


def _frozen(module: nn.Module, device: str) -> nn.Module:
    """Return the module on a device, in evaluation mode and without gradients for its weights."""
    return module.to(device).eval().requires_grad_(False)


def _tower(visual: VisionTransformer, size: int, pos_embed: str) -> Tower:
    """Return the tower's parts, with the position embedding resized from the native grid."""
    patch = visual.patch_size[0]
    return Tower(
        patchify=lambda images: visual.conv1(images).flatten(2).transpose(1, 2),
        prefix=visual.class_embedding[None],
        positions=resize_positions(visual.positional_embedding, 1, size // patch, pos_embed),
        norm_pre=visual.ln_pre,
        blocks=[ClipBlock(block) for block in visual.transformer.resblocks],
        norm=visual.ln_post,
        projection=lambda tokens: tokens @ visual.proj,
        patch=patch,
        module=visual,
    )
