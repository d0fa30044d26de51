"""The HTML report: complete, self-contained, escaped, and usable in a browser."""

from __future__ import annotations

import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from commands import zsadbench

from zsadbench.errors import RecordError
from zsadbench.records import results
from zsadbench.records.record import ImageScore
from zsadbench.records.results import Record
from zsadbench.report import content, page

pytest.importorskip("jinja2", reason="reports need the extra `report`")
pytest.importorskip("matplotlib", reason="reports need the extra `report`")

HOSTILE = "<script>window.hacked=1;\"'&<img src=x onerror=window.hacked=1>"
PROTOCOL = {"eval_size": "input", "mask_rule": "bilinear_half", "aupro_limit": 0.3, "seed": 0, "limit": None}


def record(method: str, category: str, auroc: float, **changes) -> Record:
    facts = {
        "title": method.upper(),
        "fingerprint": method + category,
        "image": {"auroc": auroc},
        "setting": {"scope": "image", "shots": 0, "trained_on": [], "leak": False, "checkpoint_sha256": "c" * 64},
        "protocol": PROTOCOL,
        "options": {"gain": 2.0},
        "encoder": {"spec": "tiny", "size": 96, "sha256": "e" * 64},
        "data": {"samples": 3, "sha256": "d" * 64},
        "environment": {"zsadbench": "0.1.0", "torch": "2.9", "device": "a GPU"},
    }
    return Record(method, "toys", category, "done", **(facts | changes))


def write_run(folder: Path, *records: Record) -> Path:
    scores = [ImageScore(HOSTILE, 0, "", 0.9), ImageScore("b.png", 1, "dent", 0.5), ImageScore("c.png", 1, "", 0.95)]
    for one in records:
        results.save(folder, one, {results.SCORES: results.encode_scores(scores)} if one.status == "done" else {})
    return folder


@pytest.fixture
def run(tmp_path) -> Path:
    qualities = {"low": 0.5, "top": 0.9, "mid": 0.7}
    done = [record(name, category, value) for category in ("bolt", HOSTILE) for name, value in qualities.items()]
    failed = Record("broken", "toys", "bolt", "failed", error=HOSTILE, title=HOSTILE)
    return write_run(tmp_path / "mine", *done, record("low", "nut", 0.25), failed)


class Page(HTMLParser):
    """Collects tags, attributes and texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.handlers: list[str] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value or "" for name, value in attributes if name in ("src", "href")]
        self.handlers += [name for name, _ in attributes if name.startswith("on")]

    def handle_data(self, data):
        self.texts.append(data.strip())


def read(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def test_a_file_given_as_the_folder_is_called_so(run, tmp_path):
    (tmp_path / "report.html").write_text("mine")
    done = zsadbench("report", run, "--out", tmp_path / "report.html")
    assert done.returncode == 2 and "report.html is a file; expected a folder, which gets index.html" in done.stderr
    assert (tmp_path / "report.html").read_text() == "mine"


def test_the_page_has_tables_categories_failures_and_provenance(run, tmp_path):
    done = zsadbench("report", run, "--out", tmp_path / "out", "--no-intervals")
    assert done.returncode == 0 and done.stdout.strip() == str(tmp_path / "out/index.html")
    found = read(tmp_path / "out/index.html")
    for text in ("LOW", "bolt", "41.7", "90.0", "gain=2.0", "e" * 64, "c" * 64, "d" * 64, "a GPU", "bilinear_half"):
        assert any(text in one for one in found.texts), text
    assert found.tags.count("details") == 3 and found.tags.count("summary") == 3
    assert "broken on bolt: failed." in " ".join(found.texts)
    assert "[2 of 3 categories]" in " ".join(found.texts), "a mean says what it lacks"


def test_nothing_on_the_page_comes_from_the_network(run, tmp_path):
    path = page.write(content.collect(run, intervals=False), tmp_path)
    found, text = read(path), path.read_text(encoding="utf-8")
    assert found.links and all(link.startswith(("data:", "#")) for link in found.links)
    assert "default-src 'none'" in text and "@import" not in text and "url(" not in text


def test_everything_from_a_file_is_escaped(run, tmp_path):
    found = read(page.write(content.collect(run, intervals=False), tmp_path))
    assert found.tags.count("script") == 1, "the page's own"
    assert found.handlers == []
    assert sum(HOSTILE in text for text in found.texts) >= 4, "category, sample, title and error"


def test_two_runs_are_compared_by_their_means(run, tmp_path):
    other = write_run(tmp_path / "other", *(record("top", name, 0.8) for name in ("bolt", HOSTILE)))
    rows = content.collect(run, other, intervals=False).comparison.rows
    assert [[cell.text for cell in row] for row in rows] == [["toys", "TOP", "Image AUROC", "90.0", "80.0", "-10.00"]]
    mixed = write_run(tmp_path / "mixed", record("top", "bolt", 0.8, protocol=PROTOCOL | {"seed": 1}))
    told = content.collect(run, mixed, intervals=False)
    assert told.comparison is None and "seed is 0 and 1" in told.incomparable


def test_what_a_run_lacks_is_told_in_its_place(run, tmp_path):
    pixels = write_run(tmp_path / "pixels", record("top", "bolt", 0.9, pixel={"auroc": 0.5}))
    told = content.collect(pixels)
    assert any(note.startswith("No intervals: ") for note in told.notes)
    assert all(picture.caption.startswith("No figure: ") for picture in told.pictures), "one method has no ranks"
    empty = write_run(tmp_path / "empty", replace(record("top", "bolt", 0.9), status="failed"))
    with pytest.raises(RecordError, match="no finished results"):
        content.collect(empty)


def test_a_browser_sorts_a_column_opens_a_category_and_reports_no_error(run, tmp_path):
    webdriver = pytest.importorskip("selenium.webdriver", reason="the page is tried in a browser with selenium")
    programs = shutil.which("chromium"), shutil.which("chromedriver")
    if None in programs:
        pytest.skip("chromium and chromedriver are not installed")
    from selenium.webdriver.chrome.service import Service

    path = page.write(content.collect(run, intervals=False), tmp_path)
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(programs[1]))
    try:
        browser.get(path.as_uri())
        buttons = browser.find_elements("css selector", "#d1 > .wide th button")
        image_auroc = next(button for button in buttons if button.text.startswith("Image AUROC"))
        for order in (["TOP", "MID", "LOW", HOSTILE], ["LOW", "MID", "TOP", HOSTILE]):
            image_auroc.click()
            cells = browser.find_elements("css selector", "#d1 > .wide td:first-child")
            assert [cell.text.partition(" [")[0] for cell in cells] == order, "what has no number stays below"
        category = browser.find_element("css selector", "details")
        assert category.get_attribute("open") is None
        category.find_element("css selector", "summary").click()
        assert category.get_attribute("open") is not None
        assert category.find_element("css selector", "td").is_displayed()
        assert browser.execute_script("return window.hacked") is None
        assert browser.get_log("browser") == []
    finally:
        browser.quit()
