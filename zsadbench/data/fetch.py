"""`zsadbench data fetch`: download a dataset where its card names public archives; elsewhere say where to apply.

A download goes on where it stopped, is verified before it is unpacked, and becomes the dataset's folder in one step.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from zsadbench import datasets
from zsadbench.data import archives
from zsadbench.datasets import DatasetCard
from zsadbench.errors import DataError, FetchError, UnknownName, UsageError
from zsadbench.support import files

Progress = Callable[[str, int, int], None]  # called with (what, done, total) in bytes; a total of 0 is unknown

ATTEMPTS = 5  # connections in a row that bring nothing
PAUSE = 2.0  # seconds before another connection; doubles each time that nothing came
TIMEOUT = 60.0  # seconds without a byte


class Archive(NamedTuple):
    """One file to download."""

    url: str
    checksum: str  # "sha256:..." or "md5:..."
    size: int  # bytes; 0 is unknown

    @property
    def name(self) -> str:
        """The file's name, from the URL."""
        return PurePosixPath(urlsplit(self.url).path).name or "archive"


class FetchPlan(NamedTuple):
    """What to download, and the folder that it becomes."""

    name: str
    card: DatasetCard
    archives: tuple[Archive, ...]
    folder: Path

    @property
    def terms(self) -> str:
        """What the user should know before: the licence and what will be downloaded."""
        sizes = (f" ({archive.size / 1e6:.0f} MB)" if archive.size else "" for archive in self.archives)
        files = "\n".join(f"  {archive.url}{size}" for archive, size in zip(self.archives, sizes, strict=True))
        return (
            f"{self.card.title}, {self.card.reference}\nLicence: {self.card.licence}. Terms: {self.card.source}\n"
            f"To download, verify and unpack into {self.folder}:\n{files}"
        )


def make_plan(name: str, data_root: Path | None) -> FetchPlan:
    """Look a dataset up; nothing is downloaded, and no plugin imported.

    Raises UnknownName, UsageError (no direct download: it says where to apply) or DataError (it is already there).
    """
    cards = {listing.name: listing.card for listing in datasets.available()}
    if name not in cards:
        raise UnknownName("dataset", name, cards)
    card, stem = cards[name], name.partition(".")[0]
    if card is None:
        raise UsageError(f"the plugin of {name} cannot be read; see `zsadbench list datasets`.")
    if not card.downloads:
        raise UsageError(
            f"{name} ({card.title}) has no direct download that is public and allowed by its licence. Get it here: "
            f"{card.source}. Licence: {card.licence}. Unpack it into DIR/{stem} and say --data-root DIR."
        )
    if data_root is None:
        raise UsageError(
            f"{name}: got no data root; expected --data-root DIR or ZSADBENCH_DATA: it becomes DIR/{stem}."
        )
    for other in dict.fromkeys((stem, *card.folders)):
        if (data_root / other).exists():
            raise DataError(f"{data_root / other} is already there. Check it with `zsadbench data check {name}`.")
    return FetchPlan(name, card, tuple(Archive(*download) for download in card.downloads), data_root / stem)


def fetch(plan: FetchPlan, progress: Progress | None = None) -> Path:
    """Download, verify and unpack a dataset; returns its folder.

    Everything lies in `FOLDER.fetch` until it is complete; interrupted, the same call goes on from there. Raises
    FetchError.
    """
    work = plan.folder.with_name(f"{plan.folder.name}.fetch")
    unpacked = work / "unpacked"
    report = progress or (lambda what, done, total: None)
    try:
        work.mkdir(parents=True, exist_ok=True)
        paths = [download(archive, work, report) for archive in plan.archives]
        shutil.rmtree(unpacked, ignore_errors=True)  # what a killed process left
        unpacked.mkdir()
        try:
            for path in paths:
                report(f"unpacking {path.name}", 0, 0)
                archives.extract(path, unpacked)
            unpacked.rename(plan.folder)
        finally:
            shutil.rmtree(unpacked, ignore_errors=True)
        shutil.rmtree(work)
    except OSError as error:
        raise FetchError(
            f"{plan.folder} could not be written: {error.strerror or error}. {files.advice(work, error)}"
        ) from error
    return plan.folder


def download(archive: Archive, folder: Path, progress: Progress) -> Path:
    """Download one file into a folder and verify it; returns its path.

    While it is incomplete it is called `NAME.part`; the next call asks the server for the rest. Raises FetchError.
    """
    _check_address(archive.url)
    target = folder / archive.name
    if target.exists():  # verified before; unpacking was interrupted
        return target
    part = target.with_name(f"{archive.name}.part")
    _receive_all(archive, part, progress)
    progress(f"verifying {archive.name}", 0, 0)
    algorithm, _, expected = archive.checksum.partition(":")
    with part.open("rb") as file:
        found = hashlib.file_digest(file, algorithm).hexdigest()
    if found != expected:
        size = part.stat().st_size
        part.unlink()
        raise FetchError(
            f"{archive.url} arrived with {size} bytes and {algorithm} {found}; expected {expected}. It was deleted: "
            "run the same command again, and if that does not help, the file on the server has changed."
        )
    return part.replace(target)


def _receive_all(archive: Archive, part: Path, progress: Progress) -> None:
    """Connect until the file is complete, or until several connections in a row brought nothing."""
    failures = 0
    while True:
        before = _size(part)
        try:
            _receive(archive, part, progress)
            return
        except (HTTPException, URLError, TimeoutError, ConnectionError) as error:
            if (
                isinstance(error, HTTPError) and error.code == 416 and before
            ):  # "range not satisfiable": nothing is left
                return
            failures = 0 if _size(part) > before else failures + 1
            if failures == ATTEMPTS or (isinstance(error, HTTPError) and error.code < 500):
                raise FetchError(
                    f"{archive.url} cannot be downloaded: {error}. {_size(part)} bytes are kept in {part}; run the "
                    "same command again to go on."
                ) from None
            time.sleep(PAUSE * 2**failures)


def _receive(archive: Archive, part: Path, progress: Progress) -> None:
    """Append what is missing, or start over if the server knows no ranges. Raises ConnectionError if it ends early."""
    done = _size(part)
    headers = {"User-Agent": "zsadbench"} | ({"Range": f"bytes={done}-"} if done else {})
    with build_opener(_Redirects).open(Request(archive.url, headers=headers), timeout=TIMEOUT) as response:
        if response.status != 206 or not response.headers.get("Content-Range", "").startswith(f"bytes {done}-"):
            done = 0
        total = archive.size if response.length is None else done + response.length  # 0: nobody knows
        if archive.size and total != archive.size:
            raise _changed(archive, f"{total}")
        archives.require_space(part.parent, max(0, total - done))
        with part.open("ab" if done else "wb") as file:
            while chunk := response.read(archives.CHUNK):
                done += len(chunk)
                if total and done > total:
                    break
                if not total:
                    archives.require_space(part.parent, len(chunk))
                file.write(chunk)
                progress(f"downloading {archive.name}", done, total)
    if total and done > total:
        part.unlink()
        raise _changed(archive, f"more than {total}")
    if done < total:
        raise ConnectionError(f"the connection ended after {done} of {total} bytes")


def _changed(archive: Archive, found: str) -> FetchError:
    return FetchError(f"{archive.url} has {found} bytes; expected {archive.size}. The file on the server has changed.")


def _check_address(url: str) -> None:
    if urlsplit(url).scheme not in ("http", "https"):
        raise FetchError(f"{url} is no web address; expected one that starts with https://.")


class _Redirects(HTTPRedirectHandler):
    """Follows a server to other web addresses alone; urllib would follow it to ftp:// as well."""

    def redirect_request(self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Request | None:
        """Return the request for the new address. Raises FetchError."""
        _check_address(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
