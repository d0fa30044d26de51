"""The site builds strictly, from every page, and asks no other host for anything."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from zsadbench import datasets, methods

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    pytest.importorskip("material", reason='needs mkdocs-material: pip install ".[docs]"')
    pytest.importorskip("mkdocstrings", reason='needs mkdocstrings: pip install ".[docs]"')
    from mkdocs.commands import build
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    build.build(load_config(str(ROOT / "mkdocs.yml"), strict=True, site_dir=str(folder)))
    return folder


def test_every_page_is_built(site: Path) -> None:
    for page in DOCS.rglob("*.md"):
        assert (site / page.relative_to(DOCS)).with_suffix(".html").is_file()


def test_the_site_loads_nothing_from_another_host(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        remote = re.findall(r"<(?:script|img|iframe)[^>]+src=\"?(?:https?:)?//[^>]+", text)
        remote += re.findall(r"<link[^>]+rel=\"?(?:stylesheet|preconnect)[^>]+//[^>]+", text)
        assert not remote, f"{page.name}: {remote}"


def test_no_mark_of_a_generated_table_is_left(site: Path) -> None:
    assert not [page for page in site.rglob("*.html") if "generated:" in page.read_text(encoding="utf-8")]


def test_examples_of_docstrings_are_blocks_of_code(site: Path) -> None:
    text = (site / "api.html").read_text(encoding="utf-8")
    assert text.count("&gt;&gt;&gt;") > 20
    assert not re.findall(r"<p>[^<]*&gt;&gt;&gt;", text)


def test_every_method_and_dataset_has_its_page() -> None:
    names = {listing.name for listing in methods.available()}
    assert {page.stem for page in (DOCS / "methods").glob("*.md")} == names | {"index"}
    marks = [re.findall(r"<!-- generated: dataset (\w+) -->", page.read_text()) for page in DOCS.glob("datasets/*.md")]
    found = sorted(stem for stems in marks for stem in stems)
    assert found == sorted({listing.name.partition(".")[0] for listing in datasets.available()})
