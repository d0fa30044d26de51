"""A report's content as one self-contained HTML file."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from zsadbench import __version__
from zsadbench.errors import MissingDependency, UsageError
from zsadbench.report.content import Content
from zsadbench.support import files
from zsadbench.support.texts import printable

FOLDER = Path(__file__).parent
INLINE = {"style": "page.css", "script": "page.js"}  # parts of the page that are no HTML


def render(content: Content) -> str:
    """Return the page; every text of the content is escaped, and nothing in it runs but our script.

    Raises MissingDependency without Jinja.
    """
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
        from markupsafe import Markup
    except ImportError as error:
        raise MissingDependency('reports need jinja2. Run: pip install "zsadbench[report]"') from error
    loader = FileSystemLoader(FOLDER)
    environment = Environment(
        autoescape=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
        loader=loader,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    inline = {name: (FOLDER / file).read_text(encoding="utf-8") for name, file in INLINE.items()}
    return environment.get_template("page.html").render(
        content=content,
        version=__version__,
        digests={name: Markup(_digest(text)) for name, text in inline.items()},
        **{name: Markup(text) for name, text in inline.items()},
    )


def _digest(text: str) -> str:
    """Return what a content security policy calls an inline script or style: no other one is let in."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def check_folder(folder: Path) -> None:
    """Raise UsageError where a page cannot be written into a folder, because that is a file."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out {folder} is a file; expected a folder, which gets index.html.")


def write(content: Content, folder: Path) -> Path:
    """Write the page as `index.html` into a folder, whole or not at all. Raises RecordError."""
    path = folder / "index.html"
    files.write_atomically(path, render(content))
    return path
