"""Whether what a method predicts keeps the contract of `zsadbench.methods`."""

from __future__ import annotations

import torch

from zsadbench.errors import ContractError
from zsadbench.methods import Batch, Prediction


def check_prediction(prediction: Prediction, batch: Batch, name: str) -> None:
    """Raise ContractError unless scores are [B] and maps [B, h, w], float32 and finite."""
    scores, maps = prediction
    expected = {"scores": (scores, 1, f"[{len(batch)}]"), "maps": (maps, 3, f"[{len(batch)}, h, w]")}
    for field_name, (tensor, dimensions, shape) in expected.items():
        if not isinstance(tensor, torch.Tensor) or tensor.ndim != dimensions or len(tensor) != len(batch):
            got = list(tensor.shape) if isinstance(tensor, torch.Tensor) else type(tensor).__name__
            raise ContractError(f"method {name}: {field_name} have shape {got}; expected {shape}.")
        if tensor.dtype != torch.float32:
            raise ContractError(f"method {name}: {field_name} have dtype {tensor.dtype}; expected torch.float32.")
        finite = torch.isfinite(tensor.flatten(1) if tensor.ndim > 1 else tensor[:, None]).all(dim=1)
        if not finite.all():
            path = batch.paths[int((~finite).nonzero()[0])]
            raise ContractError(f"method {name}: {field_name} hold NaN or infinity for {path}; expected finite values.")
