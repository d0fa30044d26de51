"""A report's content as one self-contained HTML file."""

from __future__ import annotations

from pathlib import Path

from zsadbench import __version__
from zsadbench.errors import MissingDependency, UsageError
from zsadbench.report.content import Content
from zsadbench.support import files

FOLDER = Path(__file__).parent


def render(content: Content) -> str:
    """Return the page; every text of the content is escaped. Raises MissingDependency without Jinja."""
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError as error:
        raise MissingDependency('reports need jinja2. Run: pip install "zsadbench[report]"') from error
    loader = FileSystemLoader(FOLDER)
    environment = Environment(
        autoescape=True, loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html").render(content=content, version=__version__)


def check_folder(folder: Path) -> None:
    """Raise UsageError where a page cannot be written into a folder, because that is a file."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out {folder} is a file; expected a folder, which gets index.html.")


def write(content: Content, folder: Path) -> Path:
    """Write the page as `index.html` into a folder, whole or not at all. Raises RecordError."""
    path = folder / "index.html"
    files.write_atomically(path, render(content))
    return path
