"""Unpacking: what sound archives become; no crafted one writes outside, makes links, overwrites or fills the disk."""

from __future__ import annotations

import io
import random
import shutil
import tarfile
import zipfile
from collections import namedtuple

import pytest

from zsadbench.data import archives
from zsadbench.data.archives import Limits, extract
from zsadbench.errors import FetchError

FILES = {"candle/Data/0.JPG": b"first" * 200, "split_csv/1cls.csv": b"object,split\n", "empty.txt": b""}


def tar_member(name, content=b"", kind=tarfile.REGTYPE, target=""):
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, target, len(content)
    return member, io.BytesIO(content)


def write_tar(path, members, mode="w"):
    with tarfile.open(path, mode) as file:
        for member, content in members:
            file.addfile(member, content)
    return path


def write_zip(path, files, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in files:
            file.writestr(name, content)
    return path


def unpacked(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def folder(tmp_path):
    """An empty folder to unpack into; its parent must never change."""
    folder = tmp_path / "parent" / "unpacked"
    folder.mkdir(parents=True)
    yield folder
    assert [path.name for path in folder.parent.iterdir()] == ["unpacked"]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_tar_in_every_compression_is_unpacked_whatever_its_name(tmp_path, folder, mode):
    path = write_tar(tmp_path / "download", [tar_member(*item) for item in FILES.items()], mode)
    assert extract(path, folder) == sum(map(len, FILES.values()))
    assert unpacked(folder) == FILES


def test_zip_is_unpacked_with_its_folders(tmp_path, folder):
    path = write_zip(tmp_path / "download", [("candle/", b""), *FILES.items()])
    extract(path, folder)
    assert unpacked(folder) == FILES


def test_modes_and_owners_of_an_archive_do_not_reach_the_disk(tmp_path, folder):
    member, content = tar_member("a", b"x")
    member.mode, member.mtime = 0o4777, 1
    extract(write_tar(tmp_path / "a.tar", [(member, content)]), folder)
    status = (folder / "a").stat()
    assert status.st_mode & 0o7111 == 0 and status.st_mtime > 1e9


UNSAFE_NAMES = ["../a", "a/../../b", "/tmp/zsad_escape", "..", "a\\..\\..\\b", "C:/a", "C:a", "a\nb"]


@pytest.mark.parametrize("name", UNSAFE_NAMES)
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_name_that_leaves_the_folder_is_refused(tmp_path, folder, kind, name):
    if kind == "tar":
        path = write_tar(tmp_path / "a", [tar_member(name, b"x")])
    else:
        path = write_zip(tmp_path / "a", [(name, b"x")])
    with pytest.raises(FetchError, match="stay below"):
        extract(path, folder)
    assert unpacked(folder) == {}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_link_and_device_in_a_tar_are_refused(tmp_path, folder, kind):
    members = [tar_member("a", kind=kind, target="/etc/passwd"), tar_member("a/b", b"x")]
    with pytest.raises(FetchError, match="'a' is a link, a device"):
        extract(write_tar(tmp_path / "a.tar", members), folder)
    assert not list(folder.iterdir())


def test_link_in_a_zip_is_refused(tmp_path, folder):
    entry = zipfile.ZipInfo("a")
    entry.create_system, entry.external_attr = 3, 0o120777 << 16
    with pytest.raises(FetchError, match="'a' is a link"):
        extract(write_zip(tmp_path / "a.zip", [(entry, b"/etc/passwd")]), folder)
    assert not list(folder.iterdir())


@pytest.mark.parametrize("names", [("a", "a"), ("a", "./a"), ("a", "a/b")])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_nothing_is_overwritten(tmp_path, folder, names):
    for path in (
        write_tar(tmp_path / "a.tar", [tar_member(name, b"x") for name in names]),
        write_zip(tmp_path / "a.zip", [(name, b"x") for name in names]),
    ):
        shutil.rmtree(folder)
        folder.mkdir()
        with pytest.raises(FetchError):
            extract(path, folder)
        assert unpacked(folder) == {"a": b"x"}


def test_second_archive_does_not_overwrite_the_first(tmp_path, folder):
    path = write_zip(tmp_path / "a.zip", FILES.items())
    extract(path, folder)
    with pytest.raises(FetchError, match="over another file"):
        extract(path, folder)


@pytest.mark.parametrize("kind", ["zip", "w:gz", "w:xz"])
def test_decompression_bomb_is_refused_before_it_is_written(tmp_path, folder, kind):
    zeros = bytes(5_000_000)
    if kind == "zip":
        path = write_zip(tmp_path / "a", [("a", b"x"), ("b", zeros)])
    else:
        path = write_tar(tmp_path / "a", [tar_member("a", b"x"), tar_member("b", zeros)], kind)
    assert path.stat().st_size < 50_000
    with pytest.raises(FetchError, match="decompression bomb"):
        extract(path, folder)
    assert unpacked(folder) == {"a": b"x"}


def test_size_and_number_of_files_are_limited(tmp_path, folder):
    path = write_tar(tmp_path / "a.tar", [tar_member(str(i), b"12345") for i in range(9)])
    with pytest.raises(FetchError, match="more than 8 files"):
        extract(path, folder, Limits(files=8))
    shutil.rmtree(folder)
    folder.mkdir()
    with pytest.raises(FetchError, match="more than 42 bytes"):
        extract(path, folder, Limits(bytes=42))
    assert sum(map(len, unpacked(folder).values())) <= 42


def test_zip_that_lies_about_a_size_is_refused(tmp_path, folder):
    path = write_zip(tmp_path / "a.zip", [("a", bytes(range(256)) * 9)], zipfile.ZIP_STORED)
    content = path.read_bytes()
    assert content.count((2304).to_bytes(4, "little")) == 4, "compressed and true size, in both headers"
    path.write_bytes(content.replace((2304).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    with pytest.raises(FetchError):
        extract(path, folder)
    assert sum(map(len, unpacked(folder).values())) <= 10


def test_forged_header_cannot_fill_the_memory(tmp_path, folder):
    member = tarfile.TarInfo("././@LongLink")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, 2**33
    (tmp_path / "a.tar").write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(10_000))
    with pytest.raises(FetchError, match="claims a length of 8589934592"):
        extract(tmp_path / "a.tar", folder)


@pytest.mark.parametrize("content", [b"", b"PK", b"PK\x03\x04rest", b"<html>not found</html>", b"\xfd7zXZ\x00rest"])
def test_what_is_no_archive_is_a_sentence(tmp_path, folder, content):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(FetchError, match="may be damaged"):
        extract(tmp_path / "a", folder)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_truncated_tar_is_refused(tmp_path, folder, mode):
    path = write_tar(tmp_path / "a", [tar_member("a", random.Random(0).randbytes(25_600))], mode)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    with pytest.raises(FetchError, match=r"may be damaged|is damaged"):
        extract(path, folder)


def test_full_disk_is_noticed_before_a_file_is_written(tmp_path, folder, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda path: usage(0, 0, archives.RESERVE + 3))
    path = write_zip(tmp_path / "a.zip", [("a", b"123"), ("b", b"1234")])
    with pytest.raises(FetchError, match="GB free"):
        extract(path, folder)
    assert unpacked(folder) == {"a": b"123"}
