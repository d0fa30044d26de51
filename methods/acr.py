"""ACR: a small network whose batch norms adapt to the images of a category; anomalies end up far from its centre.

Paper: Li et al., "Zero-Shot Anomaly Detection via Batch Normalization", NeurIPS 2023, arXiv 2302.07849; code read:
aodongli/zero-shot-ad-via-batch-norm@54f1a60 (docs/methods/acr.md). Each position of the feature
map is a task of its own: the network sees that position of all test images of a category, and its batch norms always
normalise with what they see. Not reproduced: the crop of the centre (224 of 256 pixels; here the image is resized to
224, so that maps cover it), and leave-one-class-out training on MVTec AD (here the classes of another dataset).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zsadbench.components.postprocess import finish
from zsadbench.encoders.base import Encoder
from zsadbench.encoders.features import FeatureRequest
from zsadbench.methods import (
    Batch,
    EncoderConfig,
    MethodCard,
    Prediction,
    Stage,
    TrainableMethod,
    TrainingBatch,
    TrainRecipe,
    register,
)

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")  # in official state dicts; they never enter
BLOCK_ELEMENTS = 2**25  # vectors' values that pass the network at once: 128 MiB of float32


@dataclass(frozen=True)
class AcrConfig(EncoderConfig):
    """Options; sources are sections of docs/methods/acr.md."""

    encoder: str = "timm:wide_resnet50_2.tv_in1k"  # §Encoder; torchvision's weights
    layer: int | None = None  # None: the third of four stages, as layer3 of a ResNet (§Encoder)
    layers: int = 5  # linear layers with batch norm and ReLU, each half as wide as its input (§Image side)
    output: int = 32  # width of the space with the centre (§Image side)
    noise: float = 0.1  # standard deviation of what makes a pseudo-anomaly of a vector (§Map, §Training)
    seed: int = 0  # of the noise at test; the score depends on it (§Map)
    align_corners: bool = False  # §Map
    sigma: float = 4.0  # §Smoothing
    trained_on: str = "visa"  # dataset of the checkpoint
    recipe: TrainRecipe = TrainRecipe((Stage(epochs=50, lr=3e-4),), batch_size=32 * 30, groups=32)  # §Training


@register
class Acr(TrainableMethod):
    """Squared distances to the centre, position by position, min-max normalised over the category."""

    card = MethodCard(
        title="ACR",
        reference="Li et al., NeurIPS 2023, arXiv 2302.07849",
        scope="category",
        code="aodongli/zero-shot-ad-via-batch-norm@54f1a60",
        licence="MIT",
        notes="Batch-level: batch norms and min-max see the whole test category, which should be mostly normal, and "
        "scores depend on random noise; here an image's noise comes from its pixels and the seed. Trained on normal "
        "images of the auxiliary dataset's train split, of its test split where it has no other; the paper trains on "
        "the other classes of MVTec AD. The image is resized to 224 pixels, not cropped.",
    )
    presets = {
        "visa": AcrConfig(),
        "mvtec": AcrConfig(trained_on="mvtec"),
        "demo": AcrConfig(
            encoder="demo",
            layers=3,
            trained_on="demo.train",
            recipe=TrainRecipe((Stage(epochs=150, lr=1e-2),), batch_size=16 * 12, groups=16),
            sigma=2.0,  # pixels of a small map
        ),
    }
    free_options = frozenset({"seed", "align_corners", "sigma"})

    def __init__(self, config: AcrConfig, encoder: Encoder) -> None:
        """Choose the layer. Raises UsageError."""
        super().__init__(config, encoder)
        self.layer = config.layer or encoder.stages(4)[2]
        self.request = FeatureRequest(tokens={self.layer})
        self.align_corners, self.sigma = config.align_corners, config.sigma

    def new_module(self) -> Network:
        """Return the network for the layer's width."""
        return Network(self.encoder.layer_shape(self.layer)[1], self.config.layers, self.config.output)

    def draw(self, module: Network, generator: torch.Generator) -> None:
        """Draw weights as the code does (§Image side)."""
        module.draw(generator)

    def own_names(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Leave out the running statistics of official state dicts."""
        return {name: tensor for name, tensor in tensors.items() if not name.endswith(STATISTICS)}

    def predict(self, batch: Batch) -> Prediction:
        """Score all images of a category: scores [N] and maps [N, g, g]; finished maps span 0..1 over the category."""
        tokens, noise = [], []
        for part in batch.split():
            tokens.append(part.features(self.encoder, self.request).tokens(self.layer))
            noise.append(torch.stack([image_noise(image, tokens[-1][0], self.config.seed) for image in part.images]))
        return self.normalised(self.distances(torch.cat(tokens), torch.cat(noise)))

    def distances(self, tokens: Tensor, noise: Tensor) -> Tensor:
        """Return each position's squared distance to the centre: tokens and noise [N, L, D] -> [N, g, g] (§Map)."""
        network, side = self.ready(), math.isqrt(tokens.shape[1])
        at_once = max(1, BLOCK_ELEMENTS // (2 * tokens[:, 0].numel()))
        found = []
        for real, drawn in zip(tokens.split(at_once, dim=1), noise.split(at_once, dim=1), strict=True):
            tasks = with_pseudo_anomalies(real.transpose(0, 1), drawn.transpose(0, 1), self.config.noise)
            found.append(network(tasks)[:, : len(tokens)])
        maps: Tensor = torch.cat(found).mT.unflatten(1, (side, side))
        return maps

    def normalised(self, maps: Tensor) -> Prediction:
        """Scale maps [N, g, g] so that finished ones span 0..1; scores are the finished maps' maxima (§Map)."""
        finished = finish(maps, self, self.encoder.size)
        lowest = finished.min()
        span = (finished.max() - lowest).clamp_min(torch.finfo(maps.dtype).tiny)
        # Upsampling and smoothing keep sums of weights at 1, so that the scaling may come before them.
        return Prediction((finished.amax(dim=(1, 2)) - lowest) / span, (maps - lowest) / span)

    def loss(self, batch: TrainingBatch, labels: Tensor, masks: Tensor, stage: str = "") -> dict[str, Tensor]:
        """Return the mean loss of as many tasks as the batch has groups, each at a position of its own (§Training)."""
        tokens = batch.features(self.encoder, self.request).tokens(self.layer)
        groups = tokens.unflatten(0, (self.recipe.groups, -1))  # [tasks, k, L, D]
        tasks = torch.arange(len(groups), device=tokens.device)
        positions = torch.randint(groups.shape[2], tasks.shape, generator=batch.generator, device=tokens.device)
        normal = groups[tasks, :, positions]  # [tasks, k, D]
        noise = torch.randn(normal.shape, generator=batch.generator, device=tokens.device)
        distances = self.ready()(with_pseudo_anomalies(normal, noise, self.config.noise))
        pseudo = torch.arange(distances.shape[1], device=tokens.device) >= normal.shape[1]
        return {"tasks": task_loss(distances, pseudo.expand_as(distances))}


class Network(nn.Module):
    """Vectors to squared distances from a learned centre, under the official names (§Image side)."""

    def __init__(self, width: int, layers: int, output: int) -> None:
        """Make `layers` linear layers with batch norm and ReLU, each half as wide, then one to `output`."""
        super().__init__()
        parts: list[nn.Module] = []
        for _ in range(layers):
            parts += [nn.Linear(width, width // 2), TaskNorm(width // 2), nn.ReLU()]
            width //= 2
        self.enc = nn.Sequential(*parts)
        self.fc = nn.Linear(width, output)
        self.batch_norm = TaskNorm(output)
        self.center = nn.Parameter(torch.empty(output))

    def draw(self, generator: torch.Generator) -> None:
        """Draw linear layers as torch does by default, the last norm's weight from 0..1, the centre from N(0, 1)."""
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                bound = layer.in_features**-0.5
                nn.init.uniform_(layer.weight, -bound, bound, generator)
                nn.init.uniform_(layer.bias, -bound, bound, generator)
            elif isinstance(layer, TaskNorm):
                nn.init.ones_(layer.weight)
                nn.init.zeros_(layer.bias)
        nn.init.uniform_(self.batch_norm.weight, 0, 1, generator)
        nn.init.normal_(self.center, 0, 1, generator)

    def forward(self, tasks: Tensor) -> Tensor:
        """Return the distances of the vectors of each task, which are normalised together: [..., N, D] -> [..., N]."""
        return (self.embed(tasks) - self.center).square().sum(dim=-1)

    def embed(self, tasks: Tensor) -> Tensor:
        """Return what the distances are taken of: [..., N, D] -> [..., N, output]."""
        embedded: Tensor = self.batch_norm(self.fc(self.enc(tasks)))
        return embedded


class TaskNorm(nn.Module):
    """Batch norm over the vectors of one task, in training and at test alike; it keeps no statistics."""

    def __init__(self, width: int) -> None:
        """Make a weight and a bias."""
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.empty(width)), nn.Parameter(torch.empty(width))

    def forward(self, vectors: Tensor) -> Tensor:
        """Normalise each feature over the vectors: [..., N, D] -> [..., N, D]."""
        variance, mean = torch.var_mean(vectors, dim=-2, correction=0, keepdim=True)
        return (vectors - mean) * (variance + 1e-5).rsqrt() * self.weight + self.bias  # eps of torch's BatchNorm1d


def with_pseudo_anomalies(vectors: Tensor, noise: Tensor, scale: float) -> Tensor:
    """Return vectors followed by their noisy copies: twice [..., N, D] -> [..., 2 N, D] (§Map)."""
    return torch.cat([vectors, vectors + scale * noise], dim=-2)


def task_loss(distances: Tensor, pseudo: Tensor) -> Tensor:
    """Return the mean of the distances, inverted where `pseudo` marks a noisy copy; both [tasks, 2 k] (§Training)."""
    return torch.where(pseudo, 1 / distances, distances).mean()


def image_noise(image: Tensor, like: Tensor, seed: int) -> Tensor:
    """Draw standard normal noise [L, D] that depends on an image's pixels [3, S, S] and the seed alone.

    So an image has the same noise wherever it stands in its category.
    """
    digest = hashlib.sha256(image.cpu().numpy().tobytes() + seed.to_bytes(8, "big", signed=True)).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=True))
    return torch.randn(like.shape, generator=generator).to(like.device)
