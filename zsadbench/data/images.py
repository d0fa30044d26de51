"""How an image file becomes a method's input: a frozen value, and the one place where images are decoded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from zsadbench.datasets import ValueRange
from zsadbench.errors import DataError
from zsadbench.support.meters import CORES

if TYPE_CHECKING:
    from torch import Tensor

DECODERS = min(8, CORES)  # decoding threads; PIL releases the interpreter lock while it decodes
# Of OpenAI's CLIP and of ImageNet (docs/encoders.md#preprocessing).
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_ORIENTATION = 0x0112  # the EXIF tag
_TRUST = "If you trust your own images, read them as folder.huge=PATH."
_LIMIT_LOCK = Lock()  # PIL's limit of pixels is global
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
    """Resize and normalisation of a method's input images; methods that agree on it share decoded images.

    Example:

        >>> import zsadbench as z
        >>> z.Preprocess(size=224, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)).resize
        'squash'
    """

    size: int  # input side S in pixels; images become S x S
    resize: Literal["squash", "shortest"] = "squash"  # squash: to S x S; shortest: keep the aspect, crop the centre
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"  # PIL filters, antialiased by nature
    mean: tuple[float, float, float] = CLIP_MEAN  # of channels scaled to 0..1
    std: tuple[float, float, float] = CLIP_STD


class Picture(NamedTuple):
    """What opening an image file once tells."""

    pixels: np.ndarray  # [H, W, 3] uint8, as stored
    format: str  # of the content, such as "PNG"
    deep: tuple[int, int] | None  # lowest and highest value of a file of 16 bits a channel; None for other files
    orientation: int  # as EXIF tells it, 1 to 8; 1: upright, or nothing told


class Header(NamedTuple):
    """What the first bytes of an image file tell."""

    height: int  # as stored
    width: int
    format: str
    orientation: int


def decode_image(path: Path) -> np.ndarray:
    """Return an image as RGB, [H, W, 3] uint8, as it is stored, whatever its file holds. See `read_picture`."""
    return read_picture(path).pixels


def read_picture(
    path: Path, *, values: ValueRange | None = None, huge: bool = False, content: bytes | None = None
) -> Picture:
    """Read an image as RGB; the suffix is not trusted. `content` are the bytes of the file, if they are known.

    Grey, palette, CMYK and 1-bit images are converted; alpha is dropped (HeadCT: it would tell the label,
    docs/datasets/brain.md). 16-bit values keep their high byte, or are scaled from the range `values` = (black, white),
    which cuts what lies outside. Of an animation the first frame counts. With `huge` PIL's limit of pixels does not
    hold. An EXIF orientation is told, not applied (but PIL itself turns TIFF files). Raises DataError naming the file.
    """
    with _opened(path, huge, content) as image:
        orientation, wide = _orientation(image), _is_wide(image)
        with _reading(path):
            image.load()
            return Picture(*_pixels(image, wide, values, path, content), orientation)


def convert_image(image: Image.Image, name: str) -> np.ndarray:
    """Return a PIL image as RGB, [H, W, 3] uint8, as `decode_image` does a file. Raises DataError with its name."""
    with _reading(Path(name)):
        image.load()
        return _pixels(image, False, None, Path(name), None)[0]


def read_bytes(path: Path) -> bytes:
    """Return what an image file holds, as `read_picture` takes it. Raises DataError naming the file."""
    with _reading(path):
        return path.read_bytes()


def open_image(path: Path, *, huge: bool = False, content: bytes | None = None) -> Image.Image:
    """Return a fully decoded image in its own mode. Raises DataError naming the file and what is wrong with it."""
    with _opened(path, huge, content) as image:
        image.load()
        return image


def read_header(path: Path, *, huge: bool = False) -> Header:
    """Return what an image's header tells, such as (600, 800, "PNG", 1), without decoding it. Raises DataError."""
    with _opened(path, huge) as image:
        return Header(image.height, image.width, image.format or "", _orientation(image))


def turn_upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Return an image or mask [H, W, ...] as its EXIF orientation (1 to 8) says it is to be shown."""
    if orientation >= 5:  # stored with rows and columns exchanged
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


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


def _pixels(
    image: Image.Image, wide: bool, values: ValueRange | None, path: Path, content: bytes | None
) -> tuple[np.ndarray, str, tuple[int, int] | None]:
    """Return the pixels, the format and the values of a deep file; `wide`: several channels of 16 bits."""
    told = image.format or ""
    if image.mode.startswith("I"):
        deep = np.asarray(image)
        low, high = int(deep.min()), int(deep.max())
        return np.repeat(_eight_bits(deep, values, (low, high), path)[:, :, None], 3, axis=2), told, (low, high)
    if image.mode == "F":
        raise DataError(f"{path} holds floating-point pixels, whose range is unknown; save it with 8 or 16 bits.")
    if wide and values is not None:  # PIL keeps the high bytes only
        deep = _wide(path, content)
        low, high = int(deep.min()), int(deep.max())
        return _eight_bits(deep, values, (low, high), path), told, (low, high)
    if image.mode == "P":
        image = image.convert("RGBA")  # PIL warns about palettes with transparency when they go to RGB directly
    pixels = np.array(image if image.mode == "RGB" else image.convert("RGB"))  # converting would only copy
    return pixels, told, (int(pixels.min()) << 8, int(pixels.max()) << 8 | 255) if wide else None


def _eight_bits(deep: np.ndarray, values: ValueRange | None, found: tuple[int, int], path: Path) -> np.ndarray:
    if values is None:
        if found[0] < 0 or found[1] > 65535:
            raise DataError(
                f"{path} holds values {found[0]}..{found[1]}; expected at most 16 bits, 0..65535. Own images may have "
                f"another range: folder.range-{found[0]}-{found[1]}=PATH, for all of them."
            )
        return (deep >> 8).astype(np.uint8)  # as PIL does for 16-bit RGB
    black, white = values
    above = deep.astype(np.int64).clip(black, white) - black
    return (above * 256 // (white - black + 1)).astype(np.uint8)


def _wide(path: Path, content: bytes | None) -> np.ndarray:
    """Return the colours of a file with 16 bits a channel, [H, W, 3] uint16, without alpha."""
    import cv2

    found = cv2.imdecode(np.frombuffer(content or path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    if found is None or found.dtype != np.uint16 or found.ndim != 3:
        raise DataError(f"{path} has several channels of 16 bits, which cannot be read here; save it as 16-bit PNG.")
    return np.asarray(found[:, :, 2::-1])


def _is_wide(image: Image.Image) -> bool:
    """Tell whether an image, not yet decoded, has several channels of 16 bits: PIL's decoders know it as "RGB;16B"."""
    return not image.mode.startswith("I") and any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of an image, not yet decoded; 1 for TIFF, which PIL turns by itself."""
    if image.format == "TIFF" or not image.info.keys() & {"exif", "xmp", "XML:com.adobe.xmp"}:
        return 1
    try:
        told = Image.Image.getexif(image).get(_ORIENTATION)  # PNG's own would decode the whole image for it
    except Exception:  # damaged metadata are no reason to refuse pixels
        return 1
    return told if isinstance(told, int) and 1 <= told <= 8 else 1


@contextmanager
def _opened(path: Path, huge: bool = False, content: bytes | None = None) -> Iterator[Image.Image]:
    with _reading(path), _open(path if content is None else BytesIO(content), huge) as image:
        limit = _pixel_limit()
        if not huge and limit is not None and image.width * image.height > limit:
            raise DataError(
                f"{path} is too large to decode safely: its header says {image.width} x {image.height} pixels; "
                f"expected at most {limit} in all. {_TRUST}"
            )
        yield image


def _open(source: Path | BytesIO, huge: bool) -> Image.Image:
    if not huge:
        return Image.open(source, formats=_FORMATS)  # PIL warns above its limit, and raises above twice as many
    with _LIMIT_LOCK:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(source, formats=_FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _pixel_limit() -> int | None:
    with _LIMIT_LOCK:  # never the moment in which another thread has lifted it
        return Image.MAX_IMAGE_PIXELS


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
        raise DataError(f"{path} is too large to decode safely: {error} {_TRUST}") from None
    except Exception as error:  # a damaged file makes PIL's decoders raise nearly anything, even SyntaxError
        raise DataError(f"{path} cannot be decoded, it may be truncated: {type(error).__name__}: {error}") from error


def _describe(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(32)
    if not start:
        return "empty (0 bytes)"
    known = (what for magic, what in _LOOKALIKES.items() if start.startswith(magic))
    return next(known, f"a file that starts with {start[:8]!r}")
