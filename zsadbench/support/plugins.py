"""The only import machinery of the project: finds, reads and imports methods and datasets.

A plugin is a Python file `NAME.py`, or a folder `NAME/` with an `__init__.py`, in a folder of a contract module
(`zsadbench.methods`, `zsadbench.datasets`), or a module that an installed package names in the entry-point group of the
same name. Two plugins of one name are an error, whichever Python would import. Listing reads names and literal cards
from the source and imports nothing, so that it stays fast and one broken plugin hurts no other.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from zsadbench.errors import MissingDependency, PluginError, UnknownName, UsageError
from zsadbench.support import process, traces

Plugin = TypeVar("Plugin")
Source = Path | EntryPoint  # a plugin's file, its folder's __init__.py, or what an installed package registers

VARIABLE = "ZSADBENCH_PLUGINS"  # users' folders, separated as in PATH: they are there wherever plugins are looked for

_registered: dict[str, type] = {}  # module name -> its plugin class; filled by @register alone


def folders(contract_file: str) -> list[str]:
    """Return the `__path__` of a contract module: the one folder where the plugins lie that come with the package.

    `contract_file` is the module's `__file__`; for `zsadbench/methods.py` that is `zsadbench/methods/`, where a wheel
    puts them, or in a checkout `methods/` beside the package. Beside an installed package lie those of others.
    """
    module = Path(contract_file).resolve()
    candidates = [module.with_suffix(""), module.parent.parent / module.stem]
    return [str(folder) for folder in candidates if folder.is_dir()][:1]


def added_folders() -> tuple[Path, ...]:
    """Return the users' folders that were added, for processes that this one starts."""
    _add_inherited()
    contracts = [importlib.import_module(f"zsadbench.{kind}") for kind in ("methods", "datasets")]
    own = {folder for contract in contracts for folder in folders(str(contract.__file__))}
    paths = [path for contract in contracts for path in contract.__path__ if path not in own]
    return tuple(dict.fromkeys(Path(path).parent for path in paths))


def inherited() -> tuple[Path, ...]:
    """Return the users' folders that ZSADBENCH_PLUGINS names."""
    return tuple(Path(text).expanduser().resolve() for text in os.environ.get(VARIABLE, "").split(os.pathsep) if text)


def _add_inherited() -> None:
    for folder in inherited():
        add_folder(folder, VARIABLE)


def add_folder(folder: Path, given: str = "--plugins") -> None:
    """Make the plugins of a user's folder available: its `methods/NAME.py`, `methods/NAME/` and likewise `datasets/`.

    given: how it was named, for errors. Raises UsageError when the folder has neither sub-folder, or a name that
    another plugin has.
    """
    found = False
    for kind in ("methods", "datasets"):
        sub = Path(folder).resolve() / kind
        if sub.is_dir():
            found = True
            path = importlib.import_module(f"zsadbench.{kind}").__path__
            if str(sub) not in path:
                path.append(str(sub))
                _refuse_clashes(f"zsadbench.{kind}", sub, given)
    if not found:
        raise UsageError(
            f"{given} {folder}: got a folder without plugins; expected {folder}/methods/*.py or datasets/*.py there."
        )


def _refuse_clashes(package: str, folder: Path, given: str) -> None:
    """Raise UsageError, and forget the folder again, if a plugin in it has the name of another one."""
    for name, found in _sources(package).items():
        if len(found) > 1 and any(isinstance(source, Path) and source.is_relative_to(folder) for source in found):
            told = _clash(package, name)
            importlib.import_module(package).__path__.remove(str(folder))
            raise UsageError(f"{given} {folder.parent}: {told}")


def names(package: str) -> list[str]:
    """Return the sorted names of every plugin of a contract module, without importing any."""
    _add_inherited()
    return sorted(_sources(package))


def load(package: str, name: str) -> ModuleType:
    """Import one plugin module. Raises UnknownName, MissingDependency or PluginError, naming the file."""
    source = _source(package, name)
    module_name = source.module if isinstance(source, EntryPoint) else f"{package}.{name}"
    origin = _told(source)
    if module_name in sys.modules:
        return sys.modules[module_name]
    try:
        return _import(module_name)
    except ModuleNotFoundError as error:
        missing = str(error.name)
        if missing.partition(".")[0] == "zsadbench":
            raise PluginError(
                f"{package} plugin {name!r} ({origin}) imports {missing!r}, which this version does not have. "
                "Import what plugins use from zsadbench itself, e.g. from zsadbench import Method, Preprocess."
            ) from error
        raise MissingDependency(
            f"{package} plugin {name!r} ({origin}) needs the package {missing!r}, which is not installed. "
            f"Install it with: pip install {missing}"
        ) from error
    except PluginError:
        raise
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and process.is_users(error):
            raise
        raise PluginError(
            f"{package} plugin {name!r} ({origin}) failed to import: {traces.sentence(error)}."
        ) from error


def _import(module_name: str) -> ModuleType:
    """Import a plugin: what it prints goes to standard error, what others use stays as it was.

    Raises what it raises, and PluginError if it changes a setting of the process.
    """
    if "torch" not in sys.modules:  # so nothing is loaded yet whose settings are looked at
        with redirect_stdout(sys.stderr):
            return importlib.import_module(module_name)
    from zsadbench.support.shared_state import Settings, visit

    before = Settings()
    try:
        with visit(seed=0):
            module = importlib.import_module(module_name)
    finally:
        changed = before.changed()
        before.restore()
    if changed:
        del sys.modules[module_name]  # it is not imported: asked again, it fails again
        raise PluginError(
            f"plugin {module.__file__} changed {', '.join(changed)} when it was imported. Others use it too: change it "
            "where you need it, and set it back."
        )
    return module


def registered(package: str, name: str, base: type[Plugin]) -> type[Plugin]:
    """Import a plugin and return its one class of the contract. Raises as `load`, and PluginError if there is none."""
    module = load(package, name)
    plugin = _registered.get(module.__name__)
    if plugin is None or not issubclass(plugin, base):
        raise PluginError(
            f"plugin {module.__file__} registers no {base.__name__}; expected one class decorated with @register."
        )
    return plugin


def register(plugin: type, required: tuple[str, ...]) -> None:
    """Note the one plugin class of a module. Raises PluginError for a second one or a missing class attribute."""
    for attribute in required:
        if not getattr(plugin, attribute, None):
            raise PluginError(
                f"{plugin.__module__}.{plugin.__qualname__} has no {attribute!r}; expected a class attribute."
            )
    earlier = _registered.setdefault(plugin.__module__, plugin)
    if earlier.__qualname__ != plugin.__qualname__:
        raise PluginError(
            f"{plugin.__module__} registers both {earlier.__qualname__} and {plugin.__qualname__}; "
            "expected one class a file."
        )
    _registered[plugin.__module__] = plugin


def source_file(package: str, name: str) -> Path:
    """Return a plugin's file or its folder's `__init__.py`, importing nothing. Raises UnknownName or PluginError."""
    entry = _source(package, name)
    if isinstance(entry, Path):
        return entry
    try:
        spec = importlib.util.find_spec(entry.module)
    except ImportError as error:
        raise PluginError(f"entry point {entry.value} of {package} cannot be found: {error}") from error
    if spec is None or spec.origin is None:
        raise PluginError(f"entry point {entry.value} of {package} names a module that does not exist")
    return Path(spec.origin)


def declared(package: str, name: str, card_type: Callable[..., Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Read a plugin's cards and preset names from its source, importing nothing.

    Returns (cards, presets): `cards` maps preset name to card for a class that declares `cards = {...}`, or
    `{"": card}` for one that declares a single `card = ...`; `presets` are the keys of `presets = {...}`.
    Cards must be literal calls of `card_type`: that is what lets `zsadbench list` stay fast. Raises PluginError.
    """
    path = source_file(package, name)
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError) as error:
        raise PluginError(f"plugin {path} cannot be read: {error}") from error
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and any(_name_of(item) == "register" for item in node.decorator_list):
            return _declarations(node, path, card_type)
    raise PluginError(f"plugin {path} has no class decorated with @register; expected exactly one.")


def _declarations(
    node: ast.ClassDef, path: Path, card_type: Callable[..., Any]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    cards: dict[str, Any] = {}
    presets: tuple[str, ...] = ()
    for statement in node.body:
        if not isinstance(statement, ast.Assign | ast.AnnAssign) or statement.value is None:
            continue
        target = statement.targets[0] if isinstance(statement, ast.Assign) else statement.target
        value = statement.value
        if _name_of(target) == "card":
            cards[""] = _literal_card(value, path, card_type)
        elif _name_of(target) == "cards" and isinstance(value, ast.Dict):
            for key, item in zip(value.keys, value.values, strict=True):
                cards[_literal(key, path)] = _literal_card(item, path, card_type)
        elif _name_of(target) == "presets" and isinstance(value, ast.Dict):
            presets = tuple(_literal(key, path) for key in value.keys)
    if not cards:
        raise PluginError(
            f"plugin {path}: class {node.name} declares no card; expected `card = ...` or `cards = {{...}}`."
        )
    return cards, presets


def _literal_card(node: ast.expr, path: Path, card_type: Callable[..., Any]) -> Any:
    if not isinstance(node, ast.Call) or node.args or any(keyword.arg is None for keyword in node.keywords):
        raise PluginError(f"plugin {path}, line {node.lineno}: a card must be one call with keyword arguments only.")
    fields = {keyword.arg: _literal(keyword.value, path) for keyword in node.keywords if keyword.arg is not None}
    try:
        return card_type(**fields)
    except TypeError as error:
        raise PluginError(f"plugin {path}, line {node.lineno}: {error}") from error


def _literal(node: ast.expr | None, path: Path) -> Any:
    try:
        return ast.literal_eval(node or ast.Pass())  # a None key stands for `**other`, which is no literal
    except (ValueError, TypeError) as error:
        line = getattr(node, "lineno", "?")
        raise PluginError(
            f"plugin {path}, line {line}: cards and preset names must be literals, because `zsadbench list` reads them "
            "without importing the plugin."
        ) from error


def _name_of(node: ast.expr) -> str:
    if isinstance(node, ast.Call):
        return _name_of(node.func)
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _source(package: str, name: str) -> Source:
    """Return where the one plugin of a name comes from. Raises UnknownName, or PluginError where there are several."""
    _add_inherited()
    found = _sources(package).get(name, ())
    if not found:
        raise UnknownName(package.rpartition(".")[2].removesuffix("s"), name, names(package))
    if len(found) > 1:
        raise PluginError(_clash(package, name))
    return found[0]


def _clash(package: str, name: str) -> str:
    kind = package.rpartition(".")[2].removesuffix("s")
    told = " and ".join(map(_told, _sources(package)[name]))
    return f"several {kind}s are called {name!r}: {told}. Rename all but one, so that a name says what runs."


def _told(source: Source) -> str:
    return f"entry point {source.value}" if isinstance(source, EntryPoint) else str(source)


def _sources(package: str) -> dict[str, tuple[Source, ...]]:
    """Map each plugin name to all that have it, looking again only when a folder was added or has changed."""
    folders_ = tuple((folder, _changed(folder)) for folder in importlib.import_module(package).__path__)
    return _sources_in(package, folders_, tuple(sys.path))


def _changed(folder: str) -> int:
    try:
        return os.stat(folder).st_mtime_ns  # noqa: PTH116  # it is asked for each name of a plan
    except OSError:
        return 0


@lru_cache(maxsize=8)  # by sys.path too: a package that is installed during the process (tests do) is seen
def _sources_in(
    package: str, folders: tuple[tuple[str, int], ...], search_path: tuple[str, ...]
) -> dict[str, tuple[Source, ...]]:
    found: dict[str, tuple[Source, ...]] = {}
    for folder, _ in folders:
        inits = {path.parent.name: path for path in sorted(Path(folder).glob("*/__init__.py"))}
        files = {path.stem: path for path in sorted(Path(folder).glob("*.py")) if not path.stem.startswith("_")}
        for name, path in (*inits.items(), *files.items()):
            found[name] = (*found.get(name, ()), path)
    for point in dict.fromkeys(entry_points(group=package)):
        found[point.name] = (*found.get(point.name, ()), point)
    return found
