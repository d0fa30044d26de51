"""Files that nobody should have: whatever they hold, the answer is right or a sentence, and nothing outside is read."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import struct
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from zsadbench import datasets
from zsadbench.data import archives, check, index_files, index_writer
from zsadbench.data.images import decode_image, read_header
from zsadbench.data.masks import raw_mask, read_mask
from zsadbench.datasets import Sample
from zsadbench.errors import DataError, FetchError, ZsadError

EXAMPLES = int(os.environ.get("ZSADBENCH_FUZZ", "40"))  # of each property; a night may have more
FUZZ = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=EXAMPLES == 40
)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # about tags of files that we damaged

_opened: list[str] | None = None  # what Python opens, while somebody watches


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and _opened is not None and isinstance(arguments[0], str | bytes | os.PathLike):
        _opened.append(os.fsdecode(arguments[0]))


sys.addaudithook(_audit)  # cannot be taken back; it costs one comparison an event


@contextlib.contextmanager
def only_inside(root: Path) -> Iterator[None]:
    """Fail if the block opens a file of this test's temporary folder, or of the system, that lies outside the root."""
    global _opened
    top, _opened = root.parent.resolve(), []
    try:
        yield
        for name in _opened:
            path = Path(name).resolve()
            assert path.is_relative_to(root.resolve()) or not path.is_relative_to(top), f"{path} was read"
            assert not path.is_relative_to("/etc"), f"{path} was read"
    finally:
        _opened = None


@contextlib.contextmanager
def playground() -> Iterator[Path]:
    """A data root inside a temporary folder, with images, masks, and links that lead out of it."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "root"
        for path in ("a.png", "b.png", "sub/c.png", "masks/a.png", "../secret.png"):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (4, 3), 255).save(root / path)
        (root / "link.png").symlink_to(root.parent / "secret.png")
        (root / "out").symlink_to(root.parent)
        (root / "loop").symlink_to(root / "loop")
        yield root


def test_the_watch_notices_a_file_outside():
    with playground() as root:
        with pytest.raises(AssertionError, match="secret"), only_inside(root):
            decode_image(root / "link.png")
        with only_inside(root):
            decode_image(root / "a.png")


# Images ---------------------------------------------------------------------------------------------------------------

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 7, 4), dtype=np.uint8)
MODES = {"PNG": ("1", "L", "LA", "P", "RGB", "RGBA"), "JPEG": ("L", "RGB", "CMYK"), "BMP": ("1", "L", "P", "RGB")}
MODES |= {"GIF": ("L", "P"), "TIFF": ("1", "L", "RGB", "CMYK", "LAB"), "WEBP": ("RGB", "RGBA"), "PPM": ("L", "RGB")}


def encoded(format_: str, mode: str) -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(PIXELS).convert("RGB") if mode not in ("LA", "RGBA") else Image.fromarray(PIXELS)
    if mode == "LAB":
        image = Image.frombytes("LAB", (7, 9), PIXELS[:, :, :3].tobytes())
    image.convert(mode).save(file, format_) if mode != "LAB" else image.save(file, format_)
    return file.getvalue()


FILES = {(name, mode): encoded(name, mode) for name, modes in MODES.items() for mode in modes}


@st.composite
def damaged(draw) -> bytes:
    """An image file with some bytes changed, cut off or inserted; or no image at all."""
    content = bytearray(
        draw(st.sampled_from([*FILES.values(), b"", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"II*\0", b"P6 9 9 "]))
    )
    for _ in range(draw(st.integers(0, 4))):
        if content:
            content[draw(st.integers(0, min(len(content) - 1, 200)))] = draw(st.integers(0, 255))
    if draw(st.booleans()):
        content = content[: draw(st.integers(0, len(content)))]
    return bytes(content) + draw(st.binary(max_size=8))


@FUZZ
@given(content=damaged(), suffix=st.sampled_from([".png", ".jpg", ".tif", ".eps"]))
def test_any_file_decodes_to_rgb_bytes_or_is_a_sentence(tmp_path_factory, content, suffix):
    path = tmp_path_factory.getbasetemp() / f"fuzz{suffix}"
    path.write_bytes(content)
    try:
        height, width, *_ = read_header(path)
        image = decode_image(path)
        assert image.shape == (height, width, 3) and image.dtype == np.uint8
    except DataError as error:
        assert path.name in str(error)
    for rule in ("gt0", "gt127", "index_gt0"):
        try:
            assert raw_mask(path, rule).ndim == 2
        except DataError as error:
            assert path.name in str(error)


def png_header(width: int, height: int, colour: int) -> bytes:
    """A PNG that promises a size and holds a few bytes."""

    def part(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", zlib.compress(bytes(64))) + part(b"IEND", b"")


def bmp_header(width: int, height: int) -> bytes:
    """The same of a BMP."""
    return FILES["BMP", "RGB"][:18] + struct.pack("<ii", width, height) + FILES["BMP", "RGB"][26:]


def tif_header(width: int, height: int) -> bytes:
    """The same of a TIFF, whose first list of tags has them as 256 and 257."""
    content = bytearray(FILES["TIFF", "L"])
    (start,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, start)
    for entry in range(start + 2, start + 2 + 12 * count, 12):
        tag = struct.unpack_from("<H", content, entry)[0]
        if tag in (256, 257):
            struct.pack_into("<HII", content, entry + 2, 4, 1, width if tag == 256 else height)
    return bytes(content)


HEADERS = {
    "png": lambda width, height: png_header(width, height, 2),
    "bmp": bmp_header,
    "tif": tif_header,
    "ppm": lambda width, height: f"P6 {width} {height} 255\n".encode(),
    "gif": lambda width, height: FILES["GIF", "P"][:6] + b"\xff\xff\xff\xff" + FILES["GIF", "P"][10:],
}
HUGE = st.integers(20_000, 2**31 - 1)


@FUZZ
@given(width=HUGE, height=HUGE, kind=st.sampled_from(sorted(HEADERS)))
def test_huge_dimensions_are_refused_before_memory_is_taken(tmp_path_factory, width, height, kind):
    path = tmp_path_factory.getbasetemp() / f"huge.{kind}"
    path.write_bytes(HEADERS[kind](width, height))
    with pytest.raises(DataError, match=rf"{path.name} is too large"):
        decode_image(path)


@FUZZ
@given(content=damaged(), label=st.sampled_from([0, 1]))
def test_mask_file_never_changes_a_label(tmp_path_factory, content, label):
    folder = tmp_path_factory.getbasetemp()
    (folder / "mask.png").write_bytes(content)
    sample = Sample(folder / "image.png", folder / "mask.png", label, "tile")
    try:
        mask = read_mask(sample, "gt0", (9, 7))
    except DataError:
        return
    assert mask.shape == (9, 7) and mask.dtype == bool
    assert label == 1 or not mask.any(), "a normal image whose mask marks something is an error"


# Index files ----------------------------------------------------------------------------------------------------------

PATHS = ["a.png", "b.png", "sub/c.png", "./a.png", "sub/../b.png", "sub\\c.png", "link.png", "out/secret.png"]
PATHS += ["../secret.png", "sub/../../secret.png", "..", ".", "", "/etc/passwd", "ROOT/a.png", "ROOT/../secret.png"]
PATHS += ["/home/someone/data/sub/c.png", "/x/../a.png", "a.png\0.jpg", "\0", "x" * 300, "/".join("ab" * 3000), "loop"]
PATHS += ["loop/a.png", "\ud800.png", "~/a.png", "C:\\a.png", "file:///etc/passwd", "a.png\n", "masks/a.png", "sub"]
LABELS = [
    (0, 0),
    (1, 1),
    (0.0, 0),
    (1.0, 1),
    ("0", 0),
    ("1", 1),
    ("1.0", 1),
    ("normal", 0),
    ("Anomaly", 1),
    (" good ", 0),
]
LABELS += [("DEFECTIVE", 1), ("ok", 0), ("abnormal", 1)]  # as written, and what it means
WRONG_LABELS = ["", True, False, 2, -1, 0.5, "yes", "10", [], {}, [1], 1e400, float("nan"), "0 1", "\0", "01", None]
TEXTS = ["tile", "", "crack", "../x", "a/b", ".hidden", "\ud800", "new\nline", "x" * 300, "good", 7, None, ["list"]]


def mostly(sound: list, other: list) -> st.SearchStrategy:
    """A sound value nine times out of ten."""
    return st.integers(0, 9).flatmap(lambda draw: st.sampled_from(other if draw == 9 else sound))


ROW = st.fixed_dictionaries(
    {"image": mostly(PATHS[:3], PATHS), "label": mostly([label for label, _ in LABELS], WRONG_LABELS)},
    optional={
        "mask": mostly(["masks/a.png", "", "sub/../masks/a.png"], PATHS),
        "category": mostly(["tile", "wood"], TEXTS),
        "defect": mostly(["crack", ""], TEXTS),
        "split": mostly(["test", "Train", ""], TEXTS),
    },
)
ROWS = st.lists(ROW, min_size=1, max_size=3, unique_by=lambda row: str(row["image"]))  # most are fine


def read_all(index: Path, root: Path) -> list[Sample] | None:
    """Read an index as `--datasets folder=INDEX` does; None if it is refused with a sentence."""
    try:
        with only_inside(root):
            return list(index_files.samples(index_files.read_index(index), root, "tile"))
    except ZsadError as error:
        assert str(error)
        return None


def meaning(label: object) -> int | None:
    """What a written label means; None: nothing. True is no label, although it equals 1."""
    return next((value for word, value in LABELS if type(word) is type(label) and word == label), None)


def check_samples(samples: list[Sample] | None, written: list[dict[str, object]], root: Path) -> None:
    """Every accepted sample is the file that its row names, inside the root, with the label that its row has."""
    if samples is None:
        return
    assert len(samples) == len(written)
    for sample, row in zip(samples, written, strict=True):
        assert sample.label == meaning(row["label"])
        assert sample.image.name == str(row["image"]).replace("\\", "/").strip().rpartition("/")[2]
        for path in (sample.image, *sample.masks):
            assert path.resolve().is_relative_to(root.resolve()), f"{path} leads outside"
        assert "/" not in sample.category and (sample.category + sample.defect).isprintable()


def with_root(made: list[dict[str, object]], root: Path) -> list[dict[str, object]]:
    """Name the true root where a path says ROOT."""
    return [{key: v.replace("ROOT", str(root)) if isinstance(v, str) else v for key, v in row.items()} for row in made]


@FUZZ
@given(made=ROWS, kind=st.sampled_from(["csv", "jsonl", "json"]))
def test_accepted_rows_keep_their_label_and_stay_inside(made, kind):
    with playground() as root:
        made = with_root(made, root)
        path = root / f"index.{kind}"
        if kind == "csv":
            file = io.StringIO()
            writer = csv.DictWriter(file, ["image", "mask", "label", "category", "defect", "split"], restval="")
            writer.writeheader()
            writer.writerows(made)
            path.write_bytes(file.getvalue().encode("utf-8", "surrogatepass"))
        elif kind == "jsonl":
            path.write_text("\n".join(json.dumps(row) for row in made))
        else:
            names = {"image": "img_path", "mask": "mask_path", "label": "anomaly", "category": "cls_name"}
            content = [{names.get(key, key): value for key, value in row.items()} for row in made]
            path.write_text(json.dumps({"train": {}, "test": {"tile": content}}))
            made = [row for row in made if row["image"] != ""]  # placeholders (Bayes-PFL)
        samples = read_all(path, root)
        check_samples(samples, made, root)
        if samples:
            with only_inside(root), contextlib.suppress(ZsadError):
                list(index_writer.rows(datasets.create(f"folder={path}")))


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.sampled_from(PATHS[:9])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                ["train", "test", "Test", "img_path", "image", "label", "anomaly", "mask", "cls_name", "tile"]
            ),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=12,
)


@FUZZ
@given(content=JSON, kind=st.sampled_from([".json", ".jsonl"]), split=st.sampled_from(["test", "Test", None]))
def test_any_json_is_an_index_or_a_sentence(content, kind, split):
    with playground() as root:
        path = root / f"index{kind}"
        path.write_text(json.dumps({split: content, "train": content} if split else content))
        read_all(path, root)


@FUZZ
@given(
    content=st.one_of(st.binary(max_size=60), st.text(max_size=60).map(lambda text: text.encode("utf-8", "replace"))),
    head=st.sampled_from(
        [b"", b"image,label\n", b"image,label\na.png,1\n", b'{"test": {"tile": [', b"\xff\xfe", b"\xef\xbb\xbf"]
    ),
    kind=st.sampled_from(["csv", "jsonl", "json"]),
)
def test_any_bytes_are_an_index_or_a_sentence(content, head, kind):
    with playground() as root:
        path = root / f"index.{kind}"
        path.write_bytes(head + content)
        read_all(path, root)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("i.csv", b"image,label\na.png," + b"1" * 200_000),
        ("i.csv", b'image,label\n"' + b"a" * 200_000),
        ("i.csv", b"image,label\na.png\0,1\n"),
        ("i.csv", "image,label\na.png,1\n".encode("utf-16")),
        ("i.csv", b"image,label,label\na.png,0,1\n"),
        ("i.csv", b"image,label,anomaly\na.png,0,1\n"),
        ("i.jsonl", b'{"image": "a.png", "label": 0, "label": 1}'),
        ("i.jsonl", b'{"image": "a.png", "label": 0, "anomaly": 1}'),
        ("i.jsonl", b'{"image": "a.png", "image": "b.png", "label": 1}'),
        ("i.jsonl", b"[" * 100_000),
        ("i.jsonl", b'{"label": ' + b"9" * 5000 + b"}"),
        ("i.json", b'{"test": ' + b'{"a":' * 50_000),
        ("i.json", b'{"test": {"tile": []}, "train": [1]}'),
        ("i.json", b'{"test": {"tile": [{"img_path": "a.png", "anomaly": 0}]}, "train": [1]}'),
        ("i.json", b'{"test": {"tile": [{"img_path": "a.png", "anomaly": 0}]}, "Test": {"tile": []}}'),
        ("i.json", b'{"test": {"t": [{"img_path": "a.png", "anomaly": 0, "anomaly": 1}]}}'),
        ("i.json", b'{"test": {"t": [{"img_path": "a.png", "anomaly": 0}]}, "test": {"t": []}}'),
    ],
)
def test_ambiguous_or_monstrous_index_is_refused(name, content):
    with playground() as root:
        (root / name).write_bytes(content)
        assert read_all(root / name, root) is None


# Folder trees ---------------------------------------------------------------------------------------------------------

FOLDERS = ["grid/test/good", "grid/test/hole", "grid/ground_truth/hole", "grid/train/good", "test/good", "test/hole"]
FOLDERS += [
    "ground_truth/hole",
    "yes",
    "no",
    "train",
    "test",
    "grid/test/.hidden",
    "grid/test/new\nline",
    "grid/test/\udcff",
]
NAMES = ["0.png", "0_mask.png", "1.JPG", "1_mask.png", "0 (copy).png", ".0.png", "Thumbs.db", "0_GT.png", "0.jpg"]
NAMES += ["\udcff.png", "new\nline.png", "é.png", "folder.png", "link.png", "gone.png", "loop.png", "pipe.png"]


def plant(folder: Path, name: str, content: bytes) -> None:
    """Make a file, or what only looks like one."""
    path = folder / name
    if path.is_symlink() or path.exists():
        return
    if name == "folder.png":
        path.mkdir()
    elif name in ("link.png", "gone.png", "loop.png"):
        path.symlink_to({"link.png": folder / "0.png", "gone.png": "nowhere", "loop.png": path}[name])
    elif name == "pipe.png":
        os.mkfifo(path)
    else:
        path.write_bytes(content)


SOUND = {  # a small tree that each dataset accepts; random files go on top
    "folder": ("test/good/0.png", "test/hole/0.png", "ground_truth/hole/0_mask.png"),
    "mvtec": ("grid/test/good/0.png", "grid/test/hole/0.png", "grid/ground_truth/hole/0_mask.png"),
    "brainmri": ("yes/0.png", "no/0.png"),
    "ksdd2": ("test/0.png", "test/0_GT.png"),
    "kvasir": ("images/0.jpg", "masks/0.jpg"),
    "visa": ("candle/test/good/0.png", "candle/test/bad/0.png", "candle/ground_truth/bad/0.png"),
}


@FUZZ
@given(
    files=st.lists(
        st.tuples(
            st.sampled_from(FOLDERS), st.sampled_from(NAMES), st.one_of(st.sampled_from([*FILES.values()]), damaged())
        ),
        max_size=5,
    ),
    name=st.sampled_from(sorted(SOUND)),
)
def test_any_folder_tree_is_checked_and_indexed_or_a_sentence(files, name):
    with tempfile.TemporaryDirectory() as top:
        root = Path(top) / "root"
        for path in SOUND[name]:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (7, 9), 255).save(root / path)
        for folder, file, content in files:
            (root / folder).mkdir(parents=True, exist_ok=True)
            plant(root / folder, file, content)
        try:
            with only_inside(root):
                dataset = datasets.create(f"{name}={root}")
                report = check.check(dataset, threads=1)
                check.render(report).encode()
                json.dumps(check.facts(report)).encode()
                list(index_writer.rows(dataset))
        except ZsadError:
            return
        for category in dataset.categories():
            for sample in dataset.samples(category.name):
                folder = sample.image.parent.name
                assert sample.label == (folder not in ("good", "no")) or name in ("ksdd2", "kvasir")


# Archives -------------------------------------------------------------------------------------------------------------


@st.composite
def archive(draw) -> bytes:
    """A tar or zip with members of any name and kind, sometimes damaged."""
    file, names = io.BytesIO(), ["a.png", "x/b.png", "../c", "/d", "x", "./a.png", "e\0f", "..\\g", "h" * 400, "\udcff"]
    chosen = draw(st.lists(st.tuples(st.sampled_from(names), st.binary(max_size=30)), max_size=4))
    if draw(st.booleans()):
        with tarfile.open(fileobj=file, mode=draw(st.sampled_from(["w", "w:gz", "w:xz"]))) as opened:
            for name, content in chosen:
                member = tarfile.TarInfo(name)
                member.type = draw(
                    st.sampled_from([tarfile.REGTYPE] * 4 + [tarfile.SYMTYPE, tarfile.DIRTYPE, b"x", b"L"])
                )
                member.size, member.linkname = len(content), "../../secret.png"
                opened.addfile(member, io.BytesIO(content))
    else:
        with zipfile.ZipFile(file, "w") as opened:
            for name, content in dict(chosen).items():
                opened.writestr(name.encode("utf-8", "replace").decode(), content)
    content = bytearray(file.getvalue())
    for _ in range(draw(st.sampled_from([0, 0, 1, 5]))):
        content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    return bytes(content)


@FUZZ
@given(content=archive())
def test_any_archive_is_unpacked_inside_or_a_sentence(content):
    with tempfile.TemporaryDirectory() as top:
        path, folder = Path(top) / "archive", Path(top) / "in/unpacked"
        folder.mkdir(parents=True)
        path.write_bytes(content)
        try:
            archives.extract(path, folder)
        except FetchError as error:
            assert str(path) in str(error)
        assert sorted(Path(top).iterdir()) == [path, folder.parent] and list(folder.parent.iterdir()) == [folder]
        assert all(not item.is_symlink() and (item.is_file() or item.is_dir()) for item in folder.rglob("*"))
