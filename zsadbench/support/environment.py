"""What a number was made with beside code, data and weights: versions and the device. Part of records and of cards."""

from __future__ import annotations

import platform
from functools import cache
from importlib import metadata

from zsadbench import __version__
from zsadbench.support.meters import device_name

PACKAGES = {  # printed name -> distributions that may bring it: what decodes images, encodes them, or computes numbers
    "numpy": ("numpy",),
    "opencv": ("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless", "opencv-contrib-python"),
    "pillow": ("pillow",),
    "torchvision": ("torchvision",),
    "open_clip": ("open_clip_torch",),
    "timm": ("timm",),
    "scikit-learn": ("scikit-learn",),
}


def describe(device: str) -> dict[str, str]:
    """Return the versions of zsadbench, Python and the packages that decide numbers, and the device's name."""
    import torch

    own = {"zsadbench": __version__, "python": platform.python_version(), "torch": torch.__version__}
    return {**own, **versions(), "device": device_name(device)}


@cache
def versions() -> dict[str, str]:
    """Return the versions of the packages beside torch that decide numbers, by the names of PACKAGES."""
    found: dict[str, str] = {}
    for name, distributions in PACKAGES.items():
        for distribution in distributions:
            try:
                found.setdefault(name, metadata.version(distribution))
            except metadata.PackageNotFoundError:
                continue
    return found
