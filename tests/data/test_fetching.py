"""`data fetch` against a local server: resuming, verifying, and what is left on the disk after each kind of failure."""

from __future__ import annotations

import hashlib
import io
import random
import re
import threading
import zipfile
from collections import namedtuple
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

import pytest
from PIL import Image

from zsadbench import datasets
from zsadbench.data import archives
from zsadbench.data import fetch as fetching
from zsadbench.data.fetch import Archive, FetchPlan, download, fetch, make_plan
from zsadbench.datasets import DatasetCard
from zsadbench.errors import DataError, FetchError, UnknownName, UsageError

CARD = DatasetCard(
    title="Tiles",
    domain="custom",
    reference="nobody",
    source="tests",
    licence="CC0",
    image_level=True,
    pixel_level=False,
)


def quiet(what, done, total):
    """Progress that nobody watches."""


class Served(NamedTuple):
    """One answer of the server."""

    asked: str | None  # the Range header
    sent: int  # bytes of the body


class Server(ThreadingHTTPServer):
    """Serves one file; `breaks` has the number of bytes after which each coming connection ends early."""

    content = b""
    ranges = True
    lengths = True
    status = 200
    location = ""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.breaks: list[int] = []
        self.served: list[Served] = []

    def url(self, name="tiles.zip"):
        return f"http://127.0.0.1:{self.server_address[1]}/{name}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, asked = self.server, self.headers.get("Range")
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and server.ranges else 0
        whole = len(server.content)
        body = server.content[start:]
        status = server.status if server.status != 200 else (416 if start >= whole > 0 else 206 if start else 200)
        sent = body[: server.breaks.pop(0)] if server.breaks else body
        sent = sent if status < 400 else b""
        server.served.append(Served(asked, len(sent)))
        self.send_response(status)
        if server.location:
            self.send_header("Location", server.location)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
        if server.lengths and status < 400:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, format, *arguments):
        pass


@pytest.fixture
def server(monkeypatch):
    """A running server; pauses between connections are skipped."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(fetching, "PAUSE", 0)
    server = Server()
    server.content = zipped({"yes/1.png": picture(1), "no/2.png": picture(2)})
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def picture(seed):
    file = io.BytesIO()
    Image.frombytes("RGB", (40, 30), random.Random(seed).randbytes(3600)).save(file, "PNG")
    return file.getvalue()


def zipped(files):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as opened:
        for name, content in files.items():
            opened.writestr(name, content)
    return file.getvalue()


def offer(server, **changes):
    digest = hashlib.sha256(server.content).hexdigest()
    return Archive(server.url(), f"sha256:{digest}", len(server.content))._replace(**changes)


def plan_of(server, tmp_path, **changes):
    return FetchPlan("tiles", CARD, (offer(server, **changes),), tmp_path / "data" / "tiles")


def tree(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_fetched_dataset_is_one_complete_folder(server, tmp_path):
    steps = []
    folder = fetch(plan_of(server, tmp_path), lambda *step: steps.append(step))
    assert folder == tmp_path / "data" / "tiles"
    assert tree(tmp_path / "data") == ["tiles/no/2.png", "tiles/yes/1.png"]
    whole = len(server.content)
    assert ("downloading tiles.zip", whole, whole) in steps and steps[-1][0] == "unpacking tiles.zip"


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_checksum_may_be_md5_or_sha256(server, tmp_path, algorithm):
    checksum = f"{algorithm}:{hashlib.new(algorithm, server.content).hexdigest()}"
    assert download(offer(server, checksum=checksum), tmp_path, quiet).read_bytes() == server.content


def test_broken_connection_is_resumed_and_no_byte_is_sent_twice(server, tmp_path):
    server.breaks = [1000, 2000]
    assert download(offer(server), tmp_path, quiet).read_bytes() == server.content
    assert [served.asked for served in server.served] == [None, "bytes=1000-", "bytes=3000-"]
    assert sum(served.sent for served in server.served) == len(server.content)


def test_later_call_goes_on_with_the_part_file(server, tmp_path):
    (tmp_path / "tiles.zip.part").write_bytes(server.content[:1500])
    assert download(offer(server), tmp_path, quiet).read_bytes() == server.content
    assert [served.asked for served in server.served] == ["bytes=1500-"]
    assert tree(tmp_path) == ["tiles.zip"]


def test_complete_part_file_is_only_verified(server, tmp_path):
    (tmp_path / "tiles.zip.part").write_bytes(server.content)
    assert download(offer(server), tmp_path, quiet).read_bytes() == server.content
    assert [served.sent for served in server.served] == [0], "the server answers 416: nothing is left to send"


def test_server_without_ranges_makes_it_start_over(server, tmp_path):
    server.ranges, server.breaks = False, [1000]
    assert download(offer(server), tmp_path, quiet).read_bytes() == server.content
    assert [served.sent for served in server.served] == [1000, len(server.content)]


def test_server_that_tells_no_length_is_verified_by_the_checksum(server, tmp_path):
    server.lengths = False
    assert download(offer(server, size=0), tmp_path, quiet).read_bytes() == server.content


def test_server_that_tells_no_length_may_send_no_more_than_the_card_says(server, tmp_path):
    server.lengths = False
    with pytest.raises(FetchError, match=r"more than 1000 bytes; expected 1000"):
        download(offer(server, size=1000), tmp_path, quiet)
    assert tree(tmp_path) == []


def test_server_that_tells_no_length_leaves_the_reserve_free(server, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    free = iter([2**40, archives.RESERVE])
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda path: usage(0, 0, next(free)))
    server.lengths = False
    with pytest.raises(FetchError, match="GB free"):
        download(offer(server, size=0), tmp_path, quiet)


def test_redirects_lead_to_web_addresses_alone(server, tmp_path):
    server.status, server.location = 302, "ftp://127.0.0.1/tiles.zip"
    with pytest.raises(FetchError, match=r"ftp://127\.0\.0\.1/tiles\.zip is no web address"):
        download(offer(server), tmp_path, quiet)
    assert len(server.served) == 1


def test_connections_that_bring_nothing_end_with_a_sentence_and_keep_the_part_file(server, tmp_path):
    server.breaks = [1000] + [0] * 99
    with pytest.raises(FetchError, match=r"1000 bytes are kept in .*tiles\.zip\.part"):
        download(offer(server), tmp_path, quiet)
    assert len(server.served) == 1 + fetching.ATTEMPTS
    server.breaks = []
    assert download(offer(server), tmp_path, quiet).read_bytes() == server.content
    assert server.served[-1] == Served("bytes=1000-", len(server.content) - 1000)


@pytest.mark.parametrize(("status", "connections"), [(404, 1), (403, 1), (503, fetching.ATTEMPTS)])
def test_refusal_of_the_server_is_a_sentence_and_only_its_own_trouble_is_tried_again(
    server, tmp_path, status, connections
):
    server.status = status
    with pytest.raises(FetchError, match=f"{status}"):
        download(offer(server), tmp_path, quiet)
    assert len(server.served) == connections


def test_no_server_is_a_sentence(server, tmp_path):
    archive = offer(server, url="http://127.0.0.1:9/tiles.zip")
    with pytest.raises(FetchError, match="cannot be downloaded"):
        download(archive, tmp_path, quiet)


def test_file_url_is_refused(tmp_path):
    with pytest.raises(FetchError, match="no web address"):
        download(Archive("file:///etc/passwd", "md5:0", 0), tmp_path, quiet)


def test_wrong_checksum_deletes_the_file_and_unpacks_nothing(server, tmp_path):
    with pytest.raises(FetchError, match=r"expected 00\. It was deleted"):
        fetch(plan_of(server, tmp_path, checksum="sha256:00"))
    assert tree(tmp_path) == []


def test_another_size_on_the_server_is_noticed_before_the_download(server, tmp_path):
    with pytest.raises(FetchError, match=f"has {len(server.content)} bytes; expected 7"):
        download(offer(server, size=7), tmp_path, quiet)
    assert tree(tmp_path) == []


def test_full_disk_is_noticed_before_the_download(server, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda path: usage(0, 0, archives.RESERVE + 10))
    with pytest.raises(FetchError, match="GB free"):
        fetch(plan_of(server, tmp_path))
    assert tree(tmp_path) == []


def test_disk_that_fills_up_while_writing_keeps_the_part_file(server, tmp_path, monkeypatch):
    def full(what, done, total):
        raise OSError(28, "No space left on device")

    with pytest.raises(FetchError, match=r"No space left on device.*Free some space"):
        fetch(plan_of(server, tmp_path), full)
    assert tree(tmp_path) == ["data/tiles.fetch/tiles.zip.part"]


def test_interrupted_download_is_kept_and_the_same_call_goes_on(server, tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "CHUNK", 512)

    def interrupt(what, done, total):
        if done > 1000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(plan_of(server, tmp_path), interrupt)
    assert tree(tmp_path) == ["data/tiles.fetch/tiles.zip.part"]
    fetch(plan_of(server, tmp_path))
    assert server.served[-1].asked == "bytes=1024-"
    assert tree(tmp_path) == ["data/tiles/no/2.png", "data/tiles/yes/1.png"]


def test_interrupted_unpacking_leaves_no_half_dataset_and_downloads_nothing_again(server, tmp_path, monkeypatch):
    def interrupted(archive, folder):
        (folder / "half.png").touch()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(archives, "extract", interrupted)
        fetch(plan_of(server, tmp_path))
    assert tree(tmp_path) == ["data/tiles.fetch/tiles.zip"]
    (tmp_path / "data/tiles.fetch/unpacked").mkdir()
    (tmp_path / "data/tiles.fetch/unpacked/half.png").touch()  # as a killed process would leave it
    fetch(plan_of(server, tmp_path))
    assert len(server.served) == 1 and tree(tmp_path) == ["data/tiles/no/2.png", "data/tiles/yes/1.png"]


def test_malicious_archive_leaves_nothing_outside_and_no_dataset(server, tmp_path):
    server.content = zipped({"a.png": b"x", "../../../escape": b"x"})
    with pytest.raises(FetchError, match="stay below"):
        fetch(plan_of(server, tmp_path))
    assert tree(tmp_path) == ["data/tiles.fetch/tiles.zip"]


def test_plan_names_the_licence_the_sizes_and_the_folder(tmp_path):
    plan = make_plan("visa", tmp_path)
    assert plan.folder == tmp_path / "visa"
    for words in ("VisA", "Licence: CC BY 4.0", "VisA_20220922.tar (1930 MB)", str(plan.folder)):
        assert words in plan.terms


def test_dataset_without_a_public_download_says_where_to_apply(tmp_path):
    with pytest.raises(UsageError, match=r"Get it here: mvtec\.com.*CC BY-NC-SA 4\.0"):
        make_plan("mvtec", tmp_path)


def test_unknown_name_missing_root_and_existing_folder_are_sentences(tmp_path):
    with pytest.raises(UnknownName, match="Did you mean 'visa'"):
        make_plan("viza", tmp_path)
    with pytest.raises(UsageError, match="--data-root"):
        make_plan("visa", None)
    (tmp_path / "VisA").mkdir()
    with pytest.raises(DataError, match="VisA is already there"):
        make_plan("visa", tmp_path)


def test_every_card_with_downloads_has_secure_addresses_checksums_and_a_clear_licence():
    cards = [listing.card for listing in datasets.available() if listing.card and listing.card.downloads]
    assert {"VisA", "KSDD", "KSDD2", "ISIC 2016"} <= {card.title for card in cards}
    for card in cards:
        assert "unclear" not in card.licence
        names = [Archive(*item).name for item in card.downloads]
        assert len(set(names)) == len(names)
        for url, checksum, size in card.downloads:
            assert url.startswith("https://") and size >= 0
            assert re.fullmatch(r"sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}", checksum)
