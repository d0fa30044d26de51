"""The options of a method as its source says them: a misspelt one is told before the method, and torch, is imported."""

from __future__ import annotations

import ast
import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path


class _Unclear(Exception):
    """The source does not say it plainly: the options are computed, or come from a module that is not imported."""


def declared(path: Path) -> set[str] | None:
    """Return the option names of all presets of a plugin's file; None where only an import can tell them."""
    try:
        module = _Module(path)
        return {name for kind in module.preset_classes() for name in module.fields(kind)}
    except (_Unclear, OSError, SyntaxError, ValueError):
        return None


class _Module:
    def __init__(self, path: Path) -> None:
        self._folder = path.parent
        tree = ast.parse(path.read_text(encoding="utf-8"))
        self._classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
        self._values = {
            node.targets[0].id: node.value
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        }
        self._imports = {
            alias.asname or alias.name: (node.level, node.module or "", alias.name)
            for node in tree.body
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }

    def preset_classes(self) -> Iterator[str]:
        """Yield the name of the options class of each preset. Raises _Unclear."""
        for node in self._classes.values():
            for statement in node.body:
                if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "presets":
                    if not isinstance(statement.value, ast.Dict):
                        raise _Unclear
                    yield from map(self._class_of, statement.value.values)

    def _class_of(self, value: ast.expr) -> str:
        if isinstance(value, ast.Name) and value.id in self._values:
            return self._class_of(self._values[value.id])
        if not isinstance(value, ast.Call) or not isinstance(value.func, ast.Name):
            raise _Unclear
        return self._class_of(value.args[0]) if value.func.id == "replace" and value.args else value.func.id

    def fields(self, kind: str) -> set[str]:
        """Return the fields of a class that this module defines or imports. Raises _Unclear."""
        if kind in self._classes:
            node = self._classes[kind]
            bases = (self.fields(ast.unparse(base)) for base in node.bases)
            return _annotated(node).union(*bases)
        level, module, name = self._imports.get(kind, (0, "", ""))
        if level == 1:
            return _Module(self._folder / f"{module}.py").fields(name)
        imported = getattr(sys.modules.get(module), name, None)
        if imported is None or not dataclasses.is_dataclass(imported):
            raise _Unclear
        return {field.name for field in dataclasses.fields(imported)}


def _annotated(node: ast.ClassDef) -> set[str]:
    return {one.target.id for one in node.body if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)}
