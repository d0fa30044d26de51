"""Encoders: one view over frozen vision transformers (and ResNets) of open_clip and timm, by SPEC.

A SPEC is "open_clip:NAME/TAG", "timm:NAME", "demo" or "tiny". torch is imported when an encoder is loaded, not before.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

from zsadbench.errors import UnknownName, UsageError, WeightsError
from zsadbench.support import files

if TYPE_CHECKING:
    from zsadbench.encoders.base import Encoder
    from zsadbench.encoders.hub import Place
    from zsadbench.encoders.text import TextEncoder

Weights = Mapping[str, str | Path]  # SPEC -> local weight file
SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")
RANDOM = "random"  # stands for the SHA-256 of random weights, so that every record tells


class EncoderListing(NamedTuple):
    """One line of `zsadbench list encoders`."""

    name: str
    description: str


@runtime_checkable
class EncoderFields(Protocol):
    """The fields of a method's options that name its encoder (`zsadbench.methods.EncoderConfig`)."""

    encoder: str
    size: int | None
    activation: str | None
    pos_embed: str


def available() -> list[EncoderListing]:
    """Return the specs that ship with zsadbench, then the syntax of the others."""
    return [
        EncoderListing("demo", "small CLIP trained by the project on procedural images; for the tour"),
        EncoderListing("tiny", "random CLIP without any file; for tests"),
        EncoderListing("open_clip:NAME/TAG", "open_clip vision transformer, e.g. open_clip:ViT-L-14-336/openai"),
        EncoderListing("timm:NAME", "timm vision transformer or ResNet, e.g. timm:vit_large_patch14_dinov2.lvd142m"),
    ]


def inherited() -> dict[str, Path]:
    """Return the local weight files by SPEC that the variable ZSADBENCH_WEIGHTS names: SPEC=PATH, separated by ";".

    Raises UsageError for an entry that is no such pair.
    """
    found = {}
    for item in filter(None, map(str.strip, os.environ.get("ZSADBENCH_WEIGHTS", "").split(";"))):
        spec, _, path = item.partition("=")
        if not (spec and path):
            raise UsageError(f'The variable ZSADBENCH_WEIGHTS holds {item!r}; expected SPEC=PATH pairs between ";".')
        found[spec] = Path(path).expanduser()
    return found


def file_stem(spec: str) -> str:
    """Return what the weight file of a SPEC is called in a folder of them, without its suffix."""
    return spec.replace(":", "--").replace("/", "--")


def in_folder(folder: str | Path) -> dict[str, Path]:
    """Return the weight files of a folder by SPEC: those called as `zsadbench weights list` prints.

    Raises UsageError for a folder without any.
    """
    found = {}
    for path in sorted(Path(folder).expanduser().glob("*--*.*")):
        library, _, name = path.stem.partition("--")
        if library in ("open_clip", "timm") and path.suffix in SUFFIXES:
            found[f"{library}:{name.replace('--', '/')}"] = path
    if not found:
        raise UsageError(
            f"--weights {folder}: no weights are in it; expected files called as `zsadbench weights list` prints."
        )
    return found


def specs(config: object) -> tuple[str, ...]:
    """Return the SPECs that a method's options name: of its encoder, and of another one whose text tower it borrows."""
    named = (getattr(config, field, "") for field in ("encoder", "text_encoder"))
    return tuple(spec for spec in named if spec)


def has_text(spec: str) -> bool:
    """Tell whether the model of a SPEC has a text tower; a weight file may still lack it."""
    return not spec.startswith("timm:")


def load(
    spec: str,
    *,
    size: int | None = None,
    activation: str | None = None,
    pos_embed: str = "bicubic_antialias",
    precision: str = "fp32",
    device: str = "cpu",
    weights: Weights | None = None,
    random_weights: bool = False,
) -> Encoder:
    """Return the encoder of a SPEC.

    size: side of the input in pixels, a multiple of the patch side; None for the model's own. activation: "gelu" or
    "quickgelu"; None for what the weights were trained with. pos_embed: "bicubic_antialias", "bicubic" or "bilinear",
    the rule that resizes the position embedding from its native grid. precision: "fp32", "bf16" or "fp16" autocast
    over float32 weights. weights: local files by SPEC; a SPEC without one is downloaded by its library, or with
    `random_weights` gets random ones (sha256 "random"), which is enough to measure what it costs.
    Raises WeightsError where weights are missing or do not fit, UsageError for a wrong name or size.
    """
    library, name = parse(spec, weights)
    from zsadbench.encoders.base import Options  # here, because it imports torch

    options = Options(size, activation, pos_embed, precision, device)
    if random_weights and _has_no_file(library, spec, weights):
        from zsadbench.encoders import random

        return random.load(library, name, spec=spec, options=options)
    if library == "open_clip":
        from zsadbench.encoders import open_clip

        model, tag = name.split("/")
        return open_clip.load(model, tag, spec=spec, options=options, weights=weights)
    if library == "timm":
        from zsadbench.encoders import timm

        return timm.load(name, spec=spec, options=options, weights=weights)
    from zsadbench.encoders import demo, tiny

    return demo.load(options) if spec == "demo" else tiny.load(options)


def load_text(
    spec: str,
    *,
    precision: str = "fp32",
    device: str = "cpu",
    weights: Weights | None = None,
    random_weights: bool = False,
) -> TextEncoder:
    """Return the text tower of a SPEC alone; arguments and errors are those of `load`."""
    library, name = parse(spec, weights)
    if library == "open_clip" and random_weights and _has_no_file(library, spec, weights):
        from zsadbench.encoders import random

        return random.load_text(name, spec=spec, precision=precision, device=device)
    if library == "open_clip":
        from zsadbench.encoders import open_clip

        model, tag = name.split("/")
        return open_clip.load_text(model, tag, spec=spec, precision=precision, device=device, weights=weights)
    text = None if library == "timm" else load(spec, precision=precision, device=device).text
    if text is None:
        raise WeightsError(
            f"The text encoder {spec!r} has no text tower. Name a CLIP model, e.g. open_clip:ViT-L-14-336/openai."
        )
    return text


def load_for(
    config: object,
    *,
    device: str = "cpu",
    precision: str = "fp32",
    weights: Weights | None = None,
    random_weights: bool = False,
) -> Encoder | None:
    """Return the encoder that a method's options (`zsadbench.methods.EncoderConfig`) name, None if they name none.

    Options may have a field `text_encoder` with a second SPEC: the encoder then borrows that one's text tower.
    """
    if not isinstance(config, EncoderFields) or not config.encoder:
        return None
    encoder = load(
        config.encoder,
        size=config.size,
        activation=config.activation,
        pos_embed=config.pos_embed,
        precision=precision,
        device=device,
        weights=weights,
        random_weights=random_weights,
    )
    spec = getattr(config, "text_encoder", "")
    if spec:
        text = load_text(spec, precision=precision, device=device, weights=weights, random_weights=random_weights)
        encoder.borrow_text(text, spec, identify(spec, weights, random_weights))
    return encoder


def identify(
    spec: str, weights: Weights | None = None, random_weights: bool = False, *, may_download: bool = True
) -> str:
    """Return the SHA-256 of the weights that `load` would use, as hexadecimal digits; builds no model.

    Raises WeightsError, MissingWeights where they must not be downloaded and are not here.
    """
    library, name = parse(spec, weights)
    if random_weights and _has_no_file(library, spec, weights):
        return RANDOM
    if library == "open_clip":
        from zsadbench.encoders import open_clip

        model, tag = name.split("/")
        return files.sha256(open_clip.resolve(model, tag, spec=spec, weights=weights, may_download=may_download))
    if library == "timm":
        from zsadbench.encoders import timm

        return files.sha256(timm.resolve(name, spec=spec, weights=weights, may_download=may_download))
    from zsadbench.encoders import demo, tiny

    return demo.sha256() if spec == "demo" else tiny.sha256()


def weight_place(spec: str) -> Place | None:
    """Return where the weights of a SPEC come from, None for those that ship; downloads nothing."""
    library, name = parse(spec, None)
    if library == "open_clip":
        from zsadbench.encoders import open_clip

        return open_clip.place(*name.split("/"))
    if library == "timm":
        from zsadbench.encoders import timm

        return timm.place(name)
    return None


def weight_source(spec: str) -> str:
    """Say in words which file has the weights of a SPEC, "ships with zsadbench" if none; downloads nothing."""
    place = weight_place(spec)
    return place.words if place is not None else "ships with zsadbench"


def _has_no_file(library: str, spec: str, weights: Weights | None) -> bool:
    """Tell whether the weights of a SPEC would have to be downloaded: none ship, and none are given."""
    return bool(library) and spec not in (weights or ())


def parse(spec: str, weights: Weights | None) -> tuple[str, str]:
    """Return library and name of a SPEC ("" and the name for those that ship); raise UnknownName for anything else."""
    if spec in ("demo", "tiny"):
        if weights and spec in weights:
            raise UsageError(f"The encoder {spec!r} ships with zsadbench and takes no weight file. Drop its --weights.")
        return "", spec
    library, _, name = spec.partition(":")
    parts = {"open_clip": 2, "timm": 1}.get(library, 0)
    if len([part for part in name.split("/") if part]) != parts or not parts:
        raise UnknownName("encoder", spec, [listing.name for listing in available()])
    return library, name
