"""Weight files: where they come from, how they are read without running code in them, and whether they fit a model."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from zsadbench.errors import WeightsError


def resolve(
    spec: str, weights: Mapping[str, str | Path] | None, download: Callable[[], str | Path], source: str
) -> Path:
    """Return the weight file of a spec: the local file that `weights` names, else what `download` returns.

    `source` says in words which file the download gets; the error repeats it.
    """
    if weights and spec in weights:
        path = Path(weights[spec])
        if not path.is_file():
            raise WeightsError(f"The weights of {spec!r} were given as {path}, which is not a file. Check the path.")
        return path
    try:
        return Path(download())
    except Exception as error:  # the hub clients raise errors of many libraries; each means that there is no file
        raise WeightsError(
            f"The weights of {spec!r} could not be downloaded ({type(error).__name__}: {str(error)[:120]}). "
            f"Get {source} on a machine with network access and pass it as --weights {spec}=PATH, "
            f"or set ZSADBENCH_WEIGHTS={spec}=PATH."
        ) from error


def read(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a .safetensors file or of a PyTorch checkpoint, by name, on the CPU and in the file's type.

    A pickle is read with `torch.load(weights_only=True)`: one that would run code is refused. A "state_dict" or "model"
    entry is unwrapped and the "module." prefix of parallel training is removed.
    """
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    for wrapper in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f"{path} holds a {type(content).__name__}, expected a mapping from names to tensors.")
    strange = [name for name, value in content.items() if not (isinstance(name, str) and isinstance(value, Tensor))]
    if strange:
        raise WeightsError(
            f"{path} holds {_few(strange)}, which {'is' if len(strange) == 1 else 'are'} no tensor. "
            "Save the model's state_dict alone."
        )
    if all(name.startswith("module.") for name in content):
        return {name.removeprefix("module."): tensor for name, tensor in content.items()}
    return dict(content)


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Return every tensor of a trained method's checkpoint, nested mappings flattened: "linear_layers.fc.0.weight".

    Safe as `read`; values that are no tensors (an epoch, an optimiser's settings) are left out.
    """
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    tensors = dict(_leaves(content, "")) if isinstance(content, Mapping) else {}
    if not tensors:
        raise WeightsError(f"{path} holds no tensors by name; expected the checkpoint of a trained method.")
    return tensors


def _leaves(content: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, Tensor]]:
    for name, value in content.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value
        elif isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is no complete safetensors file ({error}). Get it again.") from error


def _read_pickle(path: Path) -> Any:
    if _is_torchscript(path):
        raise WeightsError(
            f"{path} is a TorchScript archive, which holds code. Get the same weights as safetensors "
            "(for OpenAI's CLIP, the file that open_clip downloads), or save the model's state_dict."
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} is no plain file of tensors: reading it would run code from it, or it is damaged; nothing was "
            f"run ({str(error).splitlines()[0][:200]}). Get it as safetensors, or save the model's state_dict alone."
        ) from error
    except Exception as error:  # damaged bytes make torch.load raise nearly anything
        raise WeightsError(f"{path} is no complete PyTorch checkpoint ({str(error)[:200]}). Get it again.") from error


def _is_torchscript(path: Path) -> bool:
    """Tell whether the file is a zip archive with compiled code, as torch.jit.save writes."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") or "/code/" in name for name in archive.namelist())
    except Exception:  # no zip archive, or a damaged one, which torch.load then refuses
        return False


def load_into(module: nn.Module, tensors: Mapping[str, Tensor], spec: str) -> None:
    """Give a module, which may be on the meta device, its tensors as float32; every name and shape must agree."""
    expected = module.state_dict()
    missing = sorted(expected.keys() - tensors.keys())
    unexpected = sorted(tensors.keys() - expected.keys())
    shapes = [
        f"{name} {list(tensors[name].shape)} instead of {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]
    faults = {"lacks": missing, "has the unknown": unexpected, "has the shapes": shapes}
    found = "; it ".join(f"{what} {_few(names)}" for what, names in faults.items() if names)
    if found:
        raise WeightsError(
            f"The weights given for {spec!r} are of another architecture: the file {found}. "
            "Give the file that belongs to this model."
        )
    module.load_state_dict({name: tensors[name].detach().float() for name in expected}, assign=True)


def _few(names: list[str]) -> str:
    """Return the first names of a list as text, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(map(str, names[:3])) + more
