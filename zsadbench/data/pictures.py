"""Decoded image files, kept between runs by what the files hold.

Files are told apart by their digests, as they were when the run was planned. One that holds something else when it is
read is read all the same, but nothing of it is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from zsadbench.data.images import Picture, read_bytes, read_picture
from zsadbench.datasets import ValueRange
from zsadbench.support import environment, files, source
from zsadbench.support.store import Store


class Glance(NamedTuple):
    """What is known of an image file without its pixels."""

    content: str  # SHA-256 of the file
    deep: tuple[int, int] | None  # as in Picture
    orientation: int


class Pictures:
    """Reads image files as `read_picture` does, each content once in all runs that share a store."""

    def __init__(self, digests: Mapping[Path, str], store: Store) -> None:
        """`digests` has the SHA-256 of each file, "" where that is unknown."""
        self._digests = digests
        about = {
            "code": source.of_harness(("data/images.py",)),
            "made with": {name: environment.versions().get(name) for name in ("pillow", "opencv", "numpy")},
        }
        self._pixels, self._facts = (store.shelf({"kind": kind, **about}) for kind in ("images", "facts of images"))
        self._seen: dict[Path, Glance | None] = {}  # read in this run; None: not what its digest says

    def read(self, path: Path, values: ValueRange | None, huge: bool) -> Picture:
        """Return the picture of a file; arguments and errors are those of `read_picture`."""
        key = self._key(path, values, huge)
        if key is None:
            return read_picture(path, values=values, huge=huge)
        if (entry := self._pixels.get(key)) is not None:
            facts, pixels = entry
            deep = tuple(facts["deep"]) if facts["deep"] else None
            picture = Picture(pixels.reshape(facts["shape"]), facts["format"], deep, facts["orientation"])
        else:
            content = read_bytes(path)
            picture = read_picture(path, values=values, huge=huge, content=content)
            if hashlib.sha256(content).hexdigest() != self._digests[path]:
                self._seen[path] = None
                return picture
            told = {"deep": picture.deep, "orientation": picture.orientation}
            more = {"shape": picture.pixels.shape, "format": picture.format}
            self._pixels.put(key, told | more, np.ascontiguousarray(picture.pixels))
            self._facts.put(key, told, np.empty(0, np.uint8))
        self._seen[path] = Glance(self._digests[path], picture.deep, picture.orientation)
        return picture

    def glance(self, path: Path, values: ValueRange | None, huge: bool) -> Glance | None:
        """Return what is known of a file, decoding nothing; None if its content was never read, or has changed."""
        if path not in self._seen:
            key = self._key(path, values, huge)
            entry = self._facts.get(key) if key is not None else None
            if entry is None:
                return None
            deep = entry.facts["deep"]
            self._seen[path] = Glance(self._digests[path], tuple(deep) if deep else None, entry.facts["orientation"])
        return self._seen[path]

    def _key(self, path: Path, values: ValueRange | None, huge: bool) -> str | None:
        digest = self._digests.get(path)
        return files.fingerprint({"content": digest, "values": values, "huge": huge}) if digest else None
