"""How fast files become input images, what shortcuts would change, and whether decoding threads keep an encoder busy.

    python benchmarks/decoding.py --repeat 10 --encoder-ms 60

Images are drawn (smooth texture with grain) and written to a temporary folder: a PNG of 1024 x 1024 and a JPEG of
1500 x 1000, the sizes of MVTec AD and VisA. All ways take turns in one thread; its processor time counts, the least of
the repeats, so that other work on the machine hardly matters. Differences are in steps of the resized 8-bit image,
before normalisation; the plain loop is the reference.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from PIL import Image
from tabulate import tabulate
from torch.nn import functional
from torchvision import transforms

from zsadbench.data.images import CLIP_MEAN, CLIP_STD, Preprocess, apply, decode_image
from zsadbench.running.loading import ChunkStore

SIDES = (518, 240)  # inputs of ViT-L/14-336 as most papers use it, and of ViT-B/16-plus
FILES = {"PNG 1024x1024": ("a.png", (1024, 1024)), "JPEG 1500x1000": ("a.jpg", (1500, 1000))}
CHUNK, CHUNKS = 8, 6  # images a pass, passes


class Way(NamedTuple):
    """One way from a file to a normalised tensor, and to the resized image [S, S, 3] uint8 that it normalises."""

    name: str
    tensor: Callable[[Path, int], torch.Tensor]
    resized: Callable[[Path, int], np.ndarray]


def draw(size: tuple[int, int], seed: int) -> Image.Image:
    """Return a smooth colourful texture with the grain of a camera."""
    rng = np.random.default_rng(seed)
    smooth = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    return Image.fromarray((np.asarray(smooth) + rng.normal(0, 4, (size[1], size[0], 3))).clip(0, 255).astype(np.uint8))


def plain_resized(path: Path, side: int) -> np.ndarray:
    """Open, convert, resize."""
    return np.array(Image.open(path).convert("RGB").resize((side, side), Image.Resampling.BICUBIC))


def draft_resized(path: Path, side: int) -> np.ndarray:
    """Let the JPEG decoder halve the image as long as it stays at least as large as the target (PIL's draft mode)."""
    image = Image.open(path)
    image.draft("RGB", (side, side))
    return np.array(image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC))


def rough_draft_resized(path: Path, side: int) -> np.ndarray:
    """Halve it once more than that."""
    image = Image.open(path)
    image.draft("RGB", (side // 2, side // 2))
    return np.array(image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC))


def torch_resized(path: Path, side: int) -> np.ndarray:
    """Resize with torch's antialiased bicubic kernel for bytes."""
    pixels = torch.from_numpy(decode_image(path)).permute(2, 0, 1)[None]
    small = functional.interpolate(pixels, size=(side, side), mode="bicubic", antialias=True)
    return small[0].permute(1, 2, 0).numpy()


def opencv_resized(path: Path, side: int) -> np.ndarray:
    """Resize with OpenCV's bicubic filter, which does not antialias."""
    return cv2.resize(decode_image(path), (side, side), interpolation=cv2.INTER_CUBIC)


def normalised(resized: Callable[[Path, int], np.ndarray]) -> Callable[[Path, int], torch.Tensor]:
    """Finish one of the above as papers' loaders do: ToTensor and Normalize."""
    finish = transforms.Compose([transforms.ToTensor(), transforms.Normalize(CLIP_MEAN, CLIP_STD)])
    return lambda path, side: finish(resized(path, side))


def ours(path: Path, side: int) -> torch.Tensor:
    """Return what a method gets."""
    return apply(Preprocess(side), decode_image(path))


WAYS = (
    Way("plain PIL loop", normalised(plain_resized), plain_resized),
    Way("zsadbench", ours, plain_resized),
    Way("draft, at least the target", normalised(draft_resized), draft_resized),
    Way("draft, half the target", normalised(rough_draft_resized), rough_draft_resized),
    Way("torch resize", normalised(torch_resized), torch_resized),
    Way("OpenCV resize", normalised(opencv_resized), opencv_resized),
)


def speed_rows(folder: Path, repeat: int) -> list[tuple[str, ...]]:
    """Measure every way on every file and side."""
    rows = []
    for title, (name, size) in FILES.items():
        path = folder / name
        draw(size, 0).save(path, quality=92)
        for side in SIDES:
            seconds = {way.name: float("inf") for way in WAYS}
            for _ in range(repeat):
                for way in WAYS:
                    start = time.thread_time()
                    way.tensor(path, side)
                    seconds[way.name] = min(seconds[way.name], time.thread_time() - start)
            reference = WAYS[0].tensor(path, side)
            for way in WAYS:
                steps = np.abs(way.resized(path, side).astype(int) - plain_resized(path, side))
                equal = "yes" if torch.equal(way.tensor(path, side), reference) else "no"
                rate, ratio = 1 / seconds[way.name], seconds[WAYS[0].name] / seconds[way.name]
                changes = (f"{steps.max()}", f"{steps.mean():.3f}", f"{(steps > 0).mean():.1%}")
                rows.append((title, f"{side}", way.name, f"{rate:.1f}", f"{ratio:.2f}", equal, *changes))
    return rows


def busy_rows(folder: Path, encoder_ms: float) -> list[tuple[str, ...]]:
    """Walk chunks as the runner does, with an encoder that sleeps as a GPU would, and report how busy it is."""
    paths = [folder / f"{i}.jpg" for i in range(CHUNK * CHUNKS)]
    for i, path in enumerate(paths):
        draw(FILES["JPEG 1500x1000"][1], i).save(path, quality=92)
    rows = []
    for threads in (0, 1, 2, 4):
        with ThreadPoolExecutor(max(threads, 1)) as pool:
            store = ChunkStore(paths, CHUNK, lambda path: ours(path, 518), pool=pool if threads else None)
            start = time.perf_counter()
            for chunk in range(len(store)):
                store.prefetch(chunk)
                store.prefetch(chunk + 1)
                store.images(chunk)
                time.sleep(encoder_ms / 1000 * CHUNK)
            wall = time.perf_counter() - start
        encoding = encoder_ms / 1000 * len(paths)
        rows.append((f"{threads}", f"{len(paths) / wall:.1f}", f"{encoding / wall:.0%}"))
    return rows


def main() -> None:
    """Measure and print two Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=10)
    parser.add_argument("--encoder-ms", type=float, default=60.0, help="what an encoder takes for one image")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        headers = ("file", "side", "way", "images/s/core", "speed-up", "equal", "largest step", "mean step", "changed")
        print(tabulate(speed_rows(Path(folder), options.repeat), headers, tablefmt="pipe", disable_numparse=True))
        print(f"\nJPEG 1500x1000 to 518, {CHUNK} images a pass, an encoder of {options.encoder_ms:g} ms an image:\n")
        headers = ("decoding threads", "images/s", "encoder busy")
        print(tabulate(busy_rows(Path(folder), options.encoder_ms), headers, tablefmt="pipe", disable_numparse=True))


if __name__ == "__main__":
    main()
