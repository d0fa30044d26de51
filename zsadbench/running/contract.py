"""What a method predicts, held to the contract of `zsadbench.methods`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from zsadbench.errors import ContractError
from zsadbench.methods import Batch, Final, Method, Prediction
from zsadbench.support import traces


def waits(method: Method) -> bool:
    """Tell whether image scores are made once all images of a category are predicted."""
    return method.image_scope == "category" != method.scope


def predict(method: Method, batch: Batch) -> Prediction:
    """Predict one batch: its image scores [B] and maps, or what a method that `waits` finalises later.

    Raises ContractError naming the field.
    """
    prediction = method.predict(batch)
    try:
        check_prediction(prediction, batch, method)
    except ContractError as error:
        raise ContractError(f"{error} (predict at {traces.of(type(method).predict)})") from error
    if waits(method):
        return prediction
    final = finalise(method, prediction.scores, batch.paths)
    return Prediction(final.scores, final.scaled(prediction.maps))


def finalise(method: Method, scores: Tensor, paths: Sequence[Path]) -> Final:
    """Return what a method makes of predicted scores [N] or [N, k] of some images. Raises ContractError."""
    final = method.finalise(scores)
    line = torch.stack([torch.as_tensor(value, dtype=torch.float32).cpu() for value in (final.start, final.span)])
    try:
        _check("scores", final.scores, f"[{len(paths)}]", 1, paths, method)
        if not torch.isfinite(line).all() or line[1] <= 0:
            raise ContractError(
                f"method {method.name}: maps are scaled with start {line[0]:g} and span {line[1]:g}; expected finite "
                "numbers, and a span above 0."
            )
    except ContractError as error:
        raise ContractError(f"{error} (finalise at {traces.of(type(method).finalise)})") from error
    return final


def check_prediction(prediction: Prediction, batch: Batch, method: Method) -> None:
    """Raise ContractError unless scores are [B] and maps [B, h, w], float32 and finite.

    Scores may also be [B, k] where the method has a `finalise` of its own.
    """
    if not isinstance(prediction, Prediction):
        raise ContractError(
            f"method {method.name}: predict returned {type(prediction).__name__}; expected Prediction(scores, maps)."
        )
    count, scores = len(batch), prediction.scores
    several = type(method).finalise is not Method.finalise and isinstance(scores, Tensor) and scores.ndim == 2
    _check("scores", scores, f"[{count}, k]" if several else f"[{count}]", 2 if several else 1, batch.paths, method)
    _check("maps", prediction.maps, f"[{count}, h, w]", 3, batch.paths, method)


def _check(name: str, tensor: Tensor, shape: str, dimensions: int, paths: Sequence[Path], method: Method) -> None:
    if (
        not isinstance(tensor, Tensor)
        or tensor.ndim != dimensions
        or len(tensor) != len(paths)
        or 0 in tensor.shape[1:]
    ):
        got = list(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
        raise ContractError(f"method {method.name}: {name} have shape {got}; expected {shape}.")
    if tensor.dtype != torch.float32:
        raise ContractError(f"method {method.name}: {name} have dtype {tensor.dtype}; expected torch.float32.")
    if tensor.layout != torch.strided or tensor.is_meta:
        kind = "meta" if tensor.is_meta else str(tensor.layout).removeprefix("torch.")
        raise ContractError(f"method {method.name}: {name} are a {kind} tensor; expected a dense one with values.")
    finite = torch.isfinite(tensor.flatten(1) if tensor.ndim > 1 else tensor[:, None]).all(dim=1)
    if not finite.all():
        told = "/".join(paths[int((~finite).nonzero()[0])].parts[-3:])  # records hold no absolute path
        raise ContractError(f"method {method.name}: {name} hold NaN or infinity for {told}; expected finite values.")
