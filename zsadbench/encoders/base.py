"""What every encoder is: a frozen image tower that answers requests for features, and its text tower if it has one."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from zsadbench.data.images import Preprocess
from zsadbench.encoders.features import FeatureRequest, Features
from zsadbench.errors import UnknownName, UsageError

if TYPE_CHECKING:
    from zsadbench.encoders.text import TextEncoder

# Resize rules of position embeddings, as arguments of F.interpolate (docs/encoders.md#positions).
KERNELS: dict[str, dict[str, Any]] = {
    "bicubic_antialias": {"mode": "bicubic", "antialias": True},
    "bicubic": {"mode": "bicubic", "antialias": False},
    "bilinear": {"mode": "bilinear", "antialias": False},
}
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Options:
    """What a caller may ask of an encoder; None means the model's own."""

    size: int | None = None  # input side S in pixels
    activation: str | None = None  # "gelu" or "quickgelu"
    pos_embed: str = "bicubic_antialias"  # a key of KERNELS
    precision: str = "fp32"  # a key of PRECISIONS
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Refuse names that do not exist."""
        choices = {"activation": (None, "gelu", "quickgelu"), "pos_embed": (*KERNELS,), "precision": (*PRECISIONS,)}
        for name, known in choices.items():
            value = getattr(self, name)
            if value not in known:
                raise UnknownName(f"encoder {name}", str(value), [choice for choice in known if choice])


@dataclass(frozen=True)
class Settings:
    """What an encoder was built as: everything that decides its numbers."""

    spec: str
    activation: str  # "gelu" or "quickgelu"; other timm models keep their activation's name
    precision: str  # a key of PRECISIONS
    pos_embed: str  # a key of KERNELS
    sha256: str  # of the weights
    preprocess: Preprocess


class Encoder(ABC):
    """A frozen image tower, and its text tower where there is one.

    Weights stay float32; `precision` says in which type autocast computes. What only vision transformers have stands in
    `TransformerEncoder`; methods that read it from another encoder get a UsageError.
    """

    depth: int  # layers: blocks of a transformer, stages of a residual network
    joint_width: int | None  # J of the space that images and text share; None without a text tower of its own
    logit_scale: float | None

    def __init__(self, module: nn.Module, settings: Settings, device: str, text: TextEncoder | None = None) -> None:
        """Keep what an encoder was built as; subclasses set what is declared above.

        module: the model of the image tower, with all of its weights.
        """
        self.module, self.settings, self.device, self.text = module, settings, device, text
        self.parameters = sum(parameter.numel() for parameter in module.parameters())  # values in all of its weights
        self.borrowed: dict[str, str] = {}  # text_spec and text_sha256 of a text tower that is not its own
        self.spec, self.sha256, self.preprocess = settings.spec, settings.sha256, settings.preprocess
        self.activation, self.pos_embed, self.precision = settings.activation, settings.pos_embed, settings.precision
        self.size = settings.preprocess.size

    @property
    @abstractmethod
    def shape(self) -> dict[str, Any]:
        """The facts beside the settings that tell one encoder from another, as JSON values."""

    @property
    @abstractmethod
    def whole_pass(self) -> FeatureRequest:
        """What a bare pass is asked for: everything that the last layer gives."""

    @abstractmethod
    def layer_shape(self, layer: int) -> tuple[int, int]:
        """Return the side of the grid and the width of the patch tokens after a layer, 1-based."""

    @abstractmethod
    def encode(self, images: Tensor, request: FeatureRequest) -> Features:
        """Return what the request asks of images [B, 3, S, S], in one pass. Raises UsageError for what is not there."""

    @property
    def key(self) -> str:
        """The identity as one string: encoders with equal keys give equal features."""
        return json.dumps(asdict(self.settings) | self.shape | self.borrowed, sort_keys=True)

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that decides the encoder's numbers, as JSON values; it goes into every record."""
        return dict(json.loads(self.key))

    def borrow_text(self, text: TextEncoder, spec: str, sha256: str) -> None:
        """Take the text tower of another SPEC, with the digest of its weights; the two towers share no space."""
        self.text, self.borrowed = text, {"text_spec": spec, "text_sha256": sha256}

    def __getattr__(self, name: str) -> Any:
        """Refuse what this kind of encoder does not have."""
        if name.startswith("_"):
            raise AttributeError(name)
        raise UsageError(
            f"Encoder {self.spec!r} has no {name!r}; the method expects a vision transformer. Choose e.g. "
            "timm:vit_large_patch14_dinov2.lvd142m."
        )

    def stages(self, n: int) -> tuple[int, ...]:
        """Return n layers at equal depth, the last block included: 24 blocks, n = 4 -> (6, 12, 18, 24)."""
        if n < 1 or self.depth % n:
            raise UsageError(
                f"Encoder {self.spec!r} has {self.depth} blocks, which do not divide into {n} equal stages. "
                "Choose another number of stages or another encoder."
            )
        return tuple(range(self.depth // n, self.depth + 1, self.depth // n))

    def autocast(self) -> torch.autocast:
        """Return the context in which the tower computes; code that runs `blocks` itself enters it too."""
        kind = torch.device(self.device).type
        return torch.autocast(kind, PRECISIONS[self.precision], enabled=self.precision != "fp32")


def check_size(spec: str, size: int, patch: int) -> None:
    """Raise a UsageError unless an image side of `size` pixels is a positive multiple of the patch side."""
    if size < patch or size % patch:
        below = size // patch * patch
        near = dict.fromkeys(str(max(side, patch)) for side in (below, below + patch))
        raise UsageError(
            f"Encoder {spec!r} has patches of {patch} pixels, which do not tile an image of {size}. "
            f"Set the size to {' or '.join(near)}."
        )
