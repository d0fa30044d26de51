"""A trained method without an encoder, as a plugin: two stages, noise drawn from the batch's generator."""

from pathlib import Path

SOURCE = """
from dataclasses import dataclass
import torch
from torch import nn
from zsadbench.components import losses
from zsadbench.methods import (
    Augmentation, MethodCard, MultiStep, Prediction, Stage, TrainableMethod, TrainRecipe, register
)
from zsadbench.data.images import Preprocess
from zsadbench.recipes import Cosine

WARP = Augmentation(rotation=30, translation=0.15, warp_chance=0.5, horizontal_flip=0.5, vertical_flip=0.5)
STAGES = (
    Stage(2, 0.05, "first", ("scale",), schedule=MultiStep((3, 9), 0.5), augment=Augmentation(0.5, 0.5, 0.5, 0.7)),
    Stage(
        1, 0.05, "second", ("shift", "unused"), "adamw", weight_decay=0.1, batch_size=2,
        schedule=Cosine(warm_up=0.2), rates=(("shift", 0.1),), augment=WARP,
    ),
)

@dataclass(frozen=True)
class Config:
    width: int = 1
    sigma: float = 0.0
    explode: str = ""
    trained_on: str = "visa"
    recipe: TrainRecipe = TrainRecipe(STAGES, batch_size=4, mosaic=0.5)

class Weights(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.zeros(width))

@register
class Toy(TrainableMethod):
    card = MethodCard(title="Toy", reference="none", scope="image")
    presets = {"visa": Config(), "mvtec": Config(trained_on="mvtec"), "plain": Config(recipe=TrainRecipe(STAGES, 4))}
    preprocess = Preprocess(size=32)
    free_options = frozenset({"sigma", "explode"})

    def new_module(self):
        return Weights(self.config.width)

    def draw(self, module, generator):
        module.scale.normal_(generator=generator)
        module.shift.zero_()

    def probability(self, images):
        return torch.sigmoid(images.mean(1) * self.trained.scale.mean() + self.trained.shift.mean())

    def loss(self, batch, labels, masks, stage=""):
        if self.config.explode and any(self.config.explode in str(path) for path in batch.paths):
            return {"dice": self.trained.scale.sum() * float("inf")}
        noise = torch.randn(batch.images.shape, generator=batch.generator)
        probability = self.probability(batch.images + 0.1 * noise)
        terms = {"dice": losses.dice(probability, masks)}
        if stage == "second":
            terms["focal"] = losses.focal(torch.stack([1 - probability, probability], 1), masks)
        return terms

    def predict(self, batch):
        maps = self.probability(batch.images)
        return Prediction(maps.amax((1, 2)), maps)
"""


def write_method(folder: Path) -> Path:
    """Write the method below a --plugins folder, under the name `toy_trained`."""
    (folder / "methods").mkdir(parents=True)
    (folder / "methods" / "toy_trained.py").write_text(SOURCE)
    return folder
