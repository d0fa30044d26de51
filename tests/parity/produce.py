"""Compute the outputs of a parity fixture with the project's own code: produce.py FIXTURE.zip OUT.safetensors.

Each file in `producers/` is named after a fixture's method and defines `produce(fixture) -> outputs by name`. A fixture
holds a tiny random model, inputs, options and the outputs of the reference implementation.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors.torch import load, save_file
from torch import Tensor

from zsadbench import methods
from zsadbench.components import prompts
from zsadbench.components.postprocess import finish
from zsadbench.datasets import Category
from zsadbench.encoders import open_clip, timm
from zsadbench.encoders.base import Encoder
from zsadbench.methods import Method
from zsadbench.running import loading

NOT_GIVEN = torch.tensor(1e9)  # stands for a weight that a fixture leaves out, so that using it shows
PRODUCERS = Path(__file__).parent / "producers"
CATEGORY = Category("metal_nut", "metal nut", "fixture")  # text features are given, so its name does not matter
# What fixture.json says about itself; everything else in it is given for a producer to use.
ABOUT = {
    "allow_nan", "backbone", "fixture", "float64", "format", "inputs", "max_abs_cross_check", "method", "notes",
    "options", "outputs", "parameters", "project", "reference", "variant",
}  # fmt: skip


class Given(Mapping[str, Any]):
    """Named values that remember which of them were read, so that none is ignored."""

    def __init__(self, values: Mapping[str, Any], read: set[str] | None = None) -> None:
        self._values = values
        self._read: set[str] = set() if read is None else read

    def __getitem__(self, name: str) -> Any:
        self._read.add(name)
        return self._values[name]

    def __contains__(self, name: object) -> bool:  # asking is not reading
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def changed(self, switches: Mapping[str, Any]) -> Given:
        """Return these values with those that a variant switches. Raises NotImplementedError for an unknown one."""
        unknown = switches.keys() - self._values.keys()
        if unknown:
            raise NotImplementedError(f"a variant switches {sorted(unknown)}; the options are {sorted(self._values)}")
        return Given({**self._values, **switches}, self._read)

    def unread(self) -> list[str]:
        """Return the names that nobody read, sorted."""
        return sorted(self._values.keys() - self._read)


@dataclass(frozen=True)
class Fixture:
    """The content of one zip."""

    spec: Given  # fixture.json
    options: Given  # what the reference implementation was run with
    backbone: dict[str, Tensor]
    trained: dict[str, Tensor]  # under the official checkpoint's key names
    inputs: Given  # tensors by name
    outputs: dict[str, Tensor]

    def encoder(self) -> Encoder:
        """Build the fixture's model at its input size: one CLIP, or an image tower beside the text tower of a CLIP."""
        backbone = self.spec["backbone"]
        image = backbone.get("image_tower")
        encoder = self._two_towers(backbone, image) if image else self._clip(backbone, self.backbone)
        self.expect(grid=encoder.grid, patches=encoder.grid**2)
        return encoder

    def _clip(self, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Encoder:
        has_text = any(not key.startswith("visual.") for key in tensors)
        return open_clip.from_config(
            config,
            {"logit_scale": NOT_GIVEN, **tensors} if has_text else tensors,
            spec="fixture",
            **self._encoder_options(),
        )

    def _two_towers(self, backbone: Mapping[str, Any], image: Mapping[str, Any]) -> Encoder:
        prefix = image["key_prefix"]
        own = {key.removeprefix(prefix): part for key, part in self.backbone.items() if key.startswith(prefix)}
        text = {key: part for key, part in self.backbone.items() if not key.startswith(prefix)}
        text.pop("logit_scale", None)  # it belongs to neither tower
        if image["library"] == "open_clip":
            config = image_config(backbone, image)
            visual = {f"visual.{key.removeprefix('visual.')}": part for key, part in own.items()}
            proj = NOT_GIVEN.expand(config["vision_cfg"]["width"], config["embed_dim"])
            encoder = self._clip(config, {"visual.proj": proj, **visual})
        elif image["library"] == "timm":
            encoder = timm.from_config(image, own, spec="fixture", **self._encoder_options())
        else:
            raise NotImplementedError(f"image tower of {image['library']!r}; only open_clip and timm are implemented")
        encoder.borrow_text(open_clip.text_from_config(backbone, text), "fixture", "")
        return encoder

    def _encoder_options(self) -> dict[str, Any]:
        return {
            "size": self.options["image_size"],
            "activation": self.options.get("activation"),
            "pos_embed": pos_embed_rule(self.options.get("pos_embed_resize")),
        }

    def method(self, name: str, encoder: Encoder, **changes: Any) -> Method:
        """Make a method with changed options and the fixture's text features, if it has any."""
        method, full, config = methods.configure(name, changes=changes)
        given = {"text": lambda category: self.inputs["text"]} if "text" in self.inputs else {}
        if "heads" in self.options and "heads" not in changes:
            self.expect(heads=encoder.heads)  # those of the tower
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

    def describes(self, *names: str) -> None:
        """Take options that say in words what the only implementation does."""
        for name in names:
            self.options.get(name)

    def expect_sentences(self, given: Mapping[str, Any], name: str) -> None:
        """Refuse sentences ("normal", "abnormal", "templates") that are not those of a prompt list of ours."""
        ours = prompts.get(name)
        if tuple(tuple(given[part]) for part in ("normal", "abnormal", "templates")) != (
            ours.normal,
            ours.abnormal,
            ours.templates,
        ):
            raise NotImplementedError(f"the fixture's sentences are not those of the prompt list {name}")

    def refuse_unread(self) -> None:
        """Raise NotImplementedError for whatever the fixture gives and its producer did not read."""
        unread = {"options": self.options, "inputs": self.inputs, "entries": self.spec}
        found = [f"{kind} {', '.join(given.unread())}" for kind, given in unread.items() if given.unread()]
        if found:
            raise NotImplementedError(f"the producer of {self.spec['method']} ignores {'; '.join(found)}")


def read(path: Path) -> Fixture:
    """Read a fixture zip."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        tensors = {
            name: load(archive.read(f"{name}.safetensors")) if f"{name}.safetensors" in names else {}
            for name in ("backbone", "method", "inputs", "outputs")
        }
        spec = json.loads(archive.read("fixture.json"))
    given = (Given(spec, set(ABOUT)), Given(spec["options"]))
    return Fixture(*given, tensors["backbone"], tensors["method"], Given(tensors["inputs"]), tensors["outputs"])


def image_config(backbone: Mapping[str, Any], image: Mapping[str, Any]) -> dict[str, Any]:
    """Return the open_clip config of an image tower that a fixture describes apart from the text tower."""
    given = {**image.get("kwargs", {}), **image}
    vision = dict(backbone.get("vision_cfg") or given.get("vision_cfg") or image["kwargs"])
    width = vision.pop("output_dim", given.get("embed_dim", backbone["embed_dim"]))
    if "heads" in vision:
        vision["head_width"] = vision["width"] // vision.pop("heads")
    return {**backbone, "embed_dim": width, "vision_cfg": vision}


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
    """Return the `produce` of producers/METHOD.py, or None if there is none yet; it refuses what it did not read."""
    module = module_of(method)
    if module is None:
        return None

    def compute(fixture: Fixture) -> Mapping[str, Tensor]:
        outputs: Mapping[str, Tensor] = module.produce(fixture)
        fixture.refuse_unread()
        return outputs

    return compute


def module_of(method: str) -> ModuleType | None:
    """Return producers/METHOD.py as a module, or None if there is none yet."""
    path = PRODUCERS / f"{method}.py"
    if not path.exists():
        return None
    spec = importlib.util.spec_from_file_location(f"producer_{method}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(arguments: list[str]) -> int:
    """Run the producer of one fixture and write its outputs; returns the exit status."""
    if len(arguments) != 2:
        sys.stderr.write("usage: produce.py FIXTURE.zip OUT.safetensors\n")
        return 2
    fixture = read(Path(arguments[0]))
    compute = producer(fixture.spec["method"])
    if compute is None:
        sys.stderr.write(f"no producer yet for {fixture.spec['method']}\n")
        return 1
    with torch.inference_mode():
        outputs = {name: tensor.contiguous().clone() for name, tensor in compute(fixture).items()}
    save_file(outputs, arguments[1])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
