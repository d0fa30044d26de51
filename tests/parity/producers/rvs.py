"""RVS: the five rules of CLIP-AD, with the fixture's parameters as options of the method."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from zsadbench.components.sentence_means import select
from zsadbench.support import plugins

if TYPE_CHECKING:
    from produce import Fixture
    from torch import Tensor

clip_ad = plugins.load("zsadbench.methods", "clip_ad")


def produce(fixture: Fixture) -> dict[str, Tensor]:
    """Return the vectors [normal, abnormal] of each rule, and those rounded through float16."""
    options = fixture.options
    fixture.describes("output", "pca")
    if options["kde"]["kernel"] != "gaussian" or options["dbscan"]["metric"] != "euclidean":
        raise NotImplementedError("only Gaussian kernels and Euclidean distances are implemented")
    embeddings = [fixture.inputs[f"{state}_embeddings"].numpy() for state in ("normal", "abnormal")]
    outputs = {}
    for rule in options["rules"]:
        for suffix, half in (("", False), ("_fp16", True)):
            config = clip_ad.ClipAdConfig(
                rvs=rule,
                rvs_half=half,
                kde_bandwidth=options["kde"]["bandwidth"],
                mean_shift_bandwidth=options["mean_shift"]["bandwidth"],
                dbscan_eps=options["dbscan"]["eps"],
                dbscan_min_samples=options["dbscan"]["min_samples"],
            )
            rows = [torch.from_numpy(select(part, rule, **clip_ad.rvs_parameters(config))) for part in embeddings]
            outputs[f"{rule}{suffix}"] = torch.stack(rows).float()
    return outputs
