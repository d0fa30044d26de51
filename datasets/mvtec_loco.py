"""MVTec LOCO AD, official layout: a folder of masks for every anomalous image (docs/datasets/mvtec.md)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from zsadbench.data import layouts
from zsadbench.data.adapters import IndexedDataset
from zsadbench.datasets import DatasetCard, Sample, register
from zsadbench.errors import DataError

_CATEGORIES = ("breakfast_box", "juice_bottle", "pushpins", "screw_bag", "splicing_connectors")


@register
class MVTecLOCO(IndexedDataset):
    """MVTec LOCO: logical and structural anomalies; an image's masks are united."""

    cards: ClassVar = {
        "default": DatasetCard(
            title="MVTec LOCO",
            domain="industrial",
            reference="Bergmann et al., IJCV 2022",
            source="mvtec.com, page 'MVTec LOCO AD' (a form)",
            licence="CC BY-NC-SA 4.0",
            image_level=True,
            pixel_level=True,
            mask_rule="gt0",
            folders=("mvtec_loco_anomaly_detection", "mvtec_loco_ad", "MVTecLOCO"),
            notes="Mask values tell the kind of defect, not how strong it is. The paper's saturated PRO is not "
            "computed. The validation images are left out. Unverified: the counts.",
        ),
    }

    def find_folder(self, root: Path) -> Path:
        """Accept a folder with at least one category folder that has a test split."""
        return layouts.find_top(
            root,
            ("mvtec_loco_anomaly_detection", "mvtec_loco"),
            lambda top: any((top / category / "test").is_dir() for category in _CATEGORIES),
            "category folders such as breakfast_box/test",
        )

    def scan_folder(self) -> Iterator[Sample]:
        """Yield the samples of the categories that are there."""
        for category in _CATEGORIES:
            folder = self.root / category
            yield from layouts.normal_samples(folder / "train" / "good", category, "train")
            yield from layouts.normal_samples(folder / "test" / "good", category, "test")
            for path in layouts.folders_in(folder / "test"):
                if path.name != "good":
                    yield from _anomalous(path, folder / "ground_truth" / path.name, category)

    def scan(self) -> Iterator[Sample]:
        """Yield the samples; an index file names only one of an image's masks (ADer), so that its folder counts."""
        for sample in super().scan():
            if isinstance(sample.mask, Path):
                yield replace(sample, mask=tuple(layouts.images_in(sample.mask.parent)))
            else:
                yield sample


def _anomalous(images: Path, masks: Path, category: str) -> Iterator[Sample]:
    """Yield the images of one kind of defect. Raises DataError for one without masks, or masks without an image."""
    stems = layouts.by_stem(layouts.images_in(images))
    odd = min(set(stems) ^ {folder.name for folder in layouts.folders_in(masks)}, default=None)
    if odd is not None:
        raise DataError(f"{images} and {masks} do not agree on {odd}; expected a folder of masks for every image.")
    for stem, image in stems.items():
        found = tuple(layouts.images_in(masks / stem))
        if not found:
            raise DataError(f"{masks / stem} holds no mask; expected at least one, such as 000.png.")
        yield Sample(image, found, 1, category, images.name)
