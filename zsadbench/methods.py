"""What a method is: `predict(batch) -> scores, maps`. The files in `methods/` hold them.

A method sees preprocessed images, their category and encoder features; never labels, masks or dataset names beyond the
category's, so it cannot cheat. To add one, write one file in `methods/` (docs/guides/add-a-method.md): a frozen
dataclass of options, a class with `card` and `presets`, decorated with `@register`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, TypeVar

from zsadbench.encoders.features import FeatureRequest, Features
from zsadbench.errors import NeedsCheckpoint, PluginError, UnknownName
from zsadbench.recipes import Augmentation as Augmentation  # recipes.py says how a TrainableMethod is trained
from zsadbench.recipes import Cosine as Cosine
from zsadbench.recipes import MultiStep as MultiStep
from zsadbench.recipes import Stage as Stage
from zsadbench.recipes import TrainRecipe as TrainRecipe
from zsadbench.support import options, plugins, variants
from zsadbench.support.preset_names import trained_presets

if TYPE_CHECKING:
    from torch import Generator, Tensor
    from torch.nn import Module

    from zsadbench.data.images import Preprocess
    from zsadbench.datasets import Category
    from zsadbench.encoders.base import Encoder

__path__ = plugins.folders(__file__)  # makes methods/*.py importable as zsadbench.methods.<stem> (docs/plugins.md)

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
    scope: Scope  # what one prediction depends on: the image alone, its batch, or the whole test category
    code: str = ""  # repository@commit that was read, or "" when there is none
    licence: str = ""  # of the reference code
    notes: str = ""  # what is inferred, approximated or not reproduced
    shots: int = 0  # normal reference images per category that the default preset takes


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

    scores: Tensor  # [B] float32, higher is more anomalous
    maps: Tensor  # [B, h, w] float32, higher is more anomalous, any resolution, unnormalised


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
        """What one prediction depends on; options may narrow what the card says."""
        return self.card.scope

    @abstractmethod
    def predict(self, batch: Batch) -> Prediction:
        """Score B images of one category: scores [B] and maps [B, h, w], float32, finite, on the encoder's device."""

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


AnyMethod = TypeVar("AnyMethod", bound=type[Method])


def register(method: AnyMethod) -> AnyMethod:
    """Class decorator: declare the one method of this module; its CLI name is the module's last name.

    Raises PluginError for a second one in the module, and for a class without `card` or `presets`.
    """
    plugins.register(method, required=("card", "presets"))
    return method


@dataclass(frozen=True)
class MethodListing:
    """One line of `zsadbench list methods`; `problem` says why a plugin cannot be read."""

    name: str
    card: MethodCard | None
    presets: tuple[str, ...] = ()
    problem: str = ""


def available() -> list[MethodListing]:
    """List every method plugin from its source, importing none."""
    listings = []
    for name in plugins.names(__name__):
        try:
            cards, presets = plugins.declared(__name__, name, MethodCard)
            listings.append(MethodListing(name, cards[""], presets))
        except (PluginError, KeyError) as error:
            listings.append(MethodListing(name, None, problem=str(error)))
    return listings


def lookup(name: str) -> tuple[type[Method], str, Any]:
    """Resolve "method" or "method.preset" to (class, full name, options).

    A preset's name may leave out the training set: "clip_ad.sdp_plus" is the first trained one of that family. A
    variant, "fiseclip[lambda_=1.05]", has its options and the one full name that equal ones have: options in the order
    of their class, values as they are parsed. Raises UnknownName, PluginError or UsageError.
    """
    base, own = variants.split(name)
    stem, _, preset = base.partition(".")
    method = plugins.registered(__name__, stem, Method)  # type: ignore[type-abstract]  # plugins are concrete
    default = next(iter(method.presets))
    if preset and preset not in method.presets:
        family = trained_presets(method.presets, preset)
        if not family:
            raise UnknownName(f"preset of {stem}", preset, method.presets)
        preset = next(iter(family))
    full = stem if preset in ("", default) else f"{stem}.{preset}"
    config = _with(method.presets[preset or default], own, full)
    return method, variants.join(full, options.texts(config, own, full)), config


def _with(config: Any, own: Mapping[str, Any], name: str) -> Any:
    """Return options with those of a variant; another encoder brings what is its own, and the others come after it."""
    if "encoder" in own:
        config = _on(config, own["encoder"])
    return options.override(config, own, name)


def _on(config: Any, encoder: str | None) -> Any:
    if encoder is not None and isinstance(config, EncoderConfig) and config.encoder not in ("", encoder):
        return config.on(encoder)
    return config


def configure(
    name: str, encoder: str | None = None, changes: Mapping[str, Any] | None = None
) -> tuple[type[Method], str, Any]:
    """Resolve a name and apply `--encoder` and `--set`: returns (class, full name, options).

    Another encoder than the method's own changes what `EncoderConfig.on` says; `changes` still override it, and the
    options of a variant override both.
    """
    method, full, _ = lookup(name)
    base, own = variants.split(full)
    config = options.override(_on(lookup(base)[2], own.get("encoder", encoder)), changes or {}, base)
    config = options.override(config, own, base)
    if isinstance(config, EncoderConfig) and config.size is None:
        # At the encoder's own size no position is resized: the rule means nothing, and must not keep passes apart.
        config = replace(config, pos_embed=EncoderConfig.pos_embed)
    return method, full, config


def changed(name: str, config: Any) -> dict[str, Any]:
    """Return the options in which a method is not what its preset stands for: option -> the preset's value."""
    _, _, preset = configure(variants.base_of(name))
    options, own = asdict(config), asdict(preset)
    return {option: value for option, value in own.items() if options[option] != value}


def build(method: type[Method], name: str, config: Any, encoder: Encoder | None) -> Method:
    """Make an instance under its full name."""
    instance = method(config, encoder)
    instance.name = name
    return instance


def create(
    name: str,
    *,
    encoder: str | Encoder | None = None,
    device: str = "cpu",
    precision: str = "fp32",
    weights: Mapping[str, Path] | None = None,
    **changes: Any,
) -> Method:
    """Make a method by its CLI name, loading its encoder.

    `encoder` is another SPEC or a loaded Encoder; `weights` maps SPEC to a local file; `changes` override options.
    Raises UnknownName, OptionError, WeightsError, MissingDependency.
    """
    spec = encoder if isinstance(encoder, str) else None
    method, full, config = configure(name, spec, changes)
    if encoder is None or isinstance(encoder, str):
        from zsadbench import encoders

        loaded = encoders.load_for(config, device=device, precision=precision, weights=weights)
    else:
        loaded = encoder
    return build(method, full, config, loaded)
