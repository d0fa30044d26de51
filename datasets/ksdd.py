"""KolektorSDD ("KSDD", "SDD"): whole images, strips of them, or rearranged copies. Not KolektorSDD2, which is `ksdd2`.

Layouts: docs/datasets/kolektor.md. The strips: caoyunkang/AdaCLIP@dcddb86 data_preprocess/sdd-pre.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from zsadbench.data import layouts
from zsadbench.data.adapters import TreeDataset, labelled_by_mask
from zsadbench.data.masks import foreground, raw_mask
from zsadbench.datasets import DatasetCard, Sample, register

_REARRANGED = ("adaclip", "anomalyclip")


@register
class KSDD(TreeDataset):
    """KolektorSDD: every image has a label file beside it, and only its pixels tell whether the image is defective."""

    nested: ClassVar = ("KolektorSDD", "KolektorSDD-boxes", "KSDD", "SDD_anomaly_detection", "SDD")
    other_names: ClassVar = {"SDD": ("electrical commutators", "electrical_commutators")}
    cards: ClassVar = {
        "default": DatasetCard(
            title="KSDD",
            domain="industrial",
            reference="Tabernik et al., Journal of Intelligent Manufacturing 2019",
            source="vicos.si/resources/kolektorsdd (KolektorSDD.zip, fine annotation)",
            licence="CC BY-NC-SA 4.0",
            image_level=True,
            pixel_level=True,
            mask_rule="gt0",
            folders=("KolektorSDD", "KSDD"),
            nouns={"ksdd": "electrical commutator"},
            expected={"ksdd": (347, 52)},
            downloads=(  # checksum: anomalib, src/anomalib/data/datamodules/image/kolektor.py
                (
                    "https://go.vicos.si/kolektorsdd",
                    "sha256:65dc621693418585de9c4467d1340ea7958a6181816f0dc2883a1e8b61f9d4dc",
                    0,
                ),
            ),
            notes="Whole images. The Dual-Anchor supplementary describes this set under the name and citation of "
            "KSDD2. Box annotations are another archive, KolektorSDD-boxes. Unverified: the values that label "
            "files have.",
        ),
        "strips3": DatasetCard(
            title="KSDD (strips)",
            domain="industrial",
            reference="Tabernik et al., Journal of Intelligent Manufacturing 2019",
            source="vicos.si/resources/kolektorsdd (KolektorSDD.zip, fine annotation)",
            licence="CC BY-NC-SA 4.0",
            image_level=True,
            pixel_level=True,
            mask_rule="gt0",
            folders=("KolektorSDD", "KSDD"),
            nouns={"ksdd": "electrical commutator"},
            expected={"ksdd": (1143, 54)},
            notes="Every image in three strips of equal height, as AdaCLIP and DRA cut them, but all normal strips "
            "are tested. Not KSDD2.",
        ),
        "adaclip": DatasetCard(
            title="KSDD (AdaCLIP)",
            domain="industrial",
            reference="Tabernik et al., Journal of Intelligent Manufacturing 2019; strips by DRA and AdaCLIP",
            source="made by AdaCLIP's sdd-pre.py from KolektorSDD.zip",
            licence="CC BY-NC-SA 4.0",
            image_level=True,
            pixel_level=True,
            mask_rule="gt0",
            folders=("SDD_anomaly_detection",),
            nouns={"SDD": "electrical commutator"},
            expected={"SDD": (286, 54)},
            notes="Which 286 normal strips are tested depends on the order of files on the disk of whoever made it. "
            "Not KSDD2.",
        ),
        "anomalyclip": DatasetCard(
            title="KSDD (AnomalyCLIP)",
            domain="industrial",
            reference="Tabernik et al., Journal of Intelligent Manufacturing 2019; copy of Zhou et al., ICLR 2024",
            source="github.com/zqhang/AnomalyCLIP, 'SDD' of its README",
            licence="CC BY-NC-SA 4.0",
            image_level=True,
            pixel_level=True,
            mask_rule="gt0",
            folders=("SDD",),
            nouns={"SDD": "electrical commutator"},
            notes="Unverified: its counts. The paper says 181 normal and 74 anomalous; 281 would fit strips with box "
            "annotation (AnomalyCLIP#19). Not KSDD2.",
        ),
    }

    def find_folder(self, root: Path) -> Path:
        """Accept a folder with item folders (kos01), or a rearranged one."""
        if self.variant in _REARRANGED:
            return super().find_folder(root)
        return layouts.find_top(root, self.nested, lambda top: bool(_items(top)), "item folders such as kos01")

    def scan_folder(self) -> Iterator[Sample]:
        """Yield the whole images, their strips, or the rearranged copy's samples."""
        if self.variant in _REARRANGED:
            yield from super().scan_folder()
            return
        for folder in _items(self.root):
            for image, mask in layouts.pairs_in(folder, "_label").items():
                if self.variant == "strips3":
                    yield from _strips(image, mask)
                else:
                    yield labelled_by_mask(image, mask, "ksdd", self.card.mask_rule)


def _items(top: Path) -> list[Path]:
    return [folder for folder in layouts.folders_in(top) if folder.name.startswith("kos")]


def _strips(image: Path, mask: Path) -> Iterator[Sample]:
    """Yield the three strips of an image; one is anomalous if any of its own pixels is marked."""
    marked = foreground(raw_mask(mask, "gt0"), "gt0")
    height, width = marked.shape
    for i in range(3):
        top, bottom = height * i // 3, height * (i + 1) // 3
        anomalous = marked[top:bottom].any()
        yield Sample(image, mask if anomalous else None, 1 if anomalous else 0, "ksdd", crop=(top, 0, bottom, width))
