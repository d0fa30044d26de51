"""What a method asks of an encoder pass (FeatureRequest) and what the pass returns (Features)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, init=False)
class FeatureRequest:
    """A value that names the intermediate results of one encoder pass; requests merge with `|`.

    Layers are 1-based block numbers. All results come from the original residual stream: asking for more never
    changes what is already there.

    Example:

        >>> import zsadbench as z
        >>> asked = z.FeatureRequest(tokens={6, 12}) | z.FeatureRequest(tokens=[12], cls=True)
        >>> sorted(asked.tokens), asked.cls
        ([6, 12], True)
    """

    tokens: frozenset[int]  # residual stream after block l; 0 is the input of block 1
    attended: frozenset[int]  # residual stream of block l after its attention, before its MLP
    attention: frozenset[int]  # softmaxed query-key attention of block l, per head
    qq: frozenset[int]  # out_proj(softmax(q q^T) v) of block l, no residual, no MLP
    kk: frozenset[int]  # the same with keys
    vv: frozenset[int]  # the same with values
    vv_path: frozenset[tuple[int, int]]  # (f, l): stream before block f plus vv of blocks f..l
    embedded: bool  # tokens with position embedding, before the norm that precedes block 1
    cls: bool  # the image embedding: before the final norm, after it, and after the projection

    def __init__(
        self,
        *,
        tokens: Iterable[int] = (),
        attended: Iterable[int] = (),
        attention: Iterable[int] = (),
        qq: Iterable[int] = (),
        kk: Iterable[int] = (),
        vv: Iterable[int] = (),
        vv_path: Iterable[tuple[int, int]] = (),
        embedded: bool = False,
        cls: bool = False,
    ) -> None:
        """Accept any iterable of layers: `FeatureRequest(tokens={6, 12})`."""
        layers = {"tokens": tokens, "attended": attended, "attention": attention, "qq": qq, "kk": kk, "vv": vv}
        for name, value in layers.items():
            object.__setattr__(self, name, frozenset(value))
        object.__setattr__(self, "vv_path", frozenset(vv_path))
        object.__setattr__(self, "embedded", embedded)
        object.__setattr__(self, "cls", cls)

    def __or__(self, other: FeatureRequest) -> FeatureRequest:
        """Return the request for everything that either asks for."""
        return FeatureRequest(
            **{field.name: getattr(self, field.name) | getattr(other, field.name) for field in fields(self)}
        )

    def keys(self) -> frozenset[str]:
        """Return the names of the tensors that answer this request, as Features stores them."""
        names: set[str] = set()
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "cls":
                names |= {"class_token", "cls", "embedding"} if value else set()
            elif field.name == "embedded":
                names |= {"embedded"} if value else set()
            elif field.name == "tokens":
                names |= {f"{kind}.{layer}" for layer in value for kind in ("tokens", "prefix")}
            elif field.name == "vv_path":
                names |= {f"vv_path.{first}-{last}" for first, last in value}
            else:
                names |= {f"{field.name}.{layer}" for layer in value}
        return frozenset(names)


class Features:
    """The results of one encoder pass over B images: contiguous float32 tensors on the encoder's device.

    T = P + L is the sequence length: P prefix tokens (CLS first, then registers) and L patch tokens in row-major order.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        """Wrap a mapping from FeatureRequest key to tensor; the mapping may load lazily."""
        self.tensors = tensors

    def tokens(self, layer: int) -> Tensor:
        """Return the patch tokens after block `layer`: [B, L, D]."""
        return self.tensors[f"tokens.{layer}"]

    def prefix(self, layer: int) -> Tensor:
        """Return the prefix tokens (CLS first) after block `layer`: [B, P, D]."""
        return self.tensors[f"prefix.{layer}"]

    def attended(self, layer: int) -> Tensor:
        """Return all tokens of block `layer` after its attention and before its MLP: [B, T, D]."""
        return self.tensors[f"attended.{layer}"]

    def attention(self, layer: int) -> Tensor:
        """Return the query-key attention of block `layer`, rows summing to 1: [B, heads, T, T]."""
        return self.tensors[f"attention.{layer}"]

    def qq(self, layer: int) -> Tensor:
        """Return the query-query attention output of block `layer`: [B, T, D]."""
        return self.tensors[f"qq.{layer}"]

    def kk(self, layer: int) -> Tensor:
        """Return the key-key attention output of block `layer`: [B, T, D]."""
        return self.tensors[f"kk.{layer}"]

    def vv(self, layer: int) -> Tensor:
        """Return the value-value attention output of block `layer`: [B, T, D]."""
        return self.tensors[f"vv.{layer}"]

    def vv_path(self, first: int, last: int) -> Tensor:
        """Return the stream before block `first` plus the value-value attention of blocks first..last: [B, T, D]."""
        return self.tensors[f"vv_path.{first}-{last}"]

    @property
    def embedded(self) -> Tensor:
        """All tokens with position embedding, before the norm that precedes block 1: [B, T, D]."""
        return self.tensors["embedded"]

    @property
    def class_token(self) -> Tensor:
        """The class token before the final norm: [B, D]."""
        return self.tensors["class_token"]

    @property
    def cls(self) -> Tensor:
        """The class token after the final norm, before the projection: [B, D]."""
        return self.tensors["cls"]

    @property
    def embedding(self) -> Tensor:
        """The image embedding after the projection, not normalised: [B, J] (`cls` where there is no projection)."""
        return self.tensors["embedding"]

    def covers(self, request: FeatureRequest) -> bool:
        """Tell whether every tensor of the request is here."""
        return request.keys() <= set(self.tensors)

    def rows(self, start: int, stop: int) -> Features:
        """Return the features of images start..stop, as views."""
        return Features({name: tensor[start:stop] for name, tensor in self.tensors.items()})

    @staticmethod
    def concatenate(parts: Sequence[Features], keys: Iterable[str]) -> Features:
        """Return the features of several passes as one, for the given keys only."""
        import torch

        if len(parts) == 1:
            return Features({key: parts[0].tensors[key] for key in keys})
        return Features({key: torch.cat([part.tensors[key] for part in parts]) for key in keys})
