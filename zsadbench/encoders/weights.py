"""Weight files: where they come from, how they are read without running code in them, and whether they fit a model."""

from __future__ import annotations

import pickle
import shlex
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from zsadbench.encoders import hub
from zsadbench.encoders.hub import Place
from zsadbench.errors import MissingWeights, WeightsError

WRAPPERS = ("state_dict", "model_state_dict", "model")  # entries under which trainers save a model's tensors
PREFIX = "module."  # of parallel training
FACTS = {"input_resolution", "context_length", "vocab_size"}  # numbers that OpenAI's archives hold beside the weights


def resolve(
    spec: str,
    weights: Mapping[str, str | Path] | None,
    place: Place,
    fetch: Callable[[], str | Path],
    may_download: bool = True,
) -> Path:
    """Return the weight file of a spec: the one that `weights` names, else the hub's or what `fetch` gets elsewhere.

    Raises WeightsError where there is none, MissingWeights where it would have to be downloaded and must not be.
    """
    if weights and spec in weights:
        path = Path(weights[spec])
        if not path.is_file():
            raise WeightsError(f"The weights of {spec!r} were given as {path}, which is not a file. Check the path.")
        return path
    if place.page and (found := hub.cached(place)) is not None:
        return found
    if not may_download:
        raise MissingWeights(f"The weights of {spec!r} are not here; a run will download {place.words}.")
    try:
        return hub.download(place) if place.page else Path(fetch())
    except Exception as error:  # the hub clients raise errors of many libraries; each means that there is no file
        raise WeightsError(
            f"The weights of {spec!r} could not be downloaded ({_reason(error)}). "
            f"Get {place.words} on a machine with network access and pass it as --weights {spec}=PATH, "
            f"or set ZSADBENCH_WEIGHTS={spec}=PATH. For all that a run needs: zsadbench weights list."
        ) from error


def _reason(error: Exception) -> str:
    told = " ".join(str(error).split())[:160]
    return told if isinstance(error, WeightsError) else f"{type(error).__name__}: {told}"


def read(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a .safetensors file or of a PyTorch checkpoint, by name, on the CPU and in the file's type.

    A pickle is read with `torch.load(weights_only=True)`: one that would run code is refused. What trainers put around
    a model's own tensors is taken away (`unwrap`).
    """
    content = _flat(path, unwrap)
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f"{path} holds a {type(content).__name__}, expected a mapping from names to tensors.")
    strange = [name for name, value in content.items() if not (isinstance(name, str) and isinstance(value, Tensor))]
    if strange:
        raise WeightsError(
            f"{path} holds {_few(strange)}, which {'is' if len(strange) == 1 else 'are'} no tensor. "
            "Save the model's state_dict alone."
        )
    return {name: value for name, value in content.items() if name not in FACTS}


def read_checkpoint(*paths: Path) -> dict[str, Tensor]:
    """Return every tensor of a trained method's files, nested mappings flattened: "linear_layers.fc.0.weight".

    Safe and unwrapped as `read`, at every level; values that are no tensors (an epoch) are left out. Raises
    WeightsError also where two files hold a tensor of the same name.
    """
    joined: dict[str, Tensor] = {}
    for path in paths:
        tensors = _flat(path, lambda content: dict(_leaves(content, "")) if isinstance(content, Mapping) else {})
        if not tensors:
            raise WeightsError(f"{path} holds no tensors by name; expected the checkpoint of a trained method.")
        twice = sorted(joined.keys() & tensors.keys())
        if twice:
            raise WeightsError(
                f"{' and '.join(map(str, paths))} hold {_few(twice)} more than once; expected the parts of one "
                "checkpoint. Name the files that belong together, --checkpoint METHOD=PATH for each."
            )
        joined |= tensors
    return joined


def _flat(path: Path, action: Callable[[Any], Any]) -> Any:
    """Return what an action that follows nested mappings makes of a file's content. Raises WeightsError."""
    content = _read(path)
    try:
        return action(content)
    except RecursionError:
        raise WeightsError(
            f"{path} holds mappings that contain themselves, or are nested too deeply. Save the state_dict alone."
        ) from None


def unwrap(content: Any) -> Any:
    """Return the tensors that a checkpoint is about, without what trainers put around them.

    The entry "state_dict", "model_state_dict" or "model" stands for the whole; states of optimisers are left out, and
    so is the prefix "module." of parallel training where every name has it. Anything but a mapping is returned as it
    is.
    """
    if not isinstance(content, Mapping):
        return content
    for wrapper in WRAPPERS:
        if isinstance(content.get(wrapper), Mapping):
            return unwrap(content[wrapper])
    kept = {name: value for name, value in content.items() if not _is_optimiser(value)}
    if all(str(name).startswith(PREFIX) for name in kept):
        return {name.removeprefix(PREFIX): value for name, value in kept.items()}
    return kept


def _is_optimiser(value: Any) -> bool:
    """Tell the state dict of a torch optimiser by its two entries."""
    return isinstance(value, Mapping) and value.keys() == {"state", "param_groups"}


def _leaves(content: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, Tensor]]:
    for name, value in unwrap(content).items():
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value
        elif isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")


def _read(path: Path) -> Any:
    if path.exists() and not path.is_file():  # a pipe that nobody writes to would be read for ever
        raise WeightsError(f"{path} is no file but a folder, a pipe or a device; expected a file of weights.")
    return _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is no complete safetensors file ({error}). Get it again.") from error


def _read_pickle(path: Path) -> Any:
    if _is_torchscript(path):
        raise WeightsError(
            f"{path} is a TorchScript archive, which holds code and is not opened. The same weights come as "
            "safetensors, for OpenAI's CLIP the file that `zsadbench weights list` names. Or, if you trust it, "
            f"save its tensors and give that file: {_conversion(path)}"
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        held = _foreign(path)
        reason = f"it holds {_few(held)}, and to build that is to run code" if held else "it runs code or is damaged"
        raise WeightsError(
            f"{path} is no plain file of tensors: {reason}; nothing was run. Get it as safetensors, or save the "
            "model's state_dict alone: torch.save(model.state_dict(), PATH)."
        ) from error
    except Exception as error:  # damaged bytes make torch.load raise nearly anything
        raise WeightsError(f"{path} is no complete PyTorch checkpoint ({str(error)[:200]}). Get it again.") from error


def _conversion(path: Path) -> str:
    """Return the command that saves the tensors of a TorchScript archive, which runs its code."""
    target = path.with_name(f"{path.stem}.tensors.pt")
    code = f"import torch; torch.save(torch.jit.load({str(path)!r}, 'cpu').state_dict(), {str(target)!r})"
    return shlex.join(["python", "-c", code])


def _foreign(path: Path) -> list[str]:
    """Return the names of what a pickle would build beside tensors, such as "argparse.Namespace"; [] if unknown."""
    try:
        return torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # a pickle that torch.save did not write, or a damaged one
        return []


def _is_torchscript(path: Path) -> bool:
    """Tell whether the file is a zip archive with compiled code, as torch.jit.save writes."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") or "/code/" in name for name in archive.namelist())
    except Exception:  # no zip archive, or a damaged one, which torch.load then refuses
        return False


def load_into(module: nn.Module, tensors: Mapping[str, Tensor], spec: str) -> None:
    """Give a module, which may be on the meta device, its tensors as float32.

    Raises WeightsError unless every name and shape agrees, and every value is a finite number that float32 can hold.
    """
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
    module.load_state_dict(
        {name: _usable(name, tensors[name], tensor, spec) for name, tensor in expected.items()}, assign=True
    )


def _usable(name: str, tensor: Tensor, expected: Tensor, spec: str) -> Tensor:
    """Return a tensor as float32 that shares memory with no other element of itself. Raises WeightsError."""
    plain = tensor.layout == torch.strided and tensor.device.type != "meta" and not tensor.is_quantized
    if not plain or tensor.is_complex() or expected.is_floating_point() > tensor.is_floating_point():
        kind = "quantized" if tensor.is_quantized else f"{tensor.layout} {tensor.dtype} on {tensor.device}"
        raise WeightsError(
            f"The weights given for {spec!r} hold {name} as a tensor that is {kind}; expected plain floating-point "
            "numbers. Give the file with the weights as they were trained."
        )
    values = tensor.detach().float().contiguous()  # an expanded tensor has one value for many elements
    if values.numel() and not all(torch.isfinite(bound) for bound in values.aminmax()):
        raise WeightsError(
            f"The weights given for {spec!r} hold NaN, infinity or what is too large for float32 in {name}. "
            "The training diverged or the file is damaged: get it again."
        )
    return values


def _few(names: list[str]) -> str:
    """Return the first names of a list as text, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(map(str, names[:3])) + more
