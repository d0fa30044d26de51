"""What strangers may put in the place of a JSON file: edits of a good one, and whole files that are none."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from finished import PARTS

from zsadbench.records.record import Record

FACTS = {
    "title": "M", "image": {"auroc": 0.75}, "pixel": {"ap": 0.5}, "encoder": {"spec": "tiny", "size": 96},
    "environment": {"device": "cpu"}, **PARTS,
}  # fmt: skip
CARD = {
    "method": "m", "trained_on": ["mvtec"], "options": {}, "encoder": {}, "data": {"limit": None}, "seed": 0,
    "environment": {}, "seconds": 1.0,
    "epochs": [{"stage": 0, "epoch": 0, "loss": 0.5, "terms": {"a": 0.5}, "seconds": 1.0, "peak_bytes": None}],
}  # fmt: skip


def record(category: str = "bad", **changes: Any) -> Record:
    """Return a record of somebody's."""
    return Record("m", "d", category, "done", **{**FACTS, **changes})


Edit = Callable[[dict[str, Any]], object]

RECORDS: dict[str, Edit] = {  # of a finished record with an image AUROC; each makes a value that cannot be one
    "a metric of 2": lambda record: record["image"].update(auroc=2.0),
    "a negative metric": lambda record: record["pixel"].update(ap=-0.1),
    "NaN": lambda record: record["image"].update(auroc=float("nan")),
    "infinity": lambda record: record["image"].update(auroc=float("inf")),
    "a metric that is true": lambda record: record["image"].update(auroc=True),
    "a metric in words": lambda record: record["image"].update(auroc="0.9"),
    "a metric that is a list": lambda record: record["image"].update(auroc=[0.9]),
    "metrics that are a list": lambda record: record.update(image=[]),
    "metrics that are null": lambda record: record.update(pixel=None),
    "another status": lambda record: record.update(status="ok"),
    "no encoder": lambda record: record.update(encoder=None),
    "an encoder in words": lambda record: record.update(encoder="tiny"),
    "an encoder with a number for a name": lambda record: record["encoder"].update(spec=7),
    "another scope": lambda record: record["setting"].update(scope="x"),
    "shots in words": lambda record: record["setting"].update(shots="many"),
    "no shots": lambda record: record["setting"].pop("shots"),
    "training sets that are a number": lambda record: record["setting"].update(trained_on=7),
    "training sets that are numbers": lambda record: record["setting"].update(trained_on=[7]),
    "a leak in words": lambda record: record["setting"].update(leak="no"),
    "a category that is a number": lambda record: record.update(category=7),
    "another category": lambda record: record.update(category="elsewhere"),
    "a way out of the folder": lambda record: record.update(category="../../../etc/passwd"),
    "a title that is null": lambda record: record.update(title=None),
    "an error that is an object": lambda record: record.update(error={}),
    "no method": lambda record: record.pop("method"),
    "a field that nobody knows": lambda record: record.update(rank=1),
    "a format that is true": lambda record: record.update(format=True),
    "a later format": lambda record: record.update(format=99),
    "a seed in words": lambda record: record["protocol"].update(seed="x"),
    "no limit of AU-PRO": lambda record: record["protocol"].pop("aupro_limit"),
    "no protocol": lambda record: record.update(protocol={}),
    "no images": lambda record: record.update(data={}),
    "images in words": lambda record: record["data"].update(samples="24"),
    "a hash that is a number": lambda record: record["data"].update(sha256=1),
    "digests that are numbers": lambda record: record.update(files={".csv": 1}),
    "code that is a list": lambda record: record.update(code=[]),
    "a device that is an object": lambda record: record["environment"].update(device={}),
    "oddities that are a list": lambda record: record["details"].update(odd=[1]),
    "an oddity without a name": lambda record: record["details"].update(odd={"empty mask": {"count": 1}}),
    "lost regions in words": lambda record: record["details"].update(pixel={"lost_regions": "all"}),
    "half a character": lambda record: record.update(title="\ud800"),
    "a huge number": lambda record: record["setting"].update(shots=10**400),
}

CARDS: dict[str, Edit] = {  # of a checkpoint
    "no method": lambda card: card.pop("method"),
    "a method that is a number": lambda card: card.update(method=7),
    "training sets in words": lambda card: card.update(trained_on="mvtec"),
    "an encoder that is a list": lambda card: card.update(encoder=[]),
    "options that are null": lambda card: card.update(options=None),
    "a seed in words": lambda card: card.update(seed="0"),
    "a seed that is true": lambda card: card.update(seed=True),
    "epochs that are numbers": lambda card: card.update(epochs=[1]),
    "an epoch without a loss": lambda card: card["epochs"][0].pop("loss"),
    "a loss that is NaN": lambda card: card["epochs"][0].update(loss=float("nan")),
    "a digest that is a number": lambda card: card.update(weights_sha256=1),
    "a limit in words": lambda card: card["data"].update(limit="all"),
    "a field that nobody knows": lambda card: card.update(rank=1),
    "a later format": lambda card: card.update(format=99),
}


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _twice(path: Path) -> None:
    path.write_text('{"method": "other", ' + path.read_text().lstrip("{ \n"))


FILES: dict[str, Callable[[Path], object]] = {  # what stands in a good JSON file's place afterwards is none
    "nothing in it": lambda path: path.write_bytes(b""),
    "a list": lambda path: path.write_text("[]"),
    "a number": lambda path: path.write_text("7"),
    "null": lambda path: path.write_text("null"),
    "an empty object": lambda path: path.write_text("{}"),
    "half of it": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "nested deeply": lambda path: path.write_text('{"a":' + "[" * 200_000),
    "no text": lambda path: path.write_bytes(b"\xff\xfe\x00{"),
    "a key twice": _twice,
    "thousands of digits": lambda path: path.write_text('{"format": ' + "9" * 5000 + "}"),
    "a pipe": _pipe,
    "a folder": _folder,
}


def edited(edit: Edit) -> Callable[[Path], object]:
    """Return what applies an edit to a JSON file."""

    def apply(path: Path) -> None:
        content = json.loads(path.read_text())
        edit(content)
        path.write_text(json.dumps(content))

    return apply


def of_records() -> dict[str, Callable[[Path], object]]:
    """Return everything that may happen to a record's file."""
    return FILES | {name: edited(edit) for name, edit in RECORDS.items()}


def of_cards() -> dict[str, Callable[[Path], object]]:
    """Return everything that may happen to the card of a checkpoint."""
    return FILES | {name: edited(edit) for name, edit in CARDS.items()}
