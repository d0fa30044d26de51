"""What all figures share: their style, their colours, and how a picture becomes a file."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from zsadbench.errors import MissingDependency, UnknownName
from zsadbench.support import files

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("png", "pdf", "svg")
TEXT_WIDTH = 6.9  # inches: both columns of a page in CVPR's style
# Okabe and Ito's colours, told apart with any colour vision (jfly.uni-koeln.de/color), without their light yellow.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "h")  # 11 and 7 colours: the pair repeats after 77
HEAT = "inferno"  # perceptually uniform, and brighter is more anomalous in grey too
_STYLE: Any = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "0.88",
    "grid.linewidth": 0.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.2,
    "lines.markersize": 5,
    "legend.frameon": False,
    "text.parse_math": False,  # names come from files: a dollar sign is a dollar sign
    "pdf.fonttype": 42,  # TrueType: publishers refuse Type 3
    "svg.hashsalt": "zsadbench",  # equal figures give equal bytes
}
_NO_DATE = {"png": {"Software": None}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}


class Drawing(NamedTuple):
    """A figure and the caption that says how to read it."""

    figure: Figure
    caption: str


@contextmanager
def style() -> Iterator[None]:
    """Draw with the project's fonts and lines while the block runs. Raises MissingDependency without matplotlib."""
    try:
        import matplotlib
    except ImportError as error:
        raise MissingDependency('figures need matplotlib. Run: pip install "zsadbench[report]"') from error
    with matplotlib.rc_context(_STYLE):
        yield


def marker(index: int) -> dict[str, Any]:
    """Return colour and marker of the n-th of several series; both differ, so that grey print can be read too."""
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}


def encode(figure: Figure, format: str, dpi: int = 300) -> bytes:
    """Return a figure as a file's bytes: "png", "pdf" or "svg". Equal figures give equal bytes."""
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, format=format, dpi=dpi, metadata=_NO_DATE[format])
    return buffer.getvalue()


def check_suffix(path: Path) -> str:
    """Return the format that a file's suffix names. Raises UnknownName."""
    format = path.suffix.lower().removeprefix(".")
    if format not in FORMATS:
        raise UnknownName("figure format", path.suffix, [f".{known}" for known in FORMATS])
    return format


def save(figure: Figure, path: Path) -> None:
    """Write a figure in the format of its suffix, whole or not at all. Raises UnknownName, RecordError."""
    files.write_atomically(path, encode(figure, check_suffix(path)))
