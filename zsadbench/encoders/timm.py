"""Encoders from timm: VisionTransformer (DINOv2, CLIP, supervised), Eva (DINOv3 and other rotary models), ResNet."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import timm
import torch
from timm.layers.patch_embed import PatchEmbed
from timm.layers.pos_embed_sincos import apply_rot_embed_cat
from timm.models._hub import download_cached_file  # timm exports no function that returns the file
from timm.models._manipulate import reinit_non_persistent_buffers  # timm >= 1.0.24
from timm.models.eva import Eva, EvaBlock
from timm.models.resnet import ResNet
from timm.models.vision_transformer import Block as VitBlock
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from zsadbench.data.images import Preprocess
from zsadbench.encoders import convolutional
from zsadbench.encoders import weights as weight_files
from zsadbench.encoders.base import Encoder, Options, Settings, check_size
from zsadbench.encoders.hub import Place
from zsadbench.encoders.transformer import Block, Tower, TransformerEncoder, resize_positions
from zsadbench.errors import UnknownName, UsageError, WeightsError
from zsadbench.support import files

ACTIVATIONS = {"GELU": "gelu", "QuickGELU": "quickgelu"}  # class names in torch and timm -> our names


class TimmBlock(Block):
    """A view of timm's Block or EvaBlock; rotary positions apply to the last L tokens, the patches."""

    def __init__(self, block: Any, rope: Tensor | None) -> None:
        """Wrap the block; rope: sines and cosines [L, ...] of this block, None without rotary positions."""
        self.block: Any = block  # nn.Module tells type checkers too little of its attributes
        self.attn: Any = block.attn
        self.rope = rope
        self.heads, self.scale, self.norm1 = self.attn.num_heads, self.attn.scale, block.norm1

    def qkv(self, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See Block; queries and keys come normalised and rotated, as the model's own attention uses them."""
        q, k, v = (part.reshape(*y.shape[:2], self.heads, -1).transpose(1, 2) for part in self._linear(y))
        q, k = self.attn.q_norm(q), self.attn.k_norm(k)
        return self._rotate(q, v), self._rotate(k, v), v

    def _linear(self, y: Tensor) -> Sequence[Tensor]:
        attn = self.attn
        if attn.qkv is None:
            return attn.q_proj(y), attn.k_proj(y), attn.v_proj(y)
        if getattr(attn, "q_bias", None) is None:
            joint: Tensor = attn.qkv(y)
        else:
            joint = F.linear(y, attn.qkv.weight, torch.cat((attn.q_bias, attn.k_bias, attn.v_bias)))
        return joint.chunk(3, dim=-1)

    def _rotate(self, heads: Tensor, values: Tensor) -> Tensor:
        """Rotate queries or keys [B, heads, T, d] of the patches, in the type of the values."""
        if self.rope is None:
            return heads
        start = heads.shape[2] - self.rope.shape[-2]
        if start < 0:
            raise UsageError(
                f"An encoder with rotary positions takes whole images: expected at least {self.rope.shape[-2]} tokens, "
                f"got {heads.shape[2]}. Choose an encoder with learned positions for windows of tokens."
            )
        turned = apply_rot_embed_cat(heads[:, :, start:], self.rope, half=self.attn.rotate_half)
        return torch.cat([heads[:, :, :start], turned], dim=2).type_as(values)

    def out(self, mixed: Tensor) -> Tensor:
        """See Block."""
        return self._scaled(self.attn.proj(self.attn.norm(mixed.transpose(1, 2).flatten(2))), 1)

    def mlp(self, x: Tensor) -> Tensor:
        """See Block."""
        return self._scaled(self.block.mlp(self.block.norm2(x)), 2)

    def _scaled(self, branch: Tensor, number: int) -> Tensor:
        """Apply the layer scale of a residual branch: the modules ls1 and ls2 of Block, gamma_1 and gamma_2 of Eva."""
        if isinstance(self.block, VitBlock):
            scaled: Tensor = getattr(self.block, f"ls{number}")(branch)
            return scaled
        gamma = getattr(self.block, f"gamma_{number}")
        return branch if gamma is None else gamma * branch


def load(name: str, *, spec: str, options: Options, weights: Mapping[str, str | Path] | None) -> Encoder:
    """Return the encoder of a timm model name; see `zsadbench.encoders.load`."""
    pretrained = _pretrained(name)
    model = _skeleton(name, {"num_classes": _joint_classes(name, pretrained)}, spec, options)
    path = resolve(name, spec=spec, weights=weights)
    tensors = weight_files.read(path)
    if not isinstance(model, ResNet):  # whose names have always been these
        tensors = _converted(tensors, model, spec)
    return _build(model, tensors, spec, options, files.sha256(path), pretrained)


def check(name: str, *, spec: str, options: Options) -> None:
    """Raise what `load` would raise before it reads weights; see `zsadbench.encoders.check`."""
    pretrained = _pretrained(name)
    model = _skeleton(name, {"num_classes": _joint_classes(name, pretrained)}, spec, options)
    if isinstance(model, ResNet):
        convolutional.check_options(model, spec, options, pretrained)
    else:
        check_options(model, spec, options)


def check_options(model: VisionTransformer | Eva, spec: str, options: Options) -> tuple[int, str]:
    """Return the image side and the activation of a transformer at some options. Raises UsageError."""
    size = model.patch_embed.img_size[0] if options.size is None else options.size
    check_size(spec, size, model.patch_embed.patch_size[0])
    return size, _activation(model, spec, options.activation)


def resolve(name: str, *, spec: str, weights: Mapping[str, str | Path] | None, may_download: bool = True) -> Path:
    """Return the weight file of a model name: see `zsadbench.encoders.weights.resolve`."""
    found = place(name)
    if not (found.page or found.url) and not (weights and spec in weights):
        raise WeightsError(
            f"timm has no weights for {name!r}. Choose a pretrained name, or pass --weights {spec}=PATH."
        )
    return weight_files.resolve(spec, weights, found, partial(download_cached_file, found.url), may_download)


def place(name: str) -> Place:
    """Return where the weights of a model name come from."""
    pretrained = _pretrained(name)
    page, _, revision = str(pretrained.get("hf_hub_id") or "").partition("@")
    if not page:
        return Place(url=str(pretrained.get("url") or ""))
    return Place(page, (pretrained.get("hf_hub_filename") or "model.safetensors",), revision or None)


def config(name: str) -> dict[str, Any]:
    """Return the config of a model name, as `from_config` takes it."""
    return {"model": name, "kwargs": {"num_classes": _joint_classes(name, _pretrained(name))}}


def shapes(config: Mapping[str, Any], spec: str) -> dict[str, torch.Size]:
    """Return the shape of every tensor of the state dict that a config asks for."""
    model = _skeleton(config["model"], config.get("kwargs", {}), spec, Options())
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


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
    """Return an encoder from {"model": timm name, "kwargs": arguments of create_model} and a state dict in timm's keys.

    The other arguments are those of `zsadbench.encoders.load`; input statistics are those of timm's config.
    """
    options = Options(size, activation, pos_embed, precision, device)
    model = _skeleton(config["model"], config.get("kwargs", {}), spec, options)
    return _build(model, dict(tensors), spec, options, sha256, cast("Mapping[str, Any]", model.pretrained_cfg))


def _build(
    model: VisionTransformer | Eva | ResNet,
    tensors: Mapping[str, Tensor],
    spec: str,
    options: Options,
    sha256: str,
    pretrained: Mapping[str, Any],
) -> Encoder:
    """Return the encoder of a model on the meta device, its tensors, and the mean and std of timm's config."""
    if isinstance(model, ResNet):
        return convolutional.build(model, tensors, spec, options, sha256, pretrained)
    size, activation = check_options(model, spec, options)
    preprocess = Preprocess(size, mean=tuple(pretrained["mean"]), std=tuple(pretrained["std"]))
    model.to_empty(device="cpu")
    reinit_non_persistent_buffers(model)
    weight_files.load_into(model, tensors, spec)
    model.to(options.device).eval().requires_grad_(False)
    projection = _projection(model)
    return TransformerEncoder(
        _tower(model, size // model.patch_embed.patch_size[0], options.pos_embed),
        Settings(spec, activation, options.precision, options.pos_embed, sha256, preprocess),
        device=options.device,
        joint_width=projection.out_features if projection else None,
    )


def _pretrained(name: str) -> dict[str, Any]:
    """Return timm's pretrained config of a model name."""
    architecture, _, tag = name.partition(".")
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{architecture}.*")]
    if tag and timm.is_model(architecture) and tag not in tags:
        raise UnknownName(f"pretrained tag of {architecture}", tag, tags)
    config = timm.get_pretrained_cfg(name) if timm.is_model(architecture) else None
    if config is None:
        raise UnknownName("timm model", name, timm.list_models() + timm.list_pretrained())
    return dataclasses.asdict(config)


def _joint_classes(name: str, pretrained: Mapping[str, Any]) -> int:
    """Return the width of the head that projects into CLIP's joint space, 0 for models whose head is a classifier."""
    fine_tuned = "_ft_" in str(pretrained.get("tag", ""))
    return int(pretrained["num_classes"]) if "clip" in name and not fine_tuned else 0


def _projection(model: VisionTransformer | Eva) -> nn.Linear | None:
    """Return the head if it projects the class token, else None."""
    return model.head if isinstance(model.head, nn.Linear) and model.global_pool == "token" else None


def _skeleton(name: str, kwargs: Mapping[str, Any], spec: str, options: Options) -> VisionTransformer | Eva | ResNet:
    """Return the model without weights, on the meta device, at its native size."""
    if not timm.is_model(name):
        raise UnknownName("timm model", name, timm.list_models())
    try:
        with torch.device("meta"):
            model = timm.create_model(name, pretrained=False, **kwargs)
            if options.activation and isinstance(model, VisionTransformer):  # Eva takes no activation
                layer = {"gelu": nn.GELU, "quickgelu": timm.layers.QuickGELU}[options.activation]
                model = timm.create_model(name, pretrained=False, act_layer=layer, **kwargs)
    except NotImplementedError as error:  # some models compute with tensors while they are built (RegNet, CSATv2)
        raise _refusal(spec, "needs numbers to be built") from error
    return _supported(model, spec)


def _supported(model: Any, spec: str) -> VisionTransformer | Eva | ResNet:
    """Return the model if it is a pre-norm transformer with a class token, or a ResNet; else raise a UsageError."""
    if isinstance(model, ResNet):
        return model
    reason = ""
    blocks: Any = getattr(model, "blocks", ())
    if not isinstance(model, VisionTransformer | Eva):
        reason = f"is a {type(model).__name__}"
    elif model.cls_token is None:
        reason = "has no class token"
    elif type(model.patch_embed) is not PatchEmbed:
        reason = f"embeds patches with a {type(model.patch_embed).__name__}"
    elif any(type(block) not in (VitBlock, EvaBlock) for block in blocks):
        reason = f"has blocks of type {type(blocks[0]).__name__}"
    # Releases of timm whose attention cannot have gates or groups have none of these attributes.
    elif any(getattr(block.attn, "gate", None) or getattr(block.attn, "num_kv_groups", 1) > 1 for block in blocks):
        reason = "has gated or grouped-query attention"
    if reason:
        raise _refusal(spec, reason)
    return cast("VisionTransformer | Eva", model)


def _refusal(spec: str, reason: str) -> UsageError:
    return UsageError(
        f"Encoder {spec!r} {reason}; expected a plain timm VisionTransformer or Eva, whose class token, patch "
        "tokens and blocks the methods read. Choose e.g. timm:vit_large_patch14_dinov2.lvd142m."
    )


def _activation(model: Any, spec: str, wanted: str | None) -> str:
    """Return the name of the activation of every block; raise a UsageError if it is not the wanted one."""
    names = {_activation_name(block.mlp.act) for block in model.blocks}
    if len(names) != 1 or wanted not in (None, *names):
        raise UsageError(
            f"Encoder {spec!r} computes with the activation {' and '.join(sorted(names))}, but {wanted!r} was asked "
            "for. Leave the activation out, or choose another encoder."
        )
    return names.pop()


def _activation_name(module: Any) -> str:
    """Return "gelu" (exact), "quickgelu", or the class name of another activation in lower case."""
    name = ACTIVATIONS.get(type(module).__name__, type(module).__name__.lower())
    return name if getattr(module, "approximate", "none") == "none" else f"{name}_{module.approximate}"


def _converted(tensors: dict[str, Tensor], model: VisionTransformer | Eva, spec: str) -> dict[str, Tensor]:
    """Return tensors under timm's keys, from timm's own or an original layout (DINOv2, DINOv3, OpenAI, open_clip)."""
    patches, prefixes = model.patch_embed.num_patches, model.num_prefix_tokens
    for name, tensor in tensors.items():
        if name.endswith(("pos_embed", "visual.positional_embedding")) and tensor.ndim > 1:
            rows = tensor.shape[-2]
            # timm's filter would resample another grid by its own rule; ours starts from the grid of the weights.
            if rows - patches not in (0, 1, prefixes):
                raise WeightsError(
                    f"The weights given for {spec!r} are of another architecture: {name} has {rows} rows, expected "
                    f"{patches} patches and up to {prefixes} more. Give the file that belongs to this model."
                )
    convert = sys.modules[type(model).__module__].checkpoint_filter_fn
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # the DINOv3 conversion prints what it looks up
            converted = convert(dict(tensors), model)
    except Exception as error:  # timm's conversion assumes a fitting file, and fails in many ways on another
        raise WeightsError(
            f"The weights given for {spec!r} are of another architecture: timm cannot convert them "
            f"({type(error).__name__}: {str(error)[:120]}). Give the file that belongs to this model."
        ) from error
    heads = ("head.", "head_dist.") if isinstance(model.head, nn.Identity) else ()
    return {name: tensor for name, tensor in converted.items() if not name.startswith(heads)}


def _tower(model: VisionTransformer | Eva, grid: int, pos_embed: str) -> Tower:
    """Return the tower's parts for a grid of grid x grid patches, learned positions resized from the native grid."""
    prefix = torch.cat([token[0] for token in (model.cls_token, model.reg_token) if token is not None])
    final = model.fc_norm if isinstance(model.norm, nn.Identity) else model.norm
    return Tower(
        patchify=lambda images: model.patch_embed.norm(model.patch_embed.proj(images).flatten(2).transpose(1, 2)),
        prefix=prefix,
        positions=_positions(model, grid, pos_embed),
        norm_pre=model.norm_pre,
        blocks=[TimmBlock(block, rope) for block, rope in zip(model.blocks, _ropes(model, grid), strict=True)],
        norm=final,
        projection=_projection(model),
        patch=model.patch_embed.patch_size[0],
        module=model,
    )


def _positions(model: Any, grid: int, pos_embed: str) -> Tensor | None:
    """Return the learned positions of all tokens, [P + grid * grid, D]; prefix tokens without a slot get zeros."""
    if model.pos_embed is None:
        return None
    positions: Tensor = model.pos_embed[0]
    prefixes: int = model.num_prefix_tokens
    if len(positions) == model.patch_embed.num_patches:
        positions = torch.cat([positions.new_zeros(prefixes, positions.shape[1]), positions])
    return resize_positions(positions, prefixes, grid, pos_embed)


def _ropes(model: VisionTransformer | Eva, grid: int) -> list[Tensor | None]:
    """Return the rotary sines and cosines of each block, None where the model has none."""
    rope = getattr(model, "rope", None)
    if rope is None:
        return [None] * len(model.blocks)
    if hasattr(rope, "update_feat_shape"):  # a module that keeps its embedding would ignore the shape in get_embed
        rope.update_feat_shape((grid, grid))
    embedding = rope.get_embed(shape=(grid, grid))
    return list(embedding) if model.rope_mixed else [embedding] * len(model.blocks)
