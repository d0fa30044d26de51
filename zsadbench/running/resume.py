"""What a run does with the finished cells that its folder already holds, and why.

A record stands for what was asked (the options of the method, encoder included, and the protocol) and for what the
files held (data, weights, checkpoint, code). Compared with that, for each cell of a new run:

- nothing differs: the cell is done; with --save-maps, its maps are made if they are missing, and nothing else;
- the files held something else, or a file beside the record is not its own: it is measured again, and `run` says why;
- something else was asked: the run is refused before anything is written. Another --out keeps both, --overwrite
  replaces the finished one.

The batch size alone is no other question, unless it decides which images see each other: a run that ran out of memory
goes on with a smaller one. Versions and the device do not matter either; both are told. Finished cells of another
protocol also stand in the way of cells beside them, because one table could not show both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from zsadbench.errors import RecordError, UsageError, counted
from zsadbench.protocol import FREE_FIELDS
from zsadbench.records import results, saved_maps
from zsadbench.records.results import Record, Unreadable
from zsadbench.running.request import Request
from zsadbench.support import environment, variants

Parts = Mapping[str, Mapping[str, Any]]  # what a cell stands for, as JSON values; see `PARTS`
PARTS = ("cell", "protocol", "options", "data", "weights", "checkpoint", "code")
ASKED = ("protocol", "options")
SHOWN = 3  # examples in one sentence


class Change(NamedTuple):
    """One value in which a finished record differs from what is asked now."""

    part: str  # one of PARTS
    name: str
    old: Any
    new: Any


class Standing(NamedTuple):
    """What a cell finds in its place."""

    cell: Mapping[str, str]  # method, dataset, category
    record: Record | None = None  # the finished one
    changes: tuple[Change, ...] = ()
    problem: str = ""  # why the record does not stand although nothing changed
    maps: bool = True  # whether the maps that the run wants are there

    @property
    def stands(self) -> bool:
        """Tell whether the record is what the cell would give."""
        return self.record is not None and not self.changes and not self.problem

    @property
    def done(self) -> bool:
        """Tell whether there is nothing to do."""
        return self.stands and self.maps

    @property
    def asked(self) -> list[Change]:
        """The changes that make it the answer to another question; whoever edits a method may edit its options."""
        edited = any((change.part, change.name) == ("code", "method") for change in self.changes)
        return [change for change in self.changes if change.part in ASKED and (change.part != "options" or not edited)]

    @property
    def name(self) -> str:
        """The cell in words."""
        return "{method} on {dataset}/{category}".format(**self.cell)


def look(path: Path, parts: Parts, request: Request) -> Standing:
    """Compare the record at a cell's path with what the cell stands for now."""
    cell = parts["cell"]
    if not path.exists():
        return Standing(cell)
    try:
        record = results.load(path)
    except Unreadable:
        raise  # it may be a finished one, which must not be replaced
    except RecordError:
        return Standing(cell, problem="their records cannot be read")
    if record.status != "done":
        return Standing(cell)
    changes, problem = tuple(_changes(record, parts)), ""
    if record.format < results.FORMAT:
        problem = "an earlier version of zsadbench made them"
        changes = tuple(change for change in changes if change.part in ASKED)  # the others are not in it
    elif record.setting.get("leak") and not request.allow_leak:
        problem = "they were made with --allow-leak"
    elif not changes and not results.intact(request.out, record):
        problem = "a file beside the record is missing or not its own"
    return Standing(cell, record, changes, problem, not request.save_maps or saved_maps.exist(request.out, record))


def _changes(record: Record, parts: Parts) -> Iterator[Change]:
    names = {"encoder": record.encoder.get("sha256", ""), "text_encoder": record.encoder.get("text_sha256", "")}
    checkpoint = {"sha256": record.setting.get("checkpoint_sha256", "")}
    old = {
        "protocol": record.protocol,
        "options": record.options,
        "data": record.data,
        "weights": names,
        "checkpoint": checkpoint,
        "code": record.code,
    }
    seen = record.setting.get("scope") == "batch" and record.protocol.get("batch_images") is None
    for part, values in old.items():
        for name, new in parts[part].items():
            known = name in values or part not in ASKED  # an option that the record lacks is new, as is the code then
            told = name != "samples" and (name != "batch_size" or seen)  # the number is in the list's digest
            if known and told and values.get(name) != new:
                yield Change(part, name, values.get(name), new)


def check(standings: Sequence[Standing], request: Request) -> None:
    """Raise UsageError where the run would replace answers to another question, or mix two protocols in one folder."""
    found = [standing for standing in standings if standing.asked]
    if found and not request.overwrite:
        told: dict[str, list[str]] = {}
        for standing in found:
            for change in standing.asked:
                owner = f"{variants.stem_of(standing.cell['method'])}." if change.part == "options" else ""
                text = f"{owner}{change.name} was {_plain(change.old)}, now {_plain(change.new)}"
                told.setdefault(text, []).append(standing.name)
        reasons = [f"{text} ({_listed(cells)})" for text, cells in told.items()]
        raise UsageError(
            f"--out {request.out} holds {counted(len(found), 'finished cell')} of other options or another protocol: "
            f"{_listed(reasons, '; ')}. Nothing was run. Choose another --out (a table can show several), or pass "
            "--overwrite to replace these cells."
        )
    _check_neighbours(standings, request)


def _check_neighbours(standings: Iterable[Standing], request: Request) -> None:
    """Raise UsageError if finished cells beside those of the run have a protocol that bars them from one table."""
    own = {tuple(standing.cell.values()) for standing in standings}
    protocol = asdict(request.protocol)
    for path in sorted(request.out.glob("*/*/*.json")):
        dataset, method, category = path.parent.parent.name, variants.from_folder(path.parent.name), path.stem
        record = None if (method, dataset, category) in own else results.finished(path)
        for name, value in record.protocol.items() if record is not None else ():
            if name in protocol.keys() - FREE_FIELDS and value != protocol[name]:
                raise UsageError(
                    f"--out {request.out} holds results of another protocol, such as {method} on {dataset}/{category}: "
                    f"{name} is {_plain(value)} there, {_plain(protocol[name])} now. One table could not show both. "
                    "Nothing was run. Choose another --out."
                )


def why(standing: Standing) -> str:
    """Return what a cell that is not done is run for."""
    if standing.stands:
        return "its maps are missing"
    if standing.changes:
        return _cause(standing.changes[0], standing.cell)
    return standing.problem or "new"


def notes(standings: Sequence[Standing], request: Request) -> list[str]:
    """Return one sentence a reason why finished cells run again, and what else was different when others were made."""
    return [*_reasons(standings), *_maps(standings), *_circumstances(standings, request)]


def _reasons(standings: Iterable[Standing]) -> Iterator[str]:
    causes: dict[str, dict[str, str]] = {}  # reason -> cell -> old and new
    for standing in standings:
        if standing.problem:
            causes.setdefault(standing.problem, {})[standing.name] = ""
        for change in standing.changes:
            words = change.part in ASKED or change.name == "reading"
            digests = "" if words else f"{_short(change.old)}, now {_short(change.new)}"
            causes.setdefault(_cause(change, standing.cell), {})[standing.name] = digests
    for cause, cells in causes.items():
        details = set(cells.values()) - {""}
        told = f" ({details.pop()})" if len(details) == 1 else ""
        yield f"{counted(len(cells), 'cell')} will run again, because {cause}{told}: {_listed(list(cells))}."


def _cause(change: Change, cell: Mapping[str, str]) -> str:
    match change.part, change.name:
        case ("protocol", name):
            return f"{name} was {_plain(change.old)}, now {_plain(change.new)}"
        case ("options", name):
            return f"{variants.stem_of(cell['method'])}.{name} was {_plain(change.old)}, now {_plain(change.new)}"
        case ("data", "references_sha256"):
            return f"the reference images of {cell['dataset']} changed"
        case ("data", "content_sha256"):
            return f"the images or masks of {cell['dataset']} changed"
        case ("data", "reading"):
            return f"the files of {cell['dataset']} were read with {change.old}, now with {change.new}"
        case ("data", "noun"):
            return f"prompts call the categories of {cell['dataset']} otherwise"
        case ("data", _):
            return f"the list of images, labels and masks of {cell['dataset']} changed"
        case ("weights", _):
            return "the weights of the encoder changed"
        case ("checkpoint", _):
            return f"the checkpoint of {cell['method']} changed"
        case ("code", "method"):
            return f"the code of the method {variants.stem_of(cell['method'])} changed"
        case ("code", "dataset"):
            return f"the code of the dataset {cell['dataset'].partition('.')[0]} changed"
        case _:
            return "the code of zsadbench changed"


def _maps(standings: Iterable[Standing]) -> Iterator[str]:
    lacking = [standing for standing in standings if standing.stands and not standing.maps]
    if lacking:
        subject = ("its maps alone; its record stays", "their maps alone; their records stay")[len(lacking) > 1]
        yield f"{counted(len(lacking), 'finished cell')} will be predicted again for {subject}."


def _circumstances(standings: Iterable[Standing], request: Request) -> Iterator[str]:
    """Say what is different now in a way that does not make cells run again."""
    now = {**environment.describe(request.device), "batch size": str(request.protocol.batch_size)}
    others: dict[str, int] = {}
    for record in (standing.record for standing in standings if standing.stands):
        assert record is not None
        then = {**record.environment, "batch size": str(record.protocol.get("batch_size"))}
        for name, value in now.items():
            if name != "zsadbench" and then.get(name, value) != value:
                text = f"{name} {then[name]} (now {value})"
                others[text] = others.get(text, 0) + 1
    for text, count in others.items():
        yield f"{counted(count, 'finished cell')} kept, though made with {text}; to run again, delete the records."


def _listed(texts: Sequence[str], separator: str = ", ") -> str:
    more = [f"and {len(texts) - SHOWN} more"] if len(texts) > SHOWN else []
    return separator.join([*texts[:SHOWN], *more])


def _plain(value: Any) -> str:
    return "none" if value is None else str(value)


def _short(digest: str | None) -> str:
    return digest[:8] if digest else "none"
