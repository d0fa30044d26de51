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
from zsadbench.methods import TrainableMethod

RULE = Path(__file__).with_suffix(".json")


def auxiliary(target: str) -> str:
    """Return the dataset that methods are trained on before they are tested on `target`, a name with its variant."""
    rule = _rule()
    found = rule.get(target.partition(".")[0], rule["*"])
    return rule["*"] if found == target else found


def has_seen(trained_on: Iterable[str], target: str) -> bool:
    """Tell whether a method trained on these datasets has seen the target, in any variant.

    Variants of one dataset share images, except for a target's own auxiliary dataset.
    """
    stem, disjoint = target.partition(".")[0], auxiliary(target)
    return any(name == target or (name.partition(".")[0] == stem and name != disjoint) for name in trained_on)


def preset_trained_on(method: type[TrainableMethod], dataset: str) -> str | None:
    """Return the first preset of a method that is trained on a dataset, None where there is none."""
    presets = method.presets.items()
    return next((name for name, config in presets if getattr(config, "trained_on", None) == dataset), None)


def suited(name: str, target: str) -> str:
    """Return the method "stem.preset" that a bare "stem" stands for on a target; any other name is kept as it is.

    Raises UnknownName or PluginError.
    """
    method, _, _ = methods.lookup(name)
    if "." in name or not issubclass(method, TrainableMethod):
        return name
    preset = preset_trained_on(method, auxiliary(target))
    return name if preset is None else f"{name}.{preset}"


@cache
def _rule() -> dict[str, str]:
    return dict(json.loads(RULE.read_text(encoding="utf-8")))
