"""Every code block of the README and of the docs runs as it stands, page by page, in one folder a page.

A block that cannot run here says so in the line above it: `<!-- not run: needs mvtec -->`. A block with a title is a
file that later blocks use; a `text` block after commands is what they print, with `...` for what may differ.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from zsadbench import datasets, methods
from zsadbench.cli.main import main
from zsadbench.support import plugins

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("*/README.md")), *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(
    r"^(?:<!-- (not run|exit code): ([^\n]+) -->\n)?```(\w+)(?: title=\"([^\n]+)\")?\n(.*?)^```$", re.M | re.S
)
OUTPUT = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: Path
    line: int
    language: str
    title: str  # the file that it is; "" for code that runs
    body: str
    not_run: bool = False
    exit_code: int = 0
    follows: bool = False  # nothing stands between it and the block before

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}, line {self.line}"


def blocks(page: Path) -> Iterator[Block]:
    text, end = page.read_text(encoding="utf-8"), 0
    for found in FENCE.finditer(text):
        mark, value, language, title, body = found.groups()
        line = text.count("\n", 0, found.start(3)) + 1
        code = int(value) if mark == "exit code" else 0
        follows = not text[end : found.start()].strip()
        yield Block(page, line, language, title or "", body, mark == "not run", code, follows)
        end = found.end()


def runs(block: Block) -> bool:
    return not block.not_run and bool(block.title or block.language in ("python", "bash"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The page's own folder, as the current one; plugins that are written there are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    for contract in (methods, datasets):
        monkeypatch.setattr(contract, "__path__", list(contract.__path__))
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]
            plugins._registered.pop(name, None)


@pytest.mark.parametrize("page", [page for page in PAGES if any(map(runs, blocks(page)))], ids=lambda page: page.stem)
def test_every_block_of_the_page_runs(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    printed, names = "", {"__name__": "__main__"}
    for block in blocks(page):
        if block.language == "python":
            compile(block.body, str(block), "exec")
        if block.language == "text" and block.follows and printed:
            assert doctest.OutputChecker().check_output(block.body, printed, OUTPUT), f"{block}: printed\n{printed}"
        printed = ""
        if not runs(block):
            continue
        if block.title:
            Path(block.title).parent.mkdir(parents=True, exist_ok=True)
            Path(block.title).write_text(block.body, encoding="utf-8")
        elif block.language == "python":
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(block.body, str(block), "exec"), names)
        else:
            printed = run_commands(block, monkeypatch)


def run_commands(block: Block, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run the commands of a block in this process; returns what they print."""
    printed = io.StringIO()
    for command in filter(str.strip, block.body.replace("\\\n", " ").splitlines()):
        words = shlex.split(command, comments=True)
        plain = words[:1] == ["zsadbench"] and not {"|", ">", "&&", "||"} & set(words)
        assert plain, f"{block}: cannot run {command!r} here; mark the block <!-- not run: REASON -->"
        monkeypatch.setattr(sys, "argv", words)
        code: object = 0
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            try:
                main()
            except SystemExit as end:
                code = end.code or 0
        assert code == block.exit_code, f"{block}: {command!r} ended with {code}:\n{printed.getvalue()}"
    return printed.getvalue()


def test_a_newcomers_pages_are_among_those_that_run() -> None:
    running = {page.stem for page in PAGES if any(map(runs, blocks(page)))}
    assert {"README", "index", "own-images", "add-a-method", "add-a-trained-method", "add-a-dataset"} <= running


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_command_hides_in_a_block_that_is_not_collected(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    collected = {(block.language, block.body) for block in blocks(page)}
    assert len(collected) <= text.count("```") / 2 == text.count("\n```") / 2 + text.startswith("```") / 2
    hidden = re.findall(r"^ {4,}(?:\$ )?zsadbench .*|^```(?:sh|shell|console|py)\b.*", text, re.M)
    assert not hidden, f"{page}: write commands as ```bash blocks: {hidden}"
