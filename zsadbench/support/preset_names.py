"""What a user may call a method: the names of its presets, and what may be left out of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zsadbench.support import variants

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
    """Return what a user may call a method of this full name, the narrowest first: preset, its family, the stem.

    A variant is called as the method whose options it changes.
    """
    stem, preset = variants.stem_of(full), variants.preset_of(full) or next(iter(presets))
    family = _family(presets, preset)
    return f"{stem}.{preset}", *([f"{stem}.{family}"] if family else []), stem


def _family(presets: Presets, preset: str) -> str:
    """Return the family of a preset, also of one that a paper used on one dataset, such as "sdp_plus_visa_headct"."""
    trained_on = getattr(presets[preset], "trained_on", "").partition(".")[0]
    family = preset.partition(f"_{trained_on}")[0] if trained_on else ""
    return family if family != preset and family not in presets and trained_presets(presets, family) else ""
