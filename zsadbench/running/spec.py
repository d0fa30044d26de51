"""What a run was asked for, as a file: `RUN/spec.toml`, from which `zsadbench run --spec FILE` runs it again.

The fields are the options of `zsadbench run`, without those that say where results go (`--out`, `--overwrite`), where
cells are computed (`--executor`), what is kept for other runs (`--cache`) and what is printed. Equal runs write equal
bytes. Paths stand as they were given, those below the user's home folder with "~", and what came from environment
variables is left out.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

from zsadbench import encoders
from zsadbench.errors import UnknownName, UsageError
from zsadbench.protocol import EvaluationProtocol
from zsadbench.running.request import Request
from zsadbench.support import files, options, plugins, texts

FILE = "spec.toml"
TABLES = ("weights", "checkpoint", "set", "sweep")  # options that map names to values
ARGUMENTS = {  # option -> argument of `make_request`; those of the protocol are its fields
    "methods": "methods",
    "datasets": "datasets",
    "data-root": "data_root",
    "encoder": "encoder",
    "weights": "weights",
    "checkpoint": "checkpoints",
    "checkpoints": "checkpoint_folder",
    "no-train": "train",
    "set": "changes",
    "sweep": "sweep",
    "seeds": "seeds",
    "categories": "categories",
    "device": "device",
    "allow-leak": "allow_leak",
    "fail-fast": "fail_fast",
    "save-maps": "save_maps",
    "timeout-per-batch": "timeout_per_batch",
    "plugins": "plugin_folders",
    "cache": "cache",  # read, but not written: a place on one machine
    "cache-limit": "cache_limit",
}
PROTOCOL = {name.replace("_", "-"): name for name in EvaluationProtocol.__dataclass_fields__}
LISTS, SWITCHES = ("methods", "datasets", "categories", "plugins"), ("no-train", "allow-leak", "fail-fast", "save-maps")


def read(path: Path) -> dict[str, Any]:
    """Read a spec file: option -> value. Raises UsageError for what is no option of a run and for a wrong type."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"--spec {path} cannot be read: {error}.") from error
    found = {}
    for given, value in data.items():
        name = given.replace("_", "-")
        if name not in (*ARGUMENTS, *PROTOCOL):
            raise UnknownName(f"option in {path}", given, [*ARGUMENTS, *PROTOCOL])
        if name in found:
            raise UsageError(f"{path}: {name} stands there twice; expected it once.")
        _check(path, name, value)
        found[name] = value
    return found


def _check(path: Path, name: str, value: Any) -> None:
    lists = isinstance(value, list) and (name == "seeds" or all(isinstance(one, str) for one in value))
    right = {
        **dict.fromkeys(TABLES, (isinstance(value, dict), "a table")),
        **dict.fromkeys(LISTS, (lists or isinstance(value, str), "a list of names, or one text with commas")),
        **dict.fromkeys(SWITCHES, (isinstance(value, bool), "true or false")),
        "seeds": (lists or isinstance(value, str), "a list of numbers"),
    }
    fits, expected = right.get(name, (isinstance(value, str | int | float), "one value"))
    if not fits:
        raise UsageError(f"{path}: {name} is {value!r}; expected {expected}.")


def beside(spec: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a spec with those that were given beside it, which win; of tables, name by name."""
    if given.keys() & {"seed", "seeds"}:
        spec = {name: value for name, value in spec.items() if name not in ("seed", "seeds")}
    tables = {name: {**spec.get(name, {}), **given[name]} for name in TABLES if name in given}
    return {**spec, **given, **tables}


def differences(spec: Mapping[str, Any], given: Mapping[str, Any]) -> Iterator[str]:
    """Say which options of a spec were given otherwise."""
    for name, value in given.items():
        pairs = {name: (spec.get(name), value)}
        if name in TABLES:
            pairs = {f"{name} {own}": (spec.get(name, {}).get(own), new) for own, new in value.items()}
        for told, (old, new) in pairs.items():
            if old is not None and _words(old) != _words(new):
                yield f"--{told} {_words(new)} instead of {_words(old)}"


def _words(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `make_request` for options by name."""
    found = {ARGUMENTS[name]: value for name, value in given.items() if name in ARGUMENTS}
    if "train" in found:
        found["train"] = not found["train"]
    protocol = {PROTOCOL.get(name, name): value for name, value in given.items() if name not in ARGUMENTS}
    return found | {"protocol": protocol}


def write(request: Request) -> None:
    """Keep what a run is asked for in its folder; what an earlier run there asked otherwise gets a number.

    Raises RecordError when it cannot be written.
    """
    files.make_folder(request.out)
    new, last = of(request), request.out / FILE
    old = last.read_text(encoding="utf-8") if last.exists() else new
    if old != new and not any(path.read_text(encoding="utf-8") == old for path in _earlier(request.out)):
        files.write_atomically(request.out / f"spec-{len(_earlier(request.out)) + 1}.toml", old)
    if old != new or not last.exists():
        files.write_atomically(last, new)


def _earlier(run: Path) -> list[Path]:
    return sorted(run.glob("spec-*.toml"))


def of(request: Request) -> str:
    """Return the spec of a request as TOML; options that are empty are left out."""
    lines = ["# Run it again: zsadbench run --spec THIS_FILE --out ANOTHER_FOLDER"]
    tables: list[str] = []
    for name, value in _options(request).items():
        if isinstance(value, dict):
            rows = [f"{_text(key)} = {_text(one)}" for key, one in value.items() if not _is_nested(one)]
            lost = [f"# {key} was given in Python, and has no text" for key, one in value.items() if _is_nested(one)]
            tables += ["", f"[{name}]", *lost, *rows] if value else []
        elif value is not None and value is not False and value not in ("", []):
            lines.append(f"{name} = {_text(value)}")
    return "\n".join([*lines, *tables]) + "\n"


def _options(request: Request) -> dict[str, Any]:
    """Return option -> value of a request, in the order of `zsadbench run --help`."""
    inherited, root = encoders.inherited(), request.data_root
    own = {spec: _path(path) for spec, path in request.weights.items() if inherited.get(spec) != path}
    protocol = {option: getattr(request.protocol, name) for option, name in PROTOCOL.items()}
    if request.seeds:
        del protocol["seed"]
    return {
        "methods": list(request.methods),
        "datasets": list(request.datasets),
        "data-root": None if root is None or os.environ.get("ZSADBENCH_DATA") == str(root) else _path(root),
        "encoder": request.encoder,
        "checkpoints": None if request.checkpoint_folder is None else _path(request.checkpoint_folder),
        "no-train": not request.train,
        "seeds": list(request.seeds),
        "categories": list(request.categories),
        "device": request.device,
        **protocol,
        "allow-leak": request.allow_leak,
        "fail-fast": request.fail_fast,
        "save-maps": request.save_maps,
        "timeout-per-batch": request.timeout_per_batch,
        "plugins": [_path(one) for one in plugins.added_folders() if one not in plugins.inherited()],
        "weights": own,
        "checkpoint": {name: [_path(path) for path in request.checkpoint(name)] for name in request.checkpoints},
        "set": {f"{method}.{o}": _plain(v) for method, own in request.changes.items() for o, v in own.items()},
        "sweep": {f"{method}.{o}": [*map(_plain, v)] for method, own in request.sweep.items() for o, v in own.items()},
    }


def _plain(value: Any) -> Any:
    """Return an option's value as a text that `--set` reads; what has no such text as it is."""
    return value if is_dataclass(value) else options.text(value)


def _is_nested(value: Any) -> bool:
    return any(map(is_dataclass, value)) if isinstance(value, list) else is_dataclass(value)


def _path(path: Path) -> str:
    home = Path.home()
    return f"~/{path.relative_to(home).as_posix()}" if path.is_relative_to(home) else str(path)


def _text(value: Any) -> str:
    """Return a value of TOML: a JSON text, number or list is one, once half characters and controls are spelt out."""
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    return json.dumps(texts.printable(value) if isinstance(value, str) else value, ensure_ascii=False)
