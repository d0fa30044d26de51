"""What a user may call a method: the names of its presets, and what may be left out of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Presets = Mapping[str, Any]  # preset name -> options, as a method class declares them


def trained_presets(presets: Presets, family: str = "") -> dict[str, Any]:
    """Return the presets with trained weights, by name: all, or those of a family, such as "sdp_plus_visa"."""
    trained = {name: config for name, config in presets.items() if getattr(config, "trained_on", "")}
    if not family:
        return trained
    return {
        name: config for name, config in trained.items() if name == f"{family}_{config.trained_on.partition('.')[0]}"
    }


def aliases(presets: Presets, full: str) -> tuple[str, ...]:
    """Return what a user may call a method of this full name, the narrowest first: preset, its family, the stem."""
    stem, _, preset = full.partition(".")
    preset = preset or next(iter(presets))
    family = preset.rpartition("_")[0]
    named = family and family not in presets and preset in trained_presets(presets, family)
    return f"{stem}.{preset}", *([f"{stem}.{family}"] if named else []), stem
