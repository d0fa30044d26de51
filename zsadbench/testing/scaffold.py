"""Files to start a plugin from: each passes its check as it is, and says where to go on."""

from __future__ import annotations

import keyword
import random
from pathlib import Path
from string import Template
from typing import Literal

from PIL import Image

from zsadbench import datasets, methods
from zsadbench.errors import UnknownName, UsageError
from zsadbench.support import files, plugins, spelling

Kind = Literal["method", "dataset"]
SIDE, SPOT = 64, (20, 20, 36, 36)  # pixels of the sample images; their defect: left, top, right, bottom

METHOD = Template('''"""$title: say in a sentence what makes a pixel anomalous."""

from dataclasses import dataclass

from zsadbench.encoders.features import FeatureRequest
from zsadbench.methods import EncoderConfig, Method, MethodCard, Prediction, register


@dataclass(frozen=True)
class ${stem}Options(EncoderConfig):
    encoder: str = "open_clip:ViT-B-16-plus-240/laion400m_e31"
    quarter: int = 3  # of the encoder's blocks: the tokens after it are read, 1 to 4


@register
class ${stem}Detector(Method):
    card = MethodCard(title="$title", reference="you, $year", scope="image")
    presets = {"default": ${stem}Options(), "early": ${stem}Options(quarter=1)}

    def __init__(self, config, encoder):
        super().__init__(config, encoder)
        self.layer = encoder.stages(4)[config.quarter - 1]
        self.request = FeatureRequest(tokens={self.layer})  # all that predict asks for: methods share the passes
        self.sigma = 2.0  # maps are smoothed after upsampling, in pixels

    def predict(self, batch):
        """Score patches by how far they lie from the mean of their image: put your own idea here."""
        tokens = batch.features(self.encoder, self.request).tokens(self.layer)  # [B, L, D]; shared, never write to it
        maps = (tokens - tokens.mean(dim=1, keepdim=True)).norm(dim=2)  # [B, L]
        maps = maps.unflatten(1, (self.encoder.grid, self.encoder.grid))  # [B, g, g], higher is more anomalous
        return Prediction(scores=maps.amax(dim=(1, 2)), maps=maps)
''')

TRAINED = Template('''"""$title: say in a sentence what is trained, and what makes a pixel anomalous."""

from dataclasses import dataclass

import torch
from torch import nn

from zsadbench.components import losses
from zsadbench.components.postprocess import resize_maps
from zsadbench.encoders.features import FeatureRequest
from zsadbench.methods import EncoderConfig, MethodCard, Prediction, Stage, TrainableMethod, TrainRecipe, register


@dataclass(frozen=True)
class ${stem}Options(EncoderConfig):
    encoder: str = "open_clip:ViT-L-14-336/openai"
    sigma: float = 2.0  # of the smoothing, in pixels
    trained_on: str = "visa"  # the preset's training set
    recipe: TrainRecipe = TrainRecipe((Stage(epochs=5, lr=1e-3),), batch_size=8)


@register
class ${stem}Detector(TrainableMethod):
    card = MethodCard(title="$title", reference="you, $year", scope="image")
    presets = {
        "visa": ${stem}Options(),
        "mvtec": ${stem}Options(trained_on="mvtec"),
        "demo": ${stem}Options(
            encoder="demo", trained_on="demo.train", recipe=TrainRecipe((Stage(epochs=1, lr=3e-2),), batch_size=8)
        ),
    }
    free_options = frozenset({"sigma"})  # may change without another training

    def __init__(self, config, encoder):
        super().__init__(config, encoder)
        self.layer = encoder.stages(4)[2]
        self.request = FeatureRequest(tokens={self.layer})  # all that predict and loss ask for
        self.sigma = config.sigma

    def new_module(self):
        """Return what is trained; its first values are those of draw."""
        return nn.Linear(self.encoder.width, 1)

    def draw(self, module, generator):
        module.weight.normal_(std=0.02, generator=generator)
        module.bias.zero_()

    def probabilities(self, batch):
        """Return abnormal probabilities on the patch grid [B, g, g], differentiable: put your own idea here."""
        tokens = batch.features(self.encoder, self.request).tokens(self.layer)  # [B, L, D]; shared, never write to it
        return self.ready()(tokens)[..., 0].sigmoid().unflatten(1, (self.encoder.grid, self.encoder.grid))

    def loss(self, batch, labels, masks, stage=""):
        abnormal = resize_maps(self.probabilities(batch), self.encoder.size, align_corners=False)  # [B, S, S]
        both = torch.stack([1 - abnormal, abnormal], dim=1)
        return {"focal": losses.focal(both, masks), "dice": losses.dice(abnormal, masks)}

    def predict(self, batch):
        maps = self.probabilities(batch)
        return Prediction(scores=maps.amax(dim=(1, 2)), maps=maps)
''')

DATASET = Template('''"""$title, in MVTec AD's layout: CATEGORY/{train/good,test/DEFECT,ground_truth/DEFECT}."""

from zsadbench.data.adapters import TreeDataset
from zsadbench.datasets import DatasetCard, register


@register
class ${stem}Images(TreeDataset):
    """Another layout derives from zsadbench.datasets.Dataset and yields a Sample an image from scan()."""

    cards = {
        "default": DatasetCard(
            title="$title",
            domain="industrial",  # or medical, procedural, custom
            reference="you, $year",
            source="where others get it",
            licence="unknown",
            image_level=True,  # normal and anomalous test images exist
            pixel_level=True,  # anomalous ones have masks, NAME_mask.png
            mask_rule="gt127",  # masks of 0 and 255
            expected={"parts": (2, 2)},  # category -> test images, normal and anomalous
        ),
    }
''')

METHOD_TEST = Template('''"""$title keeps its contract; add what you know of its numbers."""

from pathlib import Path

from zsadbench.support import plugins
from zsadbench.testing import check_method

plugins.add_folder(Path(__file__).parents[1])


def test_contract():
    check_method("$name")
''')

DATASET_TEST = Template('''"""$title keeps its contract; add what you know of its images."""

from pathlib import Path

from zsadbench import datasets
from zsadbench.support import plugins
from zsadbench.testing import check_dataset

FOLDER = Path(__file__).parents[1]
plugins.add_folder(FOLDER)


def test_contract():
    check_dataset(datasets.create("$name", FOLDER / "data"))
''')


def write(kind: Kind, name: str, folder: Path, year: int, trained: bool = False) -> list[Path]:
    """Write a plugin and its test below a --plugins folder, and images for a dataset that has none; return all paths.

    Raises UsageError for a name that is taken or no identifier, and for a file that is there; then nothing is written.
    """
    _check(kind, name, folder)
    path, test = folder / f"{kind}s" / f"{name}.py", folder / "tests" / f"test_{name}.py"
    for one in (path, test):
        if one.exists():
            raise UsageError(f"{one} is there already and stays as it is; choose another name than {name}.")
    words = {
        "name": name,
        "title": name.replace("_", " ").strip().capitalize(),
        "stem": _class_name(name),
        "year": year,
    }
    source = DATASET if kind == "dataset" else TRAINED if trained else METHOD
    for one, text in ((path, source), (test, DATASET_TEST if kind == "dataset" else METHOD_TEST)):
        files.make_folder(one.parent)
        files.write_atomically(one, text.substitute(words))
    images = folder / "data" / name
    if kind == "dataset" and not images.exists():
        _draw(images / "parts")
        return [path, test, images]
    return [path, test]


def _check(kind: Kind, name: str, folder: Path) -> None:
    if not (name.isascii() and name.isidentifier()) or keyword.iskeyword(name) or name.startswith("_"):
        raise UsageError(f"{kind} name {name!r}: expected letters, digits and _, from a letter on, such as my_{kind}.")
    if any((folder / sub).is_dir() for sub in ("methods", "datasets")):
        plugins.add_folder(folder)
    known = [*plugins.names("zsadbench.methods"), *plugins.names("zsadbench.datasets"), "all"]
    titles = {item.card.title: item.name for item in methods.available() if item.card}
    titles |= {item.card.title: item.name for item in datasets.available() if item.card}
    try:
        taken = spelling.match(kind, name, known, lambda: titles)
    except UnknownName:
        return
    raise UsageError(f"{kind} name {name!r}: {taken} has this name already; choose another one.")


def _class_name(name: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))


def _draw(category: Path) -> None:
    """Draw noise with a bright spot where something is wrong: two train images, and four to test."""
    draw = random.Random(0)
    mask = Image.new("L", (SIDE, SIDE))
    mask.paste(255, SPOT)
    for place in ("train/good", "test/good", "test/spot", "ground_truth/spot"):
        files.make_folder(category / place)
        for number in range(2):
            image = Image.frombytes("L", (SIDE, SIDE), bytes(draw.randrange(80, 140) for _ in range(SIDE * SIDE)))
            if place == "test/spot":
                image.paste(230, mask=mask)
            if place == "ground_truth/spot":
                mask.save(category / place / f"{number:03}_mask.png")
            else:
                image.convert("RGB").save(category / place / f"{number:03}.png")
