"""How an image file becomes a method's input: a frozen value, and the one place where images are decoded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

from zsadbench.errors import DataError
from zsadbench.support.meters import CORES

if TYPE_CHECKING:
    from torch import Tensor

DECODERS = min(8, CORES)  # decoding threads; PIL releases the interpreter lock while it decodes
# Of OpenAI's CLIP and of ImageNet (docs/encoders.md#preprocessing).
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "GIF", "WEBP", "PPM")  # tried by content; PIL's others start programs (EPS)
_LOOKALIKES = {  # first bytes of what people find under an image's name after a broken download
    b"version https://git-lfs": "a Git LFS pointer; get the real file with `git lfs pull`",
    b"<!DOCTYPE": "a web page",
    b"<html": "a web page",
    b"PK\x03\x04": "a zip archive",
    b"\x93NUMPY": "a NumPy array",
}


@dataclass(frozen=True)
class Preprocess:
    """Resize and normalisation of a method's input images; methods that agree on it share decoded images."""

    size: int  # input side S in pixels; images become S x S
    resize: Literal["squash", "shortest"] = "squash"  # squash: to S x S; shortest: keep the aspect, crop the centre
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"  # PIL filters, antialiased by nature
    mean: tuple[float, float, float] = CLIP_MEAN  # of channels scaled to 0..1
    std: tuple[float, float, float] = CLIP_STD


def decode_image(path: Path) -> np.ndarray:
    """Return an image as RGB, [H, W, 3] uint8, whatever its file holds; the suffix is not trusted.

    Grey, palette, CMYK and 1-bit images are converted; alpha is dropped (HeadCT: it would tell the label,
    docs/datasets/brain.md); 16-bit values keep their high byte. An EXIF orientation is not applied, because masks carry
    none. Of an animation the first frame counts. Raises DataError naming the file.
    """
    image = open_image(path)
    with _reading(path):
        if image.mode.startswith("I"):
            return np.repeat(_high_byte(image, path)[:, :, None], 3, axis=2)
        if image.mode == "F":
            raise DataError(f"{path} holds floating-point pixels, whose range is unknown; save it with 8 or 16 bits.")
        if image.mode == "P":
            image = image.convert("RGBA")  # PIL warns about palettes with transparency when they go to RGB directly
        return np.array(image if image.mode == "RGB" else image.convert("RGB"))  # converting would only copy


def open_image(path: Path) -> Image.Image:
    """Return a fully decoded image in its own mode. Raises DataError naming the file and what is wrong with it."""
    with _opened(path) as image:
        image.load()
        return image


def read_header(path: Path) -> tuple[int, int, str]:
    """Return (height, width, format) of an image, such as (600, 800, "PNG"), without decoding it. Raises DataError."""
    with _opened(path) as image:
        return image.height, image.width, image.format or ""


def apply(preprocess: Preprocess, image: np.ndarray) -> Tensor:
    """Resize, scale to 0..1 and normalise an image [H, W, 3] uint8: returns [3, S, S] float32.

    Equals torchvision's Resize (on PIL images), CenterCrop, ToTensor and Normalize bit for bit (docs/encoders.md).
    """
    import torch  # here, because listing methods imports this module and must stay fast

    resized = np.asarray(_resize(Image.fromarray(image), preprocess)).transpose(2, 0, 1)
    pixels = np.empty(resized.shape, np.float32)
    np.divide(resized, np.float32(255), out=pixels)
    pixels -= np.array(preprocess.mean, np.float32)[:, None, None]
    pixels /= np.array(preprocess.std, np.float32)[:, None, None]
    return torch.from_numpy(pixels)


def _resize(image: Image.Image, preprocess: Preprocess) -> Image.Image:
    side, resample = preprocess.size, _FILTERS[preprocess.interpolation]
    if preprocess.resize == "squash":
        return image.resize((side, side), resample)
    shorter = min(image.size)
    width, height = (side if length == shorter else int(side * length / shorter) for length in image.size)
    left, top = round((width - side) / 2), round((height - side) / 2)
    return image.resize((width, height), resample).crop((left, top, left + side, top + side))


def _high_byte(image: Image.Image, path: Path) -> np.ndarray:
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise DataError(f"{path} holds values {values.min()}..{values.max()}; expected at most 16 bits, 0..65535.")
    return (values >> 8).astype(np.uint8)  # as PIL does for 16-bit RGB


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    with _reading(path), Image.open(path, formats=_FORMATS) as image:
        limit = Image.MAX_IMAGE_PIXELS  # PIL itself warns above it, and raises above twice as many
        if limit is not None and image.width * image.height > limit:
            raise DataError(
                f"{path} is too large to decode safely: its header says {image.width} x {image.height} pixels; "
                f"expected at most {limit} in all."
            )
        yield image


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn whatever goes wrong while a file is decoded into a DataError that names it."""
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; expected an image.") from None
    except UnidentifiedImageError:
        raise DataError(f"{path} is not an image: it is {_describe(path)}.") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{path} is too large to decode safely: {error}") from None
    except Exception as error:  # a damaged file makes PIL's decoders raise nearly anything, even SyntaxError
        raise DataError(f"{path} cannot be decoded, it may be truncated: {type(error).__name__}: {error}") from error


def _describe(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(32)
    if not start:
        return "empty (0 bytes)"
    known = (what for magic, what in _LOOKALIKES.items() if start.startswith(magic))
    return next(known, f"a file that starts with {start[:8]!r}")
