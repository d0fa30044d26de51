"""Prompt flows: an offset of prompt vectors is drawn from a Gaussian and bent by planar flows; and its KL divergence.

The distributions of Bayes-PFL (docs/methods/bayes_pfl.md, §Prompt flows). N conditions with R draws each, C width of a
condition, W width of an offset, K planar steps.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

LOG_DET_EPSILON = 1e-5  # keeps the logarithm finite where a step is not invertible (§Prompt flows)


class Noise(NamedTuple):
    """Standard normal noise of R draws; W width of the text tower."""

    context: Tensor  # [B, R, W], or [1, R, W] for all images
    normal: Tensor  # [1, R, W]
    abnormal: Tensor  # [1, R, W]

    @classmethod
    def draw(cls, images: int, samples: int, width: int, generator: torch.Generator) -> Noise:
        """Draw noise on the generator's device, in the order of §Map."""
        shapes = [(images, samples, width), (1, samples, width), (1, samples, width)]
        return cls(*(torch.randn(shape, generator=generator, device=generator.device) for shape in shapes))


class Draws(NamedTuple):
    """Drawn offsets with what their density is made of."""

    offsets: Tensor  # [N, R, W] behind the planar steps
    start: Tensor  # [N, R, W] before them
    log_det: Tensor  # [N, R] logarithm of the determinant of all steps
    mean: Tensor  # [N, 1, W] of the Gaussian
    variance: Tensor  # [N, 1, W]


class Gaussian(nn.Module):
    """The Gaussian of a condition: two MLPs give its mean and its log-variance, which is halved (§Prompt flows)."""

    def __init__(self, condition_width: int, hidden: int, width: int) -> None:
        """Make the MLPs: C -> hidden -> hidden -> W."""
        super().__init__()
        self.weight_mean, self.weight_log_variance = (
            nn.Sequential(
                nn.Linear(condition_width, hidden),
                nn.Softplus(),
                nn.Linear(hidden, hidden),
                nn.Softplus(),
                nn.Linear(hidden, width),
            )
            for _ in range(2)
        )

    def forward(self, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and variance of conditions [N, C], each [N, W]."""
        return self.weight_mean(condition), (self.weight_log_variance(condition) / 2).exp()


class ContextFlow(nn.Module):
    """A flow whose planar steps depend on the condition, as its Gaussian: one distribution an image (§Prompt flows)."""

    def __init__(self, condition_width: int, width: int, steps: int) -> None:
        """Make the linear layers that give the K steps."""
        super().__init__()
        self.shape = (steps, width)
        self.amor_u = nn.Linear(condition_width, steps * width)
        self.amor_w = nn.Linear(condition_width, steps * width)
        self.amor_b = nn.Linear(condition_width, steps)

    def forward(self, gaussian: Gaussian, condition: Tensor, noise: Tensor) -> Draws:
        """Turn standard normal noise [N, R, W] into draws for conditions [N, C]."""
        u, w = (linear(condition).unflatten(1, self.shape) for linear in (self.amor_u, self.amor_w))
        return bend(gaussian(condition), u, w, self.amor_b(condition), noise)


class StateFlow(nn.Module):
    """A flow with learned planar steps and a learned condition: one distribution for all images (§Prompt flows)."""

    def __init__(self, width: int, steps: int) -> None:
        """Make the K steps, in the shapes of official checkpoints (§Checkpoints)."""
        super().__init__()
        self.state = nn.Parameter(torch.empty(1, width))
        self.amor_u = nn.Parameter(torch.empty(1, steps, width, 1))
        self.amor_w = nn.Parameter(torch.empty(1, steps, 1, width))
        self.amor_b = nn.Parameter(torch.empty(1, steps, 1, 1))

    def forward(self, gaussian: Gaussian, noise: Tensor) -> Draws:
        """Turn standard normal noise [1, R, W] into draws."""
        steps = self.amor_u.squeeze(3), self.amor_w.squeeze(2), self.amor_b.flatten(1)
        return bend(gaussian(self.state), *steps, noise)


def bend(gaussian: tuple[Tensor, Tensor], u: Tensor, w: Tensor, b: Tensor, noise: Tensor) -> Draws:
    """Scale noise [N, R, W] to Gaussians (mean and variance, [N, W]) and take the steps u, w [N, K, W], b [N, K]."""
    mean, variance = (part.unsqueeze(1) for part in gaussian)
    start = offsets = mean + variance.sqrt() * noise
    log_det = noise.new_zeros(noise.shape[:2])
    for k in range(u.shape[1]):
        offsets, change = planar(offsets, u[:, k], w[:, k], b[:, k])
        log_det = log_det + change
    return Draws(offsets, start, log_det, mean, variance)


def planar(z: Tensor, u: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return z + u tanh(w . z + b) of z [N, R, W], and its log-determinant [N, R]; u, w: [N, W], b: [N]."""
    bent = ((z @ w.unsqueeze(2)).squeeze(2) + b.unsqueeze(1)).tanh()
    slope = (w * u).sum(dim=1, keepdim=True) * (1 - bent.square())
    return z + bent.unsqueeze(2) * u.unsqueeze(1), ((1 + slope).abs() + LOG_DET_EPSILON).log()


def kl_divergence(draws: Draws, images: int) -> Tensor:
    """Return the KL divergence from the standard normal as the draws estimate it, without constants (§Prompt flows).

    The log-determinants are summed over the N conditions and divided by the number of images in the batch: a mean for
    the context flow, but a B-th of the one log-determinant of a state flow, as the released code computes it.
    """
    deviation = (draws.start - draws.mean).square() / draws.variance
    log_q = -(draws.variance.log() + deviation).sum(dim=2) / 2
    log_p = -draws.offsets.square().sum(dim=2) / 2
    return (log_q - log_p).mean() - draws.log_det.mean(dim=1).sum() / images
