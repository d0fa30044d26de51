"""Whether methods can have the encoders and weight files that are given: asked before any weights are read.

Nothing here reads weights or needs a network.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from zsadbench import encoders
from zsadbench.encoders.base import Options
from zsadbench.errors import UsageError


class Reader(Protocol):
    """A method's class, as far as it matters here (`zsadbench.methods.Method`)."""

    def reads_text(self, config: Any) -> bool:
        """Tell whether the method reads its encoder's text tower at some options."""


def check_weights(weights: Mapping[str, Path], needed: Collection[str]) -> None:
    """Raise UsageError for a local file that is not there, or is of a SPEC that is not needed."""
    for spec, path in weights.items():
        if spec in needed and not path.is_file():
            raise UsageError(f"--weights {spec}={path}: there is no such file. Check the path.")
        shared = spec in encoders.inherited() or path.stem == encoders.file_stem(spec)  # what all commands may need
        if spec not in needed and not shared:
            told = ", ".join(sorted(needed)) or "none"
            raise UsageError(f"--weights {spec}: no method here has that encoder; encoders in use: {told}.")


def check_methods(chosen: Iterable[tuple[str, Reader, Any]], weights: Mapping[str, Path]) -> None:
    """Raise UsageError or UnknownName where an encoder cannot be, or lacks the text tower that a method reads.

    chosen: full name, class and options of each method; weights: local files by SPEC.
    """
    textless: dict[str, list[str]] = {}  # SPEC -> methods
    for name, method, config in chosen:
        check_options(config, weights)
        specs = encoders.specs(config)
        if specs and method.reads_text(config) and not any(map(encoders.has_text, specs)):
            textless.setdefault(specs[0], []).append(name)
    for spec, names in textless.items():
        raise UsageError(
            f"Encoder {spec!r} has no text tower, but {', '.join(names)} {'read' if len(names) > 1 else 'reads'} text. "
            "Give a CLIP model, e.g. --encoder open_clip:ViT-L-14-336/openai, or choose other methods."
        )


def check_options(config: object, weights: Mapping[str, Path]) -> None:
    """Raise UsageError or UnknownName where a method's options ask for an encoder that there cannot be.

    That is a wrong name, tag, kind of model, size or activation: what `encoders.load_for` finds before it reads
    weights.
    """
    if not isinstance(config, encoders.EncoderFields) or not config.encoder:
        return
    _check(config.encoder, Options(config.size, config.activation, config.pos_embed), weights)
    for spec in encoders.specs(config)[1:]:
        if not encoders.has_text(spec):
            raise UsageError(
                f"The text encoder {spec!r} has no text tower. Name a CLIP model, e.g. open_clip:ViT-L-14-336/openai."
            )
        _check(spec, Options(), weights)


def _check(spec: str, options: Options, weights: Mapping[str, Path]) -> None:
    library, name = encoders.parse(spec, weights)
    if library == "open_clip":
        from zsadbench.encoders import open_clip

        model, tag = name.split("/")
        open_clip.check(model, tag, spec=spec, options=options, weights=weights)
    elif library == "timm":
        from zsadbench.encoders import timm

        timm.check(name, spec=spec, options=options)
    else:
        from zsadbench.encoders import demo, tiny

        (tiny if spec == "tiny" else demo).check(options)
