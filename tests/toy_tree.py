"""A small MVTec-like tree of real image files, for tests that run the whole harness."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_tree(
    root: Path, categories=("bottle", "grid"), good: int = 5, bad: int = 4, side: int = 64, seed: int = 0
) -> Path:
    """Write an MVTec-like tree: train/good, test/good and two defects, brighter squares with their masks."""
    rng = np.random.default_rng(seed)
    for category in categories:
        for folder, count in (("train/good", 3), ("test/good", good), ("test/hole", bad), ("test/crack", bad)):
            for i in range(count):
                image = rng.integers(60, 120, (side, side, 3), dtype=np.uint8)
                mask = np.zeros((side, side), np.uint8)
                if folder in ("test/hole", "test/crack"):
                    row, column = rng.integers(0, side * 3 // 4, 2)
                    mask[row : row + side // 4, column : column + side // 4] = 255
                    image[mask > 0] += 100
                    save(root / category / "ground_truth" / Path(folder).name / f"{i:03}_mask.png", mask)
                save(root / category / folder / f"{i:03}.png", image)
    return root


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
