"""The protocol: everything beside the method and the data that decides a number. Frozen, and part of every record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# What results in one table may differ in: speed, shown with the encoder, and a fact of the method.
FREE_FIELDS = frozenset({"precision", "batch_size", "batch_images"})
ResizeRule = Literal["bilinear_half", "nearest", "musc_mvtec", "musc_visa"]


@dataclass(frozen=True)
class EvaluationProtocol:
    """How images are ordered and maps are compared with masks."""

    eval_size: int | Literal["input", "native"] = "input"  # side where maps meet masks in pixels; input: the method's
    native_masks: Literal["dataset", "gt0"] = "dataset"  # mask file -> 0/1; gt0 as AnomalyCLIP (docs/protocol.md#masks)
    mask_rule: ResizeRule = "bilinear_half"  # how the native 0/1 mask is resized (docs/protocol.md#masks)
    aupro_limit: float = 0.3  # false positive rate where AU-PRO ends (docs/metrics.md#definitions)
    order: Literal["shuffled", "dataset"] = "shuffled"  # image order of a category; matters for scope "batch" alone
    seed: int = 0  # draws the order, --limit's images and few-shot references
    limit: int | None = None  # images per category, drawn stratified by label and defect; None: all
    batch_size: int = 8  # images per encoder pass
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"  # of encoder passes; metrics are always exact
