"""BrainMRI: 253 slices with and without tumour, no masks: as on Kaggle, or rearranged (docs/datasets/brain.md).

The part that Bayes-PFL kept: xiaozhen228/Bayes-PFL@49ca9a9 dataset/datasets/BrainMRI.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from zsadbench.data import layouts
from zsadbench.data.adapters import TreeDataset
from zsadbench.datasets import DatasetCard, Sample, register

_INNER = "brain_tumor_dataset"  # Kaggle's archive has its folders once more beside it


@register
class BrainMRI(TreeDataset):
    """BrainMRI: the folders `yes` (tumour) and `no`, or AdaCLIP's copy."""

    nested: ClassVar = ("brain_tumor_dataset", "BrainMRI", "BrainMRI/brain_tumor_dataset", "brainmri", "archive")
    other_names: ClassVar = {"brain mri": ("brain_mri", "brain", "brain ct"), "brain ct": ("brain_mri", "brain")}
    cards: ClassVar = {
        "default": DatasetCard(
            title="BrainMRI",
            domain="medical",
            reference="Chakrabarty, Brain MRI images for brain tumor detection, Kaggle 2019",
            source="Kaggle navoneel/brain-mri-images-for-brain-tumor-detection",
            licence="unclear: not verified",
            image_level=True,
            pixel_level=False,
            folders=("BrainMRI", "brain_mri", "brain_tumor_dataset"),
            expected={"brain mri": (98, 155)},
            notes="No masks. Six .jpg files hold PNG; 25 files are copies of others. CLIP-AD's README links another "
            "set.",
        ),
        "bayespfl": DatasetCard(
            title="BrainMRI (Bayes-PFL)",
            domain="medical",
            reference="Chakrabarty, Brain MRI images for brain tumor detection, Kaggle 2019; Qu et al., CVPR 2025",
            source="Kaggle navoneel/brain-mri-images-for-brain-tumor-detection",
            licence="unclear: not verified",
            image_level=True,
            pixel_level=False,
            folders=("BrainMRI", "brain_mri", "brain_tumor_dataset"),
            nouns={"brain ct": "brain mri"},
            expected={"brain ct": (85, 68)},
            notes="Only .jpg of the normal and only .JPG of the tumour images: Bayes-PFL's script and list drop the "
            "other 100. That the paper's numbers used this part is likely, not proven.",
        ),
    }

    def find_folder(self, root: Path) -> Path:
        """Accept a folder with `yes` and `no`, but the inner one where there are two; or a rearranged one."""
        return layouts.find_top(
            root,
            self.nested,
            lambda top: not (top / _INNER).is_dir() and (_is_raw(top) or self.has_trees(top)),
            "the folders yes and no, or brain_mri/test",
        )

    def scan_folder(self) -> Iterator[Sample]:
        """Yield all images, or for `bayespfl` those with the suffix that its script looks for."""
        if not _is_raw(self.root):
            yield from super().scan_folder()
            return
        (category,) = self.card.expected
        for name, label, kept in (("no", 0, ".jpg"), ("yes", 1, ".JPG")):
            for image in layouts.images_in(self.root / name):
                if self.variant != "bayespfl" or image.suffix == kept:
                    yield Sample(image, None, 1 if label else 0, category)


def _is_raw(top: Path) -> bool:
    return (top / "yes").is_dir() and (top / "no").is_dir()
