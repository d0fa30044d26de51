"""Index files: CSV, JSONL and the meta.json dialects of published code -> samples (docs/datasets/own.md#index-files).

Every problem names the file and the line, or the row of a meta.json. What holds for the whole set (how masks and 16-bit
values are read) stands in each row and must be the same in all.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast, get_args

from zsadbench.data import labels, written_paths
from zsadbench.data.plain_files import PlainFiles
from zsadbench.datasets import MaskRule, Sample, ValueRange
from zsadbench.errors import DataError

Split = Literal["train", "test"]

SUFFIXES = (".csv", ".jsonl", ".json")
COLUMNS = {  # what we call a column: the names it goes by
    "image": ("image", "image_path", "img_path", "path", "file", "filename"),
    "mask": ("mask", "mask_path"),
    "label": ("label", "anomaly"),
    "category": ("category", "class_name", "cls_name", "object"),
    "defect": ("defect", "specie_name"),
    "split": ("split",),
    "crop": ("crop",),  # the part of the image that counts: top-left-bottom-right in pixels, or a list of the four
    "mask_rule": ("mask_rule",),  # gt127, gt0 or index_gt0, for the whole set
    "value_range": ("value_range",),  # of 16-bit images, for the whole set: black-white, or a list of the two
}
MASK_RULES = get_args(MaskRule)
NORMAL, ANOMALOUS = labels.NORMAL | {"0", "0.0"}, labels.UNNAMED | {"1", "1.0", "defective"}
_UNWRITABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")  # control characters and halves of characters


class IndexRow(NamedTuple):
    """One image of an index file, its paths still as written."""

    image: str
    masks: tuple[str, ...]
    label: Literal[0, 1]
    category: str  # "" where the index has none
    defect: str
    split: Split
    where: str  # "FILE, line 7", for messages
    crop: tuple[int, int, int, int] | None = None
    mask_rule: MaskRule | None = None  # None where the index has none
    value_range: ValueRange | None = None


class Index(NamedTuple):
    """The rows of an index file, and whether it is a meta.json, whose paths need more patience."""

    rows: tuple[IndexRow, ...]
    is_meta: bool

    @property
    def mask_rule(self) -> MaskRule | None:
        """How the masks are read, if the index says it. Raises DataError naming the first row that differs."""
        return cast("MaskRule | None", self._common("mask_rule"))

    @property
    def value_range(self) -> ValueRange | None:
        """How the values of 16-bit images are read, if the index says it. Raises as `mask_rule`."""
        return cast("ValueRange | None", self._common("value_range"))

    def _common(self, name: str) -> Any:
        first = self.rows[0]
        for row in self.rows:
            if getattr(row, name) != getattr(first, name):
                raise DataError(
                    f"{row.where}: the {name} is {getattr(row, name)}, but {getattr(first, name)} in {first.where}; "
                    "expected one for the whole set."
                )
        return getattr(first, name)


def read_index(path: Path) -> Index:
    """Read an index file by its suffix: .csv, .jsonl or .json (meta.json dialects). Raises DataError."""
    readers = {".csv": _csv_rows, ".jsonl": _jsonl_rows, ".json": _meta_rows}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path} is no index file; expected one that ends in {', '.join(SUFFIXES)}.")
    try:
        _require_utf8(path)
        rows = tuple(reader(path))
    except (OSError, ValueError, RecursionError, csv.Error) as error:  # json raises any of them
        raise DataError(f"{path} cannot be read: {error}") from None
    if not rows:
        raise DataError(f"{path} names no images; expected at least one row.")
    return Index(rows, is_meta=path.suffix.lower() == ".json")


def roots(path: Path, *others: Path | None) -> tuple[Path, ...]:
    """Return where the paths of an index file may start: beside it, at others, or one folder up (VisA's split_csv)."""
    return (path.parent, *(other for other in others if other is not None), path.absolute().parent.parent)


def find_root(index: Index, candidates: Iterable[Path]) -> Path:
    """Return the first folder that holds the index's first image. Raises DataError listing the folders tried."""
    candidates = tuple(candidates)
    first = index.rows[0]
    outside: DataError | None = None
    for root in candidates:
        try:
            if written_paths.resolve(first.image, root, first.where, index.is_meta) is not None:
                return root
        except DataError as error:
            outside = outside or error
    if written_paths.is_absolute(first.image) and not index.is_meta:
        raise DataError(
            f"{first.where}: {first.image} lies outside {' and '.join(map(str, candidates))}. {_data_root_hint(index)}"
        )
    raise outside or DataError(
        f"{first.where}: image {first.image} does not exist below {' or '.join(map(str, candidates))}."
    )


def _data_root_hint(index: Index) -> str:
    """Say which --data-root finds the absolute paths of an index, if they are of this machine."""
    paths = [Path(name) for row in index.rows for name in (row.image, *row.masks)]
    folders = {path.parent for path in paths if path.is_absolute()}
    common = Path(os.path.commonpath(folders)) if folders else None
    if common is not None and common.is_dir():
        return f"Give the folder of all its paths: --data-root {common}"
    return (
        "The paths are of another machine; expected paths relative to the index file, or to the folder that "
        "--data-root names."
    )


def samples(index: Index, root: Path, default_category: str = "") -> Iterator[Sample]:
    """Yield the samples of an index whose paths start at `root`.

    Raises DataError for a missing file, a path that leaves the root, an image (or the same crop of it) named twice, or
    a category that cannot be a file name. A meta.json that names masks of which not one exists belongs to a dataset
    without masks (Bayes-PFL's HeadCT and BrainMRI, docs/datasets/brain.md); elsewhere a missing mask is an error.
    """
    plain = PlainFiles(root)

    def find(text: str, where: str) -> Path | None:
        return plain.find(text) or written_paths.resolve(text, root, where, index.is_meta)

    found = [[find(mask, row.where) for mask in row.masks] for row in index.rows]
    optional = index.is_meta and not any(mask for masks in found for mask in masks)
    seen: dict[tuple[str, Any], str] = {}
    for row, masks in zip(index.rows, found, strict=True):
        image = find(row.image, row.where)
        if image is None:
            raise DataError(f"{row.where}: image {row.image} does not exist below {root}.")
        earlier = seen.setdefault((str(image), row.crop), row.where)
        if earlier is not row.where:
            raise DataError(f"{row.where}: image {row.image} is also in {earlier}; expected each image once.")
        there = tuple(mask for mask in masks if mask is not None)
        if len(there) < len(masks) and not optional:
            lost = row.masks[masks.index(None)]
            raise DataError(f"{row.where}: mask {lost} does not exist below {root}.")
        mask = there if len(there) > 1 else there[0] if there else None
        yield Sample(image, mask, row.label, _category(row, default_category), row.defect, row.split, row.crop)


def _require_utf8(path: Path) -> None:
    """Raise DataError for UTF-16, which spreadsheets call Unicode text."""
    with path.open("rb") as file:
        start = file.read(4)
    if start[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in start:
        raise DataError(f"{path} is UTF-16 text; expected UTF-8. In a spreadsheet, save it as 'CSV UTF-8'.")


def _csv_rows(path: Path) -> Iterator[IndexRow]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, skipinitialspace=True)
        reader.fieldnames = [(name or "").strip().lower() for name in reader.fieldnames or ()]
        if len(reader.fieldnames) == 1:
            for sign, name in ((";", "semicolons"), ("\t", "tabs")):
                if sign in reader.fieldnames[0]:
                    raise DataError(
                        f"{path}, line 1: its columns are separated by {name}; expected commas. In a spreadsheet, save "
                        "it as CSV with commas, or replace them."
                    )
        for column in ("image", "label"):
            if not set(COLUMNS[column]) & set(reader.fieldnames):
                raise DataError(
                    f"{path}, line 1: there is no column {column!r} ({' or '.join(COLUMNS[column])}); "
                    f"got {', '.join(reader.fieldnames) or 'no header'}."
                )
        repeated = [name for name in reader.fieldnames if name and reader.fieldnames.count(name) > 1]
        if repeated:
            raise DataError(f"{path}, line 1: the column {repeated[0]!r} is there twice; expected each once.")
        known = {column: [name for name in names if name in reader.fieldnames] for column, names in COLUMNS.items()}
        columns = {column: names for column, names in known.items() if names}  # the others need no look in each row
        for values in reader:
            if None in values:
                raise DataError(f"{path}, line {reader.line_num}: more values than columns; quote commas in names.")
            yield _row(values, f"{path}, line {reader.line_num}", columns)


def _jsonl_rows(path: Path) -> Iterator[IndexRow]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield _row(_object(line, f"{path}, line {number}"), f"{path}, line {number}")


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        values = json.loads(line, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: this is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise DataError(f"{where}: expected an object with an image and a label, got {line.strip()[:40]}.")
    return values


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of a JSON file; json itself would let the last of two equal keys win. Raises ValueError."""
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError(f"one object has a key twice, among {', '.join(list(values)[:8])}")
    return values


def _meta_rows(path: Path) -> Iterator[IndexRow]:
    """Yield the rows of {split: {category: [row, ...]}}; the splits may be capitalised (AnomalyCLIP's DAGM)."""
    content = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_unique)
    splits = _unique([(name.lower(), groups) for name, groups in content.items()]) if isinstance(content, dict) else {}
    if not isinstance(splits.get("test"), dict) or not isinstance(splits.get("train") or {}, dict):
        raise DataError(f"{path}: expected a meta.json with lists of rows under 'test' and their categories.")
    for split in ("train", "test"):
        for category, rows in (splits.get(split) or {}).items():
            for number, values in enumerate(rows if isinstance(rows, list) else [rows], start=1):
                where = f"{path}, {split} {category} row {number}"
                if not isinstance(values, dict):
                    raise DataError(f"{where}: expected an object with img_path, mask_path and anomaly.")
                if values.get("img_path") != "":  # empty: a placeholder for an empty folder (Bayes-PFL)
                    yield _row({"cls_name": category, **values, "split": split}, where)


def _row(values: Mapping[str, Any], where: str, columns: Mapping[str, Sequence[str]] = COLUMNS) -> IndexRow:
    """Return one row from its named values, checked; `columns` are those that it may have. Raises DataError."""
    found = dict.fromkeys(COLUMNS, "") | {column: _value(values, names) for column, names in columns.items()}
    lists = (values[name] for name in columns.get("mask", ()) if isinstance(values.get(name), list))
    masks = next(lists, [found["mask"]])
    if not found["image"]:
        raise DataError(f"{where}: there is no image ({' or '.join(COLUMNS['image'])}).")
    if _UNWRITABLE.search("".join([*found.values(), *map(str, masks)])):
        raise DataError(f"{where}: got {found}; expected no control characters and no broken characters.")
    words = {labels.plain(_value(values, [name])) for name in columns["label"]} - {""} or {""}
    if not (words <= NORMAL or words <= ANOMALOUS):
        raise DataError(
            f"{where}: the label is {' and '.join(map(repr, sorted(words)))}; expected 0 or normal, 1 or anomaly."
        )
    split = found["split"].lower() or "test"
    if split not in ("train", "test"):
        raise DataError(f"{where}: the split is {found['split']!r}; expected train or test.")
    if found["mask_rule"] not in ("", *MASK_RULES):
        raise DataError(f"{where}: the mask_rule is {found['mask_rule']!r}; expected one of {', '.join(MASK_RULES)}.")
    label: Literal[0, 1] = 1 if words <= ANOMALOUS else 0
    return IndexRow(
        image=found["image"],
        masks=tuple(str(mask).strip() for mask in masks if str(mask).strip()),
        label=label,
        category=found["category"],
        defect=labels.defect(found["defect"]) if label else "",
        split=cast(Split, split),
        where=where,
        crop=_crop(found["crop"], where),
        mask_rule=cast(MaskRule, found["mask_rule"]) if found["mask_rule"] else None,
        value_range=_value_range(found["value_range"], where),
    )


def _value_range(text: str, where: str) -> ValueRange | None:
    """Read "0-4095" or "[0, 4095]"; "" is None. Raises DataError."""
    if not text:
        return None
    match = re.fullmatch(r"\[?(-?\d+)(?:-|, ?)(-?\d+)\]?", text)
    if match is None or int(match[1]) >= int(match[2]):
        raise DataError(f"{where}: the value_range is {text!r}; expected black-white, such as 0-4095.")
    return int(match[1]), int(match[2])


def _crop(text: str, where: str) -> tuple[int, int, int, int] | None:
    """Read "0-0-416-500" or "[0, 0, 416, 500]" as top, left, bottom, right; "" is None. Raises DataError."""
    if not text:
        return None
    numbers = [int(number) for number in re.findall(r"\d+", text)]
    if not re.fullmatch(r"\[?\d+(?:(?:-|, ?)\d+){3}\]?", text) or numbers[0] >= numbers[2] or numbers[1] >= numbers[3]:
        raise DataError(
            f"{where}: the crop is {text!r}; expected top-left-bottom-right in pixels, such as 0-0-416-500."
        )
    top, left, bottom, right = numbers
    return top, left, bottom, right


def _value(values: Mapping[str, Any], names: Iterable[str]) -> str:
    """Return the first value that goes by one of the names, as stripped text; "" for none."""
    for name in names:
        if values.get(name) is not None:
            return str(values[name]).strip()
    return ""


def _category(row: IndexRow, default: str) -> str:
    name = row.category or default
    if not name or name.startswith(".") or "/" in name or "\\" in name:
        raise DataError(f"{row.where}: the category is {name!r}; expected a name that can also name a file.")
    return name
