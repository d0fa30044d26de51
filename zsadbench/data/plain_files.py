"""Finding many files below one folder quickly: each folder is listed once, instead of asking for each file."""

from __future__ import annotations

import os
from pathlib import Path


class PlainFiles:
    """The files below a root that are plain to see: no link, and reached by no link that leads out of the root."""

    def __init__(self, root: Path) -> None:
        """List nothing yet."""
        self._root, self._real = root, Path(os.path.realpath(root))
        self._folders: dict[str, dict[str, Path]] = {}

    def find(self, text: str) -> Path | None:
        """Return the file that a path relative to the root names as the disk spells it; None for any other text."""
        folder, _, name = text.rpartition("/")
        if folder not in self._folders:
            self._folders[folder] = self._list(folder)
        return self._folders[folder].get(name)

    def _list(self, folder: str) -> dict[str, Path]:
        """Return the plain files of a folder by name; none if it is written in a roundabout way."""
        whole = self._root / folder
        if folder not in ("", os.path.normpath(folder)) or not Path(os.path.realpath(whole)).is_relative_to(self._real):
            return {}
        try:
            with os.scandir(whole) as entries:
                plain = {entry.name for entry in entries if entry.is_file(follow_symlinks=False)}
            return {path.name: path for path in whole.iterdir() if path.name in plain}
        except OSError:
            return {}
