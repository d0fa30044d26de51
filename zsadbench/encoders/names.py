"""Whether there is a model and tag of a SPEC, as the sources of open_clip and timm say: imports take seconds."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from zsadbench import encoders
from zsadbench.errors import UnknownName

_NAME = re.compile(r"(['\"]?)\b(\w+)(?:\.(\w+))?")  # MODEL or MODEL.TAG, in quotes or not


def check(spec: str, weights: Mapping[str, str | Path]) -> None:
    """Raise UnknownName for a SPEC that no library knows; a tag of one's own is fine where `weights` has its file.

    Where a library is not installed, nothing is said.
    """
    library, name = encoders.parse(spec, weights)
    if library == "open_clip":
        model, tag = name.split("/")
        models = _open_clip_models()
        if models and model not in models:
            raise UnknownName("open_clip model", model, models)
        tags = _open_clip_tags().get(model)
        if tags and spec not in weights and tag.lower().replace("-", "_") not in tags:
            raise UnknownName(f"pretrained tag of {model}", tag, tags)
    elif library == "timm":
        model, _, tag = name.partition(".")
        known = _timm_words()
        if known and model not in known:
            raise UnknownName("timm model", name, (model for model, tags in known.items() if tags))
        if tag and known.get(model) and tag not in known[model]:  # tags of some models are composed: none stands there
            raise UnknownName(f"pretrained tag of {model}", tag, known[model])


@cache
def _folder(package: str) -> Path | None:
    """Return where an installed package lies, without importing it."""
    found = importlib.util.find_spec(package)
    return None if found is None or found.origin is None else Path(found.origin).parent


@cache
def _open_clip_models() -> tuple[str, ...]:
    folder = _folder("open_clip")
    return () if folder is None else tuple(path.stem for path in folder.glob("model_configs/*.json"))


@cache
def _open_clip_tags() -> dict[str, set[str]]:
    """Return the tags of each model: `_MODEL = dict(TAG=...)` and `_PRETRAINED = {MODEL: _MODEL}` in pretrained.py."""
    folder = _folder("open_clip")
    file = None if folder is None else folder / "pretrained.py"
    if file is None or not file.is_file():
        return {}
    tables: dict[str, set[str]] = {}
    models: dict[str, set[str]] = {}
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
            continue
        name, value = node.targets[0].id, node.value
        if isinstance(value, ast.Call):
            tables[name] = {keyword.arg for keyword in value.keywords if keyword.arg}
        elif isinstance(value, ast.Dict) and name != "_PRETRAINED":
            tables[name] = {str(key.value) for key in value.keys if isinstance(key, ast.Constant)}
        elif isinstance(value, ast.Dict):
            for key, table in zip(value.keys, value.values, strict=True):
                if isinstance(key, ast.Constant) and isinstance(table, ast.Name):
                    models[str(key.value)] = tables.get(table.id, set())
    return models


@cache
def _timm_words() -> dict[str, set[str]]:
    """Return every word of timm's models, all its model names among them, with what stands after a dot in quotes."""
    folder = _folder("timm")
    files = [] if folder is None else sorted((folder / "models").glob("*.py"))
    found: dict[str, set[str]] = {}
    for quote, model, tag in _NAME.findall("\n".join(file.read_text(encoding="utf-8") for file in files)):
        tags = found.setdefault(model, set())
        if quote and tag:
            tags.add(tag)
    return found
