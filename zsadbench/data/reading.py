"""Reads the images and masks of samples as their dataset's card says, and remembers what is odd about the files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from zsadbench.data import masks
from zsadbench.data.images import Header, Picture, read_header, read_picture, turn_upright
from zsadbench.data.masks import MaskFile
from zsadbench.data.pictures import Pictures
from zsadbench.datasets import Dataset, MaskRule, Oddity, Sample

DARK = 14  # bits: 16-bit files that all together use no more are read nearly black


class Reader:
    """Reads samples of one dataset. What it notes may be asked for once they are read; threads may share it."""

    def __init__(self, dataset: Dataset, samples: Iterable[Sample], pictures: Pictures | None = None) -> None:
        """`samples` are those that belong together: their masks decide for all whether images are turned upright.

        pictures: reads image files, and keeps them between runs.
        """
        self._dataset, self._card = dataset, dataset.card
        self._samples, self._pictures = tuple(samples), pictures
        self._odd: dict[str, dict[str, float]] = {}  # kind -> name of the sample -> what was measured
        self._shares: dict[str, float] = {}  # name of the sample -> share of the image that its mask covers

    def image(self, sample: Sample) -> np.ndarray:
        """Return the pixels of a sample, [h, w, 3] uint8. Raises DataError."""
        values, huge = self._card.value_range, self._card.huge
        if self._pictures is not None:
            return self.cut(sample, self._pictures.read(sample.image, values, huge))
        return self.cut(sample, read_picture(sample.image, values=values, huge=huge))

    def identity(self, sample: Sample) -> list[Any] | None:
        """Return what tells the pixels of a sample from all others, JSON values; None if that is not known.

        It is known of images that were read in this run or kept by an earlier one. Nothing is decoded, but what is odd
        about the file is noted as if it had been.
        """
        card = self._card
        seen = self._pictures.glance(sample.image, card.value_range, card.huge) if self._pictures is not None else None
        if seen is None:
            return None
        turned = self._noted(sample, seen.orientation, seen.deep)
        return [seen.content, card.value_range, sample.crop, seen.orientation if turned else 1]

    def cut(self, sample: Sample, picture: Picture) -> np.ndarray:
        """Return the pixels of a sample from the picture that its file holds, [h, w, 3] uint8."""
        turned = self._noted(sample, picture.orientation, picture.deep)
        return sample.cut(turn_upright(picture.pixels, picture.orientation) if turned else picture.pixels)

    def size(self, sample: Sample) -> tuple[int, int]:
        """Return (H, W) of the whole image, without decoding it. Raises DataError."""
        return self._size(read_header(sample.image, huge=self._card.huge))

    def mask(self, sample: Sample, rule: MaskRule) -> np.ndarray:
        """Return the foreground of a sample, [h, w] bool at native size. Raises DataError."""
        files = [masks.mask_file(path, rule, huge=self._card.huge) for path in sample.masks]
        return self.unite(sample, files, rule, read_header(sample.image, huge=self._card.huge))

    def unite(self, sample: Sample, files: Sequence[MaskFile], rule: MaskRule, header: Header) -> np.ndarray:
        """Return the foreground of a sample from the files of its masks, as `mask` does."""
        union = masks.unite(sample, files, rule, self._size(header), header.orientation)
        if sample.label == 1:
            name = self._dataset.sample_id(sample)
            self._shares[name] = float(union.mean())
            if not union.any():
                self._note("empty mask", name)
            if any(file.hidden for file in files):
                self._note("mask in alpha", name)
        return union

    def oddities(self, samples: Iterable[Sample]) -> dict[str, Oddity]:
        """Return what is odd about some samples, all of them read, by kind (`findings.of_pixels` tells it)."""
        names = [self._dataset.sample_id(sample) for sample in samples]
        found = {}
        for kind, seen in sorted(self._odd.items()):
            having = [name for name in names if name in seen]
            if having:
                found[kind] = Oddity(len(having), min(having), max(seen[name] for name in having))
        deep = found.pop("16 bits", None)
        if deep is not None and deep.value < 2**DARK:
            found["dark 16 bits"] = deep
        shares = {name: self._shares[name] for name in names if self._shares.get(name)}
        if shares and np.mean(list(shares.values())) > 0.5:
            found["wide masks"] = Oddity(len(shares), min(shares), float(np.mean(list(shares.values()))))
        return found

    def having(self, kind: str, samples: Iterable[Sample]) -> list[str]:
        """Return the names of those samples that have an oddity."""
        names = (
            self._shares if kind == "wide masks" else self._odd.get("16 bits" if kind == "dark 16 bits" else kind, {})
        )
        return [name for name in map(self._dataset.sample_id, samples) if name in names]

    @cached_property
    def _turns(self) -> bool:
        """Whether images are turned upright: not where the card says no, or where the first mask to tell contradicts.

        One rule for all samples, because one for each image would treat normal images, which have no mask, otherwise.
        """
        if not self._card.exif:
            return False
        for sample in self._samples:
            if sample.masks:
                header = read_header(sample.image, huge=self._card.huge)
                if header.orientation >= 5 and header.height != header.width:
                    mask = read_header(sample.masks[0], huge=self._card.huge)
                    return (mask.height, mask.width) != (header.height, header.width)
        return True

    def _size(self, header: Header) -> tuple[int, int]:
        turned = header.orientation >= 5 and self._turns
        return (header.width, header.height) if turned else (header.height, header.width)

    def _noted(self, sample: Sample, orientation: int, deep: tuple[int, int] | None) -> bool:
        """Note what is odd about the file of a sample, and tell whether its pixels are turned upright."""
        name, values = self._dataset.sample_id(sample), self._card.value_range
        if orientation != 1:
            self._note("turned" if self._turns else "not turned", name)
        if deep is not None and values is None:
            self._note("16 bits", name, deep[1])
        elif deep is not None and values is not None and (deep[0] < values[0] or deep[1] > values[1]):
            self._note("outside the range", name)
        return orientation != 1 and self._turns

    def _note(self, kind: str, name: str, value: float = 0.0) -> None:
        self._odd.setdefault(kind, {})[name] = value


def add(oddities: Iterable[Mapping[str, Oddity]]) -> dict[str, Oddity]:
    """Return the oddities of several categories together, by kind."""
    total: dict[str, Oddity] = {}
    for kind, new in (item for found in oddities for item in found.items()):
        old = total.get(kind, Oddity(0, new.first))
        total[kind] = Oddity(old.count + new.count, min(old.first, new.first), max(old.value, new.value))
    return total
