"""What the user asks a run for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zsadbench.methods import Method
from zsadbench.protocol import Protocol
from zsadbench.support import preset_names


@dataclass(frozen=True)
class Request:
    """What the user asked for; the fields are the options of `zsadbench run`."""

    methods: Sequence[str]
    datasets: Sequence[str]
    out: Path
    data_root: Path | None = None
    encoder: str | None = None  # replaces the encoder of every method that has one
    weights: Mapping[str, Path] = field(default_factory=dict)  # encoder SPEC -> local file
    checkpoints: Mapping[str, Path | Sequence[Path]] = field(default_factory=dict)  # method name -> trained weights
    checkpoint_folder: Path | None = None  # where our own checkpoints are looked for and trained; None: nowhere
    train: bool = True  # train what is missing there, if its data is at hand
    changes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # method name -> option -> value
    categories: Sequence[str] = ()
    device: str = "cpu"
    protocol: Protocol = field(default_factory=Protocol)
    allow_leak: bool = False
    fail_fast: bool = False
    save_maps: bool = False  # keep finished maps for figures; no part of the protocol
    overwrite: bool = False  # replace finished cells of other options or another protocol

    def checkpoint(self, name: str | None) -> tuple[Path, ...]:
        """Return what is given as trained weights under a name: files, or our own folder; nothing if nothing is."""
        given = self.checkpoints.get(name or "", ())
        return (given,) if isinstance(given, Path) else tuple(given)

    def checkpoint_name(self, method: type[Method], full: str) -> str | None:
        """Return the name under which a method's trained weights are given: of several, that of its preset wins."""
        names = preset_names.aliases(method.presets, full)
        return next((name for name in names if name in self.checkpoints), None)

    def changes_of(self, method: type[Method], full: str) -> dict[str, Any]:
        """Return the changed options of a method under its full name; those of its preset win."""
        names = reversed(preset_names.aliases(method.presets, full))
        return {option: value for name in names for option, value in self.changes.get(name, {}).items()}
