"""What a method is: the classes that plugins derive from, what they are given, and what they return.

They are imported from `zsadbench.methods`, or from `zsadbench` itself. A method sees preprocessed images, their
category and encoder features; never labels, masks or dataset names beyond the category's, so it cannot cheat.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, TypeVar

from zsadbench.encoders.features import FeatureRequest, Features
from zsadbench.errors import NeedsCheckpoint, PluginError
from zsadbench.recipes import TrainRecipe

if TYPE_CHECKING:
    from torch import Generator, Tensor
    from torch.nn import Module

    from zsadbench.data.images import Preprocess
    from zsadbench.datasets import Category
    from zsadbench.encoders.base import Encoder

Scope = Literal["image", "batch", "category"]
AnyConfig = TypeVar("AnyConfig", bound="EncoderConfig")


@dataclass(frozen=True)
class MethodCard:
    """Facts about a method that a table or listing shows. Written as literals: listing reads it without importing.

    Example:

        >>> import zsadbench as z
        >>> z.MethodCard(title="Brightness", reference="you, 2026", scope="image").shots
        0
    """

    title: str  # as printed in tables
    reference: str  # paper: authors, venue, identifier
    scope: Scope  # what a map, and all that `predict` returns, depends on: its image alone, its batch, its category
    code: str = ""  # repository@commit that was read, or "" when there is none
    licence: str = ""  # of the reference code
    notes: str = ""  # what is inferred, approximated or not reproduced
    shots: int = 0  # normal reference images per category that the default preset takes
    image_scope: Scope | None = None  # what an image score depends on; None: what a map does


@dataclass(frozen=True)
class EncoderConfig:
    """The encoder fields that the options of every method with an encoder start with.

    Example:

        >>> import zsadbench as z
        >>> z.EncoderConfig(encoder="open_clip:ViT-L-14-336/openai", size=518).on("demo").size is None
        True
    """

    encoder: str = ""  # encoder SPEC, e.g. "open_clip:ViT-L-14-336/openai"
    size: int | None = None  # input side in pixels; None: the encoder's own
    activation: Literal["gelu", "quickgelu"] | None = None  # None: what the encoder's weights were trained with
    pos_embed: Literal["bicubic_antialias", "bicubic", "bilinear"] = "bicubic_antialias"  # resize rule of the grid

    def on(self: AnyConfig, spec: str) -> AnyConfig:
        """Return the options for another encoder, which brings its own input size and activation.

        Both are facts of the encoder that a method was published with. Options with a second encoder say here what
        becomes of it.
        """
        return replace(self, encoder=spec, size=None, activation=None)


class Prediction(NamedTuple):
    """The result for one batch; unpacks as `scores, maps`.

    Example:

        >>> import torch, zsadbench as z
        >>> scores, maps = z.Prediction(scores=torch.zeros(2), maps=torch.zeros(2, 14, 14))
    """

    scores: Tensor  # [B] float32, higher is more anomalous; [B] or [B, k] of anything where there is a `finalise`
    maps: Tensor  # [B, h, w] float32, higher is more anomalous, any resolution, unnormalised


class Final(NamedTuple):
    """What `finalise` makes of the scores of some predictions.

    Example:

        >>> import torch, zsadbench as z
        >>> z.Final(torch.zeros(2), start=1.0, span=2.0).scaled(torch.ones(2, 1, 1) * 3).flatten().tolist()
        [1.0, 1.0]
    """

    scores: Tensor  # [N] float32, higher is more anomalous
    start: Tensor | float = 0.0  # of the one increasing line that all maps are scaled with, which changes no metric;
    span: Tensor | float = 1.0  # above 0

    def scaled(self, maps: Tensor) -> Tensor:
        """Return maps [B, h, w] as (maps - start) / span."""
        return (maps - self.start) / self.span


class Batch(Protocol):
    """Images of one category, as a method sees them. `zsadbench.running.loading` makes them."""

    category: Category
    paths: tuple[Path, ...]

    @property
    def images(self) -> Tensor:
        """Preprocessed images [B, 3, H, W] float32 on the device; decoded when first used."""

    def features(self, encoder: Encoder, request: FeatureRequest) -> Features:
        """Return the encoder's results for these images; computed once for all methods that share them."""

    def split(self, size: int | None = None) -> Iterator[Batch]:
        """Walk a large batch in parts of `size` images (None: the run's batch size), in order."""

    def __len__(self) -> int:
        """Return B, the number of images."""


class Method(ABC):
    """One anomaly detection method with its options and encoder, ready to predict on the encoder's device.

    Subclasses set `card` and `presets` (preset name -> options, the first is the default) as class attributes, and in
    `__init__` whatever depends on the options. Instances hold no per-image state; caches per category are allowed.

    Example, a whole plugin once `@z.register` stands above it in a file of the method's name:

        >>> import zsadbench as z
        >>> class Brightness(z.Method):
        ...     card = z.MethodCard(title="Brightness", reference="you, 2026", scope="image")
        ...     presets = {"default": None}
        ...     preprocess = z.Preprocess(size=224)
        ...     def predict(self, batch):
        ...         maps = batch.images.mean(dim=1)  # [B, 224, 224]
        ...         return z.Prediction(scores=maps.amax(dim=(1, 2)), maps=maps)
        >>> Brightness(None, encoder=None).scope
        'image'
    """

    card: ClassVar[MethodCard]
    presets: ClassVar[Mapping[str, Any]]

    encoder: Encoder  # the one that the options name; methods that name none must not read it
    name: str = ""  # CLI name with preset, e.g. "april_gan.visa"; set by `create`
    preprocess: Preprocess
    request: FeatureRequest = FeatureRequest()  # what predict() will ask of the encoder, so that runs can share passes
    shots: int = 0  # normal reference images per category that `remember` wants: the option `shots`, if there is one
    batch_images: int | None = None  # scope "batch": images per batch
    align_corners: bool = False  # how maps are upsampled to the evaluation size (docs/protocol.md#upsampling)
    sigma: float = 0.0  # Gaussian smoothing of the upsampled map, in pixels of the evaluation map; 0 is none

    def __init__(self, config: Any, encoder: Encoder | None) -> None:
        """Keep the options (one of `presets`, possibly overridden) and the encoder (None if the options name none)."""
        self.config = config
        self.encoder = encoder  # type: ignore[assignment]  # None only where the options name no encoder
        if encoder is not None:
            self.preprocess = encoder.preprocess

    @classmethod
    def reads_text(cls, config: Any) -> bool:
        """Tell whether the method needs its encoder's text tower at some options; asked before weights are loaded."""
        return False

    @property
    def scope(self) -> Scope:
        """What a map, and all that `predict` returns, depends on; options may narrow what the card says."""
        return self.card.scope

    @property
    def image_scope(self) -> Scope:
        """What an image score depends on: a wider one than `scope` is what `finalise` is called for."""
        return self.card.image_scope or self.scope

    @abstractmethod
    def predict(self, batch: Batch) -> Prediction:
        """Score B images of one category: scores [B] and maps [B, h, w], float32, finite, on the encoder's device."""

    def finalise(self, scores: Tensor) -> Final:
        """Return the image scores [N] of N images whose predictions had these scores, [N] or [N, k] in their order.

        Where `image_scope` is "category" and `scope` is not, they are those of a whole category, otherwise those of one
        prediction. So a score may be scaled over the category although images are predicted one by one.
        """
        return Final(scores)

    def remember(self, references: Batch) -> None:
        """Take the normal reference images of the category that comes next (few-shot methods only)."""
        raise PluginError(
            f"method {self.name or type(self).__name__} asks for {self.shots} shots but defines no remember()."
        )


class TrainingBatch(Protocol):
    """Images that a training step sees; unlike a Batch it may mix categories."""

    categories: tuple[Category, ...]  # one an image
    paths: tuple[Path, ...]
    generator: Generator  # on the device, for whatever a loss draws: depends on the seed and the step alone

    @property
    def images(self) -> Tensor:
        """Preprocessed images [B, 3, S, S] float32 on the device."""

    def features(self, encoder: Encoder, request: FeatureRequest) -> Features:
        """Return the frozen encoder's results for these images, without gradients."""

    def __len__(self) -> int:
        """Return B, the number of images."""


class TrainableMethod(Method):
    """A method with trained weights beside its frozen encoder. A whole one: docs/guides/add-a-trained-method.md."""

    free_options: ClassVar[frozenset[str]] = (
        frozenset()
    )  # that training ignores (shots, sigma): a checkpoint's may differ

    trained: Module | None = None  # the trainable part; its state dict is the checkpoint. None until there are weights
    trained_on: frozenset[str] | None = None  # dataset names from the checkpoint; None: unknown

    @property
    def recipe(self) -> TrainRecipe:
        """The training recipe: the field `recipe` of the options."""
        recipe: TrainRecipe = self.config.recipe
        return recipe

    @property
    def device(self) -> str:
        """Where the trained part lies: with the encoder, on the CPU where there is none."""
        return self.encoder.device if self.encoder is not None else "cpu"

    @abstractmethod
    def new_module(self) -> Module:
        """Return the trainable part without meaningful values; it is called with torch's device set to "meta"."""

    @abstractmethod
    def draw(self, module: Any, generator: Generator) -> None:
        """Fill a new module on the CPU with fresh values, as at the start of a training."""

    @abstractmethod
    def loss(self, batch: TrainingBatch, labels: Tensor, masks: Tensor, stage: str = "") -> dict[str, Tensor]:
        """Return the terms whose sum is minimised, differentiable in `trained`.

        labels: [B] int64, 1 is anomalous; masks: [B, S, S] float32 of 0 and 1, at the input size.
        """

    def own_names(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return a checkpoint's tensors under the names of `trained`; override it where official files differ."""
        return tensors

    def initialise(self, seed: int) -> None:
        """Set `trained` to fresh weights that depend on the seed alone."""
        import torch

        with torch.device("meta"):  # neither time nor random numbers are spent on values that are replaced
            module = self.new_module()
        module = module.to_empty(device="cpu")
        with torch.no_grad():
            self.draw(module, torch.Generator().manual_seed(seed))
        self.trained = module.to(self.device)

    def load_checkpoint(self, tensors: Mapping[str, Tensor], origin: str) -> None:
        """Set `trained` from official or our own key names; raises WeightsError naming the keys that do not fit.

        What it was trained on is the option of that name: a dataset, or several joined by "+".
        """
        import torch

        from zsadbench.encoders import weights

        with torch.device("meta"):
            module = self.new_module()
        weights.load_into(module, {name: tensor.clone() for name, tensor in self.own_names(tensors).items()}, origin)
        self.trained = module.to(self.device)
        self.trained_on = frozenset(self.config.trained_on.split("+"))

    def ready(self) -> Any:
        """Return `trained`. Raises NeedsCheckpoint that says how to get weights."""
        if self.trained is None:
            raise NeedsCheckpoint(
                f"{self.name} needs trained weights; got none. Train them with `zsadbench train --method {self.name} "
                f"--dataset {self.config.trained_on} --out FOLDER`, or give some with --checkpoint {self.name}=PATH."
            )
        return self.trained
