"""The cross-dataset rule: what a trained method learns from before it is tested on a dataset, and what it has seen.

The rule itself is data, `cross_dataset.json`: target -> auxiliary dataset, "*" for all the others. It is the papers'
protocol (train on VisA to test on MVTec AD, on MVTec AD to test on the rest); an auxiliary dataset and its target share
no image.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from zsadbench import methods
from zsadbench.errors import MissingDependency, PluginError, ZsadError
from zsadbench.methods import Method, MethodListing
from zsadbench.records import published
from zsadbench.support import preset_names, variants

RULE = Path(__file__).with_suffix(".json")


def auxiliary(target: str) -> str:
    """Return the dataset that methods are trained on before they are tested on `target`, a name with its variant."""
    rule = _rule()
    found = rule.get(target.partition(".")[0], rule["*"])
    return rule["*"] if found == target else found


def has_seen(trained_on: Iterable[str], target: str, *, own: bool = False) -> bool:
    """Tell from their names whether a method trained on these datasets has seen the target, in any variant.

    Variants of one dataset share images, except for a target's own auxiliary dataset. own: the target's name stands
    for images of the user, of which others of that kind know nothing.
    """
    if own:
        return target in trained_on
    stem, disjoint = target.partition(".")[0], auxiliary(target)
    return any(name == target or (name.partition(".")[0] == stem and name != disjoint) for name in trained_on)


def preset_trained_on(method: type[Method], dataset: str, family: str = "") -> str | None:
    """Return the first preset of a method, or of a family of its presets, that is trained on a dataset; None: none."""
    presets = preset_names.trained_presets(method.presets, family).items()
    return next((name for name, config in presets if config.trained_on == dataset), None)


def suited(name: str, target: str) -> str:
    """Return the method "stem.preset" that "stem" or "stem.family" stands for on a target.

    It is the preset that its paper used there, else the first that is trained on the auxiliary dataset. A preset's own
    name is kept, and so is a stem whose default preset needs no training. Raises UnknownName or PluginError.
    """
    base, own = variants.split(name)
    if own:
        return variants.join(suited(base, target), own)
    method, _, config = methods.lookup(name)
    stem, _, family = name.partition(".")
    if family in method.presets:
        return name
    printed = published.presets().get((name, target))
    if printed is not None:
        return printed
    if not getattr(config, "trained_on", None):
        return name
    preset = preset_trained_on(method, auxiliary(target), family)
    return name if preset is None else f"{stem}.{preset}"


def everything() -> tuple[list[str], dict[str, ZsadError]]:
    """Return what "all" stands for, every method that can be imported; and of the others by name why they cannot.

    One whose default preset needs no training stands there twice if others do, such as clip_ad and clip_ad.sdp_plus.
    """
    names: list[str] = []
    problems: dict[str, ZsadError] = {}
    for listing in methods.available():
        try:
            names += _names(listing)
        except (PluginError, MissingDependency) as error:
            problems[listing.name] = error
    return names, problems


def _names(listing: MethodListing) -> list[str]:
    if listing.card is None:
        raise PluginError(listing.problem)
    method, full, config = methods.lookup(listing.name)
    trained = preset_names.trained_presets(method.presets)
    if not trained or getattr(config, "trained_on", None):
        return [full]
    family = preset_names.aliases(method.presets, f"{full}.{next(iter(trained))}")[-2]  # if it has one
    return [full, family]


@cache
def _rule() -> dict[str, str]:
    return dict(json.loads(RULE.read_text(encoding="utf-8")))
