"""Whether an encoder is still what was loaded: methods share it, and must neither train, hook nor change it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from zsadbench.encoders.base import Encoder

PROBE = 16  # first values of each weight that are compared: writing past autograd leaves no other trace


class Watch:
    """An encoder as it was when this was made. To look again takes some 0.3 ms for the 500 modules of a CLIP ViT-L."""

    def __init__(self, encoder: Encoder) -> None:
        """Note its parts and its weights; of these only a few values each are copied."""
        owners = dict(_owners(encoder))
        modules = {name: owner for name, owner in owners.items() if isinstance(owner, nn.Module)}
        self._parts = [(name, owner, vars(owner)) for name, owner in owners.items()]
        self._parts += [
            (name, None, children)
            for name, module in modules.items()
            for children in (module._parameters, module._buffers, module._modules)
            if children
        ]
        self._hooks = [
            (name, hooks)
            for name, module in modules.items()
            for attribute, hooks in vars(module).items()
            if attribute.endswith("_hooks")
        ]
        self._weights = list(_weights(owners))
        self._probes = [tensor.detach().reshape(-1)[:PROBE] for _, tensor in self._weights]
        self.renew()

    def changed(self) -> list[str]:
        """Return what is different now, in words, such as "the encoder's weights (image.proj and 2 more)"."""
        found = {"weights": self._changed_weights(), "parts": self._changed_parts(), "hooks": self._hooked()}
        return [f"the encoder's {what} ({_few(names)})" for what, names in found.items() if names]

    def renew(self) -> None:
        """Take the encoder as it is now."""
        self._held, self._states, self._probed = self._holdings(), self._state(), torch.cat(self._probes)
        self._counts = [len(hooks) for _, hooks in self._hooks]

    def _holdings(self) -> list[list[Any]]:
        return [list(held.values()) for _, _, held in self._parts]

    def _state(self) -> list[tuple[int, int]]:
        """Return where each weight lies, and how often it was written; those of inference mode do not count that."""
        return [(tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version) for _, tensor in self._weights]

    def _changed_weights(self) -> list[str]:
        now, probed = self._state(), torch.cat(self._probes)
        if now == self._states and torch.equal(probed, self._probed):
            return []
        sizes = [len(probe) for probe in self._probes]
        probes = torch.split(self._probed, sizes), torch.split(probed, sizes)
        rows = zip(self._weights, self._states, now, *probes, strict=True)
        return [name for (name, _), old, new, *both in rows if old != new or not torch.equal(*both)]

    def _changed_parts(self) -> list[str]:
        now = self._holdings()
        if _same(now, self._held):
            return []
        rows = zip(self._parts, self._held, now, strict=True)
        return [name for (name, owner, held), old, new in rows if not _holds(owner, list(held), old, new)]

    def _hooked(self) -> list[str]:
        return [name for (name, hooks), count in zip(self._hooks, self._counts, strict=True) if len(hooks) != count]


def _owners(encoder: Encoder) -> Iterator[tuple[str, Any]]:
    """Yield everything that an encoder's numbers come from, once, by name."""
    held = vars(encoder)  # a convolutional encoder does not let itself be asked for what it lacks
    roots = [("image", encoder.module)] + ([("text", held["text"].module)] if held["text"] is not None else [])
    seen: set[nn.Module] = set()  # CLIP's model holds both towers
    for name, root in roots:
        yield from root.named_modules(seen, prefix=name)
    for number, block in enumerate(held.get("blocks", ()), start=1):
        yield f"block {number}", block
    for name in ("text", "tower"):
        if held.get(name) is not None:
            yield f"encoder.{name}", held[name]
    yield "encoder", encoder


def _weights(owners: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor of numbers that a part holds, once, by the part's name and its own."""
    seen = set()
    for owner, part in owners.items():
        held = vars(part)
        for tensors in (held, held.get("_parameters", {}), held.get("_buffers", {})):
            for name, value in tensors.items():
                if isinstance(value, Tensor) and value.is_floating_point() and id(value) not in seen:
                    seen.add(id(value))
                    yield f"{owner}.{name}", value


def _holds(owner: Any, names: Sequence[str], before: Sequence[Any], now: Sequence[Any]) -> bool:
    """Tell whether a part holds what it held; another attribute is fine unless it hides what the class defines."""
    more = names[len(before) :] if owner is not None else ()
    same = _same(now[: len(before)] if more else now, before)
    return same and not any(hasattr(type(owner), name) for name in more)


def _same(now: Sequence[Any], before: Sequence[Any]) -> bool:
    """Tell whether two sequences, or sequences of them, hold the very same objects."""
    try:
        return bool(now == before)  # an object is equal to itself without a comparison, so this is fast
    except RuntimeError:  # another tensor, whose comparison has no single answer
        return False


def _few(names: Sequence[str]) -> str:
    """Return the first name, and how many more there are."""
    unique = list(dict.fromkeys(names))
    return unique[0] + (f" and {len(unique) - 1} more" if len(unique) > 1 else "")
