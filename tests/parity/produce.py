"""Compute the outputs of a parity fixture with the project's own code: produce.py FIXTURE.zip OUT.safetensors.

Each file in `producers/` is named after a fixture's method and defines `produce(fixture) -> outputs by name`. A fixture
holds a tiny random model, inputs, options and the outputs of the reference implementation.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save_file
from torch import Tensor

from zsadbench import methods
from zsadbench.components.postprocess import finish
from zsadbench.datasets import Category
from zsadbench.encoders import open_clip
from zsadbench.encoders.base import Encoder
from zsadbench.methods import Method
from zsadbench.running import loading

PRODUCERS = Path(__file__).parent / "producers"
CATEGORY = Category("metal_nut", "metal nut", "fixture")  # text features are given, so its name does not matter


@dataclass(frozen=True)
class Fixture:
    """The content of one zip."""

    spec: dict[str, Any]  # fixture.json
    backbone: dict[str, Tensor]
    trained: dict[str, Tensor]  # under the official checkpoint's key names
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]

    @property
    def options(self) -> dict[str, Any]:
        """What the reference implementation was run with."""
        return self.spec["options"]

    def encoder(self) -> Encoder:
        """Build the fixture's model at its input size."""
        return open_clip.from_config(
            self.spec["backbone"],
            self.backbone,
            spec="fixture",
            size=self.options["image_size"],
            activation=self.options.get("activation"),
            pos_embed=pos_embed_rule(self.options.get("pos_embed_resize")),
        )

    def method(self, name: str, encoder: Encoder, **changes: Any) -> Method:
        """Make a method with changed options and the fixture's text features, if it has any."""
        method, full, config = methods.configure(name, changes=changes)
        given = {"text": lambda category: self.inputs["text"]} if "text" in self.inputs else {}
        instance = method(config, encoder, **given)
        instance.name = full
        return instance

    def batch(self, name: str = "images") -> loading.ImageBatch:
        """Make a batch of some input images [B, 3, S, S]."""
        return loading.from_tensor(self.inputs[name], CATEGORY)

    def full_size(self, maps: Tensor, method: Method) -> Tensor:
        """Finish maps [B, h, w] at the input size, as a run does: [B, S, S]."""
        return finish(maps, method, self.options["image_size"])

    def expect(self, **values: Any) -> None:
        """Refuse a fixture whose option is not the only value that a method implements."""
        for name, value in values.items():
            if self.options.get(name, value) != value:
                raise NotImplementedError(f"option {name} is {self.options[name]!r}; only {value!r} is implemented")


def read(path: Path) -> Fixture:
    """Read a fixture zip."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        tensors = {
            name: load(archive.read(f"{name}.safetensors")) if f"{name}.safetensors" in names else {}
            for name in ("backbone", "method", "inputs", "outputs")
        }
        spec = json.loads(archive.read("fixture.json"))
    return Fixture(spec, tensors["backbone"], tensors["method"], tensors["inputs"], tensors["outputs"])


def pos_embed_rule(description: str | None) -> str:
    """Turn "bicubic, antialias=True, align_corners=False" into the encoder's option; None: native size, no resize."""
    if description is None:
        return "bicubic_antialias"
    kernel, *flags = (part.strip() for part in description.split(","))
    if "align_corners=True" in flags:
        raise NotImplementedError(f"position embeddings are resized with align_corners=False, got {description!r}")
    antialias = "antialias" in flags or "antialias=True" in flags
    return {("bicubic", True): "bicubic_antialias", ("bicubic", False): "bicubic", ("bilinear", False): "bilinear"}[
        kernel, antialias
    ]


def producer(method: str) -> Callable[[Fixture], Mapping[str, Tensor]] | None:
    """Return the `produce` of producers/METHOD.py, or None if there is none yet."""
    path = PRODUCERS / f"{method}.py"
    if not path.exists():
        return None
    spec = importlib.util.spec_from_file_location(f"producer_{method}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.produce


def main(arguments: list[str]) -> int:
    """Run the producer of one fixture and write its outputs; returns the exit status."""
    if len(arguments) != 2:
        sys.stderr.write("usage: produce.py FIXTURE.zip OUT.safetensors\n")
        return 2
    fixture = read(Path(arguments[0]))
    produce = producer(fixture.spec["method"])
    if produce is None:
        sys.stderr.write(f"no producer yet for {fixture.spec['method']}\n")
        return 1
    with torch.inference_mode():
        outputs = {name: tensor.contiguous().clone() for name, tensor in produce(fixture).items()}
    save_file(outputs, arguments[1])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
