"""One view over frozen vision transformers: blocks, a tower, and the encoder that runs them in a single pass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zsadbench.encoders.base import KERNELS, Encoder, Settings
from zsadbench.encoders.features import FeatureRequest, Features
from zsadbench.errors import UsageError

if TYPE_CHECKING:
    from zsadbench.encoders.text import TextEncoder


class Block(ABC):
    """One pre-norm transformer block: x + attention(norm1(x)), then x + mlp(norm2(x)).

    Layer scale, query/key norms and rotary positions, where a model has them, are inside `qkv`, `out` and `mlp`.
    """

    heads: int
    scale: float  # of the attention logits
    norm1: Callable[[Tensor], Tensor]  # the norm before the attention: [B, T, D] -> [B, T, D]

    @abstractmethod
    def qkv(self, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values of norm1's output: [B, T, D] -> three times [B, heads, T, D / heads]."""

    @abstractmethod
    def out(self, mixed: Tensor) -> Tensor:
        """Return the output projection of attention-weighted values: [B, heads, T, D / heads] -> [B, T, D]."""

    @abstractmethod
    def mlp(self, x: Tensor) -> Tensor:
        """Return the residual branch of the MLP, its norm included: [B, T, D] -> [B, T, D]."""

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Return out(softmax(queries keys^T * scale) values): three times [B, heads, T, D / heads] -> [B, T, D]."""
        return self.out(F.scaled_dot_product_attention(queries, keys, values, scale=self.scale))

    def attention(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Return softmax(queries keys^T * scale): [B, heads, T, T], rows summing to 1."""
        return torch.softmax((queries * self.scale) @ keys.transpose(-2, -1), dim=-1)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the residual stream after the block: [B, T, D] -> [B, T, D]."""
        x = x + self.attend(*self.qkv(self.norm1(x)))
        return x + self.mlp(x)

    def first_token(self, x: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return what the block makes of the first token of its input [B, T, D] alone: [B, D].

        Cheaper than the whole block where nothing else of it is read: one query, one row of the MLP.
        """
        token = x[:, :1] + self.attend(q[:, :, :1], k, v)
        return (token + self.mlp(token))[:, 0]


@dataclass(frozen=True)
class Tower:
    """The parts of a vision transformer, at its working size and on its device."""

    patchify: Callable[[Tensor], Tensor]  # images [B, 3, S, S] -> patch embeddings [B, L, D]
    prefix: Tensor  # class token, then registers, without positions: [P, D]
    positions: Tensor | None  # of prefix and patches: [P + L, D]; None where positions are rotary only
    norm_pre: Callable[[Tensor], Tensor]  # before block 1
    blocks: Sequence[Block]
    norm: Callable[[Tensor], Tensor]  # after the last block
    projection: Callable[[Tensor], Tensor] | None  # width D -> joint width J
    patch: int  # side of a patch in pixels
    module: nn.Module  # whose parts these are


class TransformerEncoder(Encoder):
    """A frozen vision transformer, and its text tower where there is one.

    The residual stream is float32, and is computed in one way whatever is asked for, so that requests merge without
    changing a number.
    """

    def __init__(
        self,
        tower: Tower,
        settings: Settings,
        *,
        device: str,
        joint_width: int | None = None,
        logit_scale: float | None = None,
        text: TextEncoder | None = None,
    ) -> None:
        """Wrap a tower that `zsadbench.encoders.load` built."""
        super().__init__(tower.module, settings, device, text)
        self.tower, self.joint_width, self.logit_scale = tower, joint_width, logit_scale
        self.blocks = tower.blocks
        self.positions = tower.positions
        self.patch = tower.patch
        self.grid = self.size // self.patch
        self.prefixes, self.width = tower.prefix.shape
        self.depth, self.heads = len(tower.blocks), tower.blocks[0].heads

    @property
    def shape(self) -> dict[str, Any]:
        """See Encoder."""
        names = ("size", "patch", "grid", "depth", "width", "heads", "prefixes", "joint_width", "logit_scale")
        return {name: getattr(self, name) for name in names}

    @property
    def whole_pass(self) -> FeatureRequest:
        """Every token of the last block, and the embedding."""
        return FeatureRequest(tokens=frozenset({self.depth}), cls=True)

    def layer_shape(self, layer: int) -> tuple[int, int]:
        """See Encoder: the same for all blocks."""
        return self.grid, self.width

    def embed(self, images: Tensor) -> Tensor:
        """Return tokens with their positions, before the norm that precedes block 1: [B, 3, S, S] -> [B, T, D]."""
        if tuple(images.shape[1:]) != (3, self.size, self.size):
            raise UsageError(
                f"Encoder {self.spec!r} takes images of shape [B, 3, {self.size}, {self.size}], got "
                f"{list(images.shape)}. Load it with size={images.shape[-1]} or preprocess to its size."
            )
        with self.autocast():
            patches = self.tower.patchify(images).float()  # the residual stream stays float32 under autocast
        tokens = torch.cat([self.tower.prefix.expand(len(patches), -1, -1), patches], dim=1)
        return tokens if self.positions is None else tokens + self.positions

    def project(self, tokens: Tensor) -> Tensor:
        """Return the final norm and the projection, if there is one, of tokens: [..., D] -> [..., J] or [..., D]."""
        with self.autocast():
            normed = self.tower.norm(tokens)
            return (normed if self.tower.projection is None else self.tower.projection(normed)).float()

    def encode_tokens(self, tokens: Tensor) -> Tensor:
        """Return the embedding of token sequences, as WinCLIP's windows: [N, T', D] of `embed`'s tokens -> [N, J]."""
        with self.autocast():
            x = self.tower.norm_pre(tokens)
            for block in self.blocks[:-1]:
                x = block(x)
            last = self.blocks[-1]
            token = last.first_token(x, *last.qkv(last.norm1(x)))
        return self.project(token)

    def encode(self, images: Tensor, request: FeatureRequest) -> Features:
        """Return what the request asks of images [B, 3, S, S], in one pass that stops at the last block needed."""
        last = self._last_block(request)
        found: dict[str, Tensor] = {}
        paths: dict[int, Tensor] = {}  # first block -> its value-value path so far
        x = self.embed(images)
        if request.embedded:
            found["embedded"] = x
        with self.autocast():
            x = self.tower.norm_pre(x)
            self._keep(found, request, 0, x)
            for layer, block in enumerate(self.blocks[:last], start=1):
                q, k, v = block.qkv(block.norm1(x))
                found |= _extras(block, request, layer, q, k, v) | _values(block, request, layer, v, x, paths)
                if layer == self.depth and request.cls:
                    # Computed apart, so that its bits never depend on who asks for the other tokens of the block.
                    token = block.first_token(x, q, k, v)
                if layer == last and layer not in request.tokens | request.attended:
                    break
                x = x + block.attend(q, k, v)
                if layer in request.attended:
                    found[f"attended.{layer}"] = x
                x = x + block.mlp(x)
                self._keep(found, request, layer, x)
            if request.cls:
                found["class_token"], found["cls"] = token, self.tower.norm(token)
        if request.cls:
            found["embedding"] = self.project(token)
        # Contiguous whether they were just computed or come back from a disk: results can depend on that in a last bit.
        return Features({name: tensor.float().contiguous() for name, tensor in found.items()})

    def _keep(self, found: dict[str, Tensor], request: FeatureRequest, layer: int, x: Tensor) -> None:
        """Store the residual stream after a block, if it is asked for."""
        if layer in request.tokens:
            found[f"tokens.{layer}"], found[f"prefix.{layer}"] = x[:, self.prefixes :], x[:, : self.prefixes]

    def _last_block(self, request: FeatureRequest) -> int:
        """Return the last block that the request needs; raise a UsageError where it names one that is not there."""
        inner = request.attended | request.attention | request.qq | request.kk | request.vv
        inner |= {layer for ends in request.vv_path for layer in ends}
        wrong = {layer for layer in inner if layer < 1} | {
            layer for layer in inner | request.tokens if not 0 <= layer <= self.depth
        }
        if wrong:
            raise UsageError(
                f"Encoder {self.spec!r} has blocks 1 to {self.depth}, but block {min(wrong)} was asked for. "
                "Choose layers that it has, or an encoder that is deep enough."
            )
        return self.depth if request.cls else max(inner | request.tokens, default=0)


def _extras(block: Block, request: FeatureRequest, layer: int, q: Tensor, k: Tensor, v: Tensor) -> dict[str, Tensor]:
    """Return the attentions beside the residual stream that the request asks of this block, values aside."""
    found = {}
    if layer in request.attention:
        found[f"attention.{layer}"] = block.attention(q, k)
    if layer in request.qq:
        found[f"qq.{layer}"] = block.attend(q, q, v)
    if layer in request.kk:
        found[f"kk.{layer}"] = block.attend(k, k, v)
    return found


def _values(
    block: Block, request: FeatureRequest, layer: int, v: Tensor, x: Tensor, paths: dict[int, Tensor]
) -> dict[str, Tensor]:
    """Return what the request asks of this block's value-value attention, computed once, and move the paths on.

    x: the residual stream before the block, where a path starts.
    """
    firsts = {first for first, last in request.vv_path if first <= layer <= last}
    if layer not in request.vv and not firsts:
        return {}
    attended = block.attend(v, v, v)
    found = {f"vv.{layer}": attended} if layer in request.vv else {}
    for first in firsts:
        paths[first] = paths.get(first, x) + attended
        if (first, layer) in request.vv_path:
            found[f"vv_path.{first}-{layer}"] = paths[first]
    return found


def resize_positions(positions: Tensor, prefixes: int, side: int, kernel: str) -> Tensor:
    """Return position embeddings for a grid of `side` x `side` patches: [P + G*G, D] -> [P + side*side, D].

    The P prefix rows are kept; `kernel` is a key of KERNELS, always with align_corners=False. From the native grid in
    one step (docs/encoders.md#positions).
    """
    native = round((len(positions) - prefixes) ** 0.5)
    if native == side:
        return positions
    host = positions.cpu()  # where every device gets the same numbers from
    image = host[prefixes:].reshape(1, native, native, -1).permute(0, 3, 1, 2)
    image = F.interpolate(image, size=(side, side), align_corners=False, **KERNELS[kernel])
    return torch.cat([host[:prefixes], image.permute(0, 2, 3, 1).reshape(side * side, -1)]).to(positions.device)
