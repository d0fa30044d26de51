"""Whatever the sources and the pages cite is there: pages and their sections, files of the checkout."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("zsadbench", "methods", "datasets", "tests", "benchmarks", "scripts", "results", "docs", ".github")
TEXT = {".py", ".md", ".toml", ".json", ".yml", ".yaml", ".csv", ".css", ".cff", ".html", ".js", ""}
PAGE = re.compile(r"docs/[\w/-]+\.md(?:#([\w-]+))?")
FILE = re.compile(r"(?<![\w/.-])(?:zsadbench|methods|datasets|tests|benchmarks|scripts|results|docs)/[\w/.-]*\w\.\w+")

PATTERNS = (Path(__file__), ROOT / "docs/hooks.py")  # these hold patterns of citations


def sources() -> Iterator[Path]:
    """Every text file of the checkout that is ours."""
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*")] + list(ROOT.iterdir())
    yield from sorted(path for path in found if path.is_file() and path.suffix in TEXT and path not in PATTERNS)


@cache
def text_of(path: Path) -> str:
    text = path.read_text(encoding="utf-8", errors="ignore")
    return re.sub(r"<!-- table: .*?<!-- end of table -->", "", text, flags=re.S)  # its marks cite nothing


@cache
def headings(page: Path) -> dict[str, str]:
    """Heading -> anchor, as the site makes it, of a page."""
    titles = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text_of(page), flags=re.S), re.M)
    return {title: re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in titles}


def own_page(path: Path) -> list[Path]:
    """The page of the method that a file of `methods/` or its test belongs to."""
    parts = path.relative_to(ROOT).parts
    name = parts[1].removesuffix(".py") if parts[0] == "methods" else path.stem.removeprefix("test_")
    pages = [page for page in (ROOT / "docs/methods").glob("*.md") if name.startswith(page.stem)]
    return pages if parts[0] == "methods" or parts[:2] == ("tests", "methods") else []


def faults(path: Path) -> Iterator[str]:
    """Pages that a file cites and that are not there, and sections that no page of its has."""
    text, pages = text_of(path), own_page(path)
    for cited in PAGE.finditer(text):
        page = ROOT / cited[0].partition("#")[0]
        if re.search(r"/[A-Z]+\.md", cited[0]):  # a placeholder, such as docs/methods/NAME.md
            continue
        pages.append(page)
        if not page.is_file() or (cited[1] and cited[1] not in headings(page).values()):
            yield cited[0]
    known = tuple(title for page in pages if page.is_file() for title in headings(page))
    for mark in re.finditer(r"^(.*?)§(.*)$", text, re.M):
        of_a_paper = mark[2][:1].isdigit() and re.search(r"(paper|Demsar.*) $", mark[1])
        if not of_a_paper and not mark[2].startswith(known):
            yield f"§{mark[2]}"


def test_every_page_and_section_that_a_file_cites_is_there() -> None:
    found = {str(path.relative_to(ROOT)): list(faults(path)) for path in sources()}
    assert not {path: cited for path, cited in found.items() if cited}


def test_nothing_cites_pages_that_no_user_has() -> None:
    left = [path for path in sources() if re.search(r"\bspecs(/| §)", text_of(path))]
    assert not left


def test_files_that_pages_and_docstrings_name_exist() -> None:
    missing = []
    for path in sources():
        if path.suffix not in (".py", ".md") or path.is_relative_to(ROOT / "tests"):
            continue
        made = set(re.findall(r'title="([^"]+)"', text_of(path)))  # files that a page's own blocks write
        for named in FILE.findall(re.sub(r"\]\([^)]*\)", "", text_of(path))):  # links are another test
            placeholder = re.search(r"[A-Z]{3,}", named.replace("README", ""))
            if named not in made and not placeholder and not (ROOT / named).exists():
                missing.append(f"{path.relative_to(ROOT)}: {named}")
    assert not missing


def test_relative_links_of_readmes_lead_somewhere() -> None:
    for path in [ROOT / "README.md", *ROOT.glob("*/README.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#: ]+)(?:#[^)]*)?\)", text_of(path)):
            assert (path.parent / target).exists(), f"{path} links to {target}"


def test_every_environment_variable_is_on_the_page_of_the_command_line() -> None:
    code = "".join(
        text_of(path) for path in sources() if path.suffix == ".py" and path.is_relative_to(ROOT / "zsadbench")
    )
    assert set(re.findall(r"ZSADBENCH_[A-Z]+", code)) == set(
        re.findall(r"ZSADBENCH_[A-Z]+", text_of(ROOT / "docs/cli.md"))
    )


def test_no_file_names_a_package_registry() -> None:
    hosts = [f"{name}.org" for name in ("pypi", "pythonhosted", "anaconda", "npmjs")]
    named = [path for path in sources() if any(host in text_of(path) for host in hosts)]
    assert not named
