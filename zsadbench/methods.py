"""Methods by name, and all that a plugin of one imports. The files in `methods/` hold them.

To add one, write one file in `methods/` (docs/guides/add-a-method.md): a frozen dataclass of options, a class with
`card` and `presets`, decorated with `@register`. What a method is stands in `zsadbench/method_base.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from zsadbench.errors import PluginError, UnknownName
from zsadbench.method_base import Batch as Batch
from zsadbench.method_base import EncoderConfig as EncoderConfig
from zsadbench.method_base import Final as Final
from zsadbench.method_base import Method as Method
from zsadbench.method_base import MethodCard as MethodCard
from zsadbench.method_base import Prediction as Prediction
from zsadbench.method_base import Scope as Scope
from zsadbench.method_base import TrainableMethod as TrainableMethod
from zsadbench.method_base import TrainingBatch as TrainingBatch
from zsadbench.recipes import Augmentation as Augmentation  # recipes.py says how a TrainableMethod is trained
from zsadbench.recipes import Cosine as Cosine
from zsadbench.recipes import MultiStep as MultiStep
from zsadbench.recipes import Stage as Stage
from zsadbench.recipes import TrainRecipe as TrainRecipe
from zsadbench.support import option_names, options, plugins, spelling, traces, variants
from zsadbench.support.preset_names import trained_presets

if TYPE_CHECKING:
    from zsadbench.encoders.base import Encoder

__path__ = plugins.folders(__file__)  # makes methods/*.py importable as zsadbench.methods.<stem> (docs/plugins.md)

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


def registered_name(name: str) -> str:
    """Return a method's name, with preset and options in it or without, as it is registered; imports no plugin.

    "WinCLIP" is winclip, "april-gan.VisA" april_gan.visa. Raises UnknownName, or UsageError where it may be several.
    """
    base, own = variants.split(name)
    stem, _, preset = base.partition(".")
    stem = _stem(stem)
    if preset:
        try:
            presets = plugins.declared(__name__, stem, MethodCard)[1]
        except PluginError:  # told when it is imported
            presets = ()
        preset = _preset(stem, preset, presets) if presets else preset
    check_options(stem, own)
    return variants.join(f"{stem}.{preset}" if preset else stem, own)


def check_options(name: str, given: Iterable[str]) -> None:
    """Raise UnknownName for an option that no preset of a registered method has, as far as its source tells."""
    stem = variants.stem_of(name)
    known = option_names.declared(plugins.source_file(__name__, stem))
    for option in given:
        if known is not None and option not in known:
            raise UnknownName(f"option of {stem}", option, known)


def _stem(text: str) -> str:
    return spelling.match("method", text, plugins.names(__name__), _by_title)


def _by_title() -> dict[str, str]:
    return {listing.card.title: listing.name for listing in available() if listing.card}


def _preset(stem: str, text: str, presets: Iterable[str]) -> str:
    """Return the preset that is meant, or the family: a name that leaves out the training set at its end."""
    words = [preset.split("_") for preset in presets]
    families = {"_".join(some[:count]) for some in words for count in range(1, len(some))}
    return spelling.match(f"preset of {stem}", text, presets, lambda: {family: family for family in families})


def lookup(name: str) -> tuple[type[Method], str, Any]:
    """Resolve "method" or "method.preset" to (class, full name, options).

    A preset's name may leave out the training set: "clip_ad.sdp_plus" is the first trained one of that family. A
    variant, "fiseclip[lambda_=1.05]", has its options and the one full name that equal ones have: options in the order
    of their class, values as they are parsed. Raises UnknownName, PluginError or UsageError.
    """
    base, own = variants.split(name)
    stem, _, preset = base.partition(".")
    stem = _stem(stem)
    method = plugins.registered(__name__, stem, Method)  # type: ignore[type-abstract]  # plugins are concrete
    default = next(iter(method.presets))
    preset = _preset(stem, preset, method.presets) if preset else ""
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
    """Make an instance under its full name. Raises PluginError for one that lacks what every run reads of a method."""
    from zsadbench.data.images import Preprocess  # here, because it imports numpy and PIL

    instance = method(config, encoder)
    instance.name = name
    needed = {"config": object, "encoder": object, "preprocess": Preprocess, "scope": str, "image_scope": str}
    for field, kind in needed.items():
        if not hasattr(instance, field) or not isinstance(getattr(instance, field), kind):
            told = f"{field} {getattr(instance, field)!r}" if hasattr(instance, field) else f"no {field}"
            raise PluginError(
                f"method {name} has {told} after __init__ ({traces.of(method.__init__)}); expected what "
                "Method.__init__(config, encoder) and its class set. Call super().__init__(config, encoder) first, and "
                "set preprocess to a zsadbench.Preprocess."
            )
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
