"""Which images of a category a run uses and in which order: all draws come from the protocol's seed and the names."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from zsadbench.datasets import Dataset, Sample
from zsadbench.errors import NotPossible
from zsadbench.protocol import EvaluationProtocol


def generator(seed: int, *names: str) -> np.random.Generator:
    """Return a random generator that depends on the seed and the names alone, not on what ran before."""
    digest = hashlib.sha256("\0".join(names).encode()).digest()
    return np.random.default_rng([seed, int.from_bytes(digest[:8], "big")])


def test_samples(dataset: Dataset, category: str, protocol: EvaluationProtocol) -> tuple[Sample, ...]:
    """Return the test samples of a category under the protocol's limit, in the protocol's order."""
    samples = dataset.samples(category, "test")
    if protocol.limit is not None and protocol.limit < len(samples):
        samples = stratified(samples, protocol.limit, generator(protocol.seed, dataset.name, category, "limit"))
    if protocol.order == "shuffled":
        permutation = generator(protocol.seed, dataset.name, category, "order").permutation(len(samples))
        samples = tuple(samples[i] for i in permutation)
    return samples


def stratified(samples: Sequence[Sample], limit: int, rng: np.random.Generator) -> tuple[Sample, ...]:
    """Draw `limit` samples whose labels and defects keep their shares; both labels stay present if limit >= 2.

    The samples keep their given order.
    """
    normal = sum(sample.label == 0 for sample in samples)
    wanted = round(limit * normal / len(samples))
    if 0 < normal < len(samples) and limit >= 2:
        wanted = min(max(wanted, 1), limit - 1)
    chosen = _spread(samples, 0, wanted, rng) | _spread(samples, 1, limit - wanted, rng)
    return tuple(sample for i, sample in enumerate(samples) if i in chosen)


def _spread(samples: Sequence[Sample], label: int, count: int, rng: np.random.Generator) -> set[int]:
    """Choose `count` indices of one label so that each defect gets its share: the k-th of n ranks at (k + 1/2) / n."""
    groups: dict[str, list[int]] = {}
    for i, sample in enumerate(samples):
        if sample.label == label:
            groups.setdefault(sample.defect, []).append(i)
    ranked = []
    for group in groups.values():
        drawn = rng.permutation(len(group))
        ranked += [((k + 0.5) / len(group), rng.random(), group[i]) for k, i in enumerate(drawn)]
    return {index for _, _, index in sorted(ranked)[:count]}


def references(dataset: Dataset, category: str, shots: int, seed: int) -> tuple[Sample, ...]:
    """Draw the normal reference images of a few-shot method from the train split, without replacement.

    Raises NotPossible when the split has fewer.
    """
    normal = [sample for sample in dataset.samples(category, "train") if sample.label == 0]
    if len(normal) < shots:
        needed = f"{shots} normal reference image{'s are' if shots > 1 else ' is'} needed"
        there = (
            f"{len(normal)}; use fewer shots, or add some" if normal else "none, as some data sets have no train split"
        )
        raise NotPossible(f"dataset {dataset.name}, category {category}: {needed}, the train split has {there}.")
    drawn = generator(seed, dataset.name, category, "references").permutation(len(normal))[:shots]
    return tuple(normal[i] for i in drawn)
