"""The order of the wings: what may import what, so that data walks one way and no circle forms."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "zsadbench"

# A wing imports what stands on the lines above its own, and itself; never a neighbour on its own line.
ORDER = (
    ("errors", "protocol", "recipes"),
    ("support", "metrics"),
    ("datasets",),
    ("data", "records"),
    ("encoders",),
    ("method_base",),
    ("methods",),
    ("components",),
    ("training",),
    ("running", "analysis"),
    ("profiling", "testing", "tables"),
    ("figures", "trackers"),
    ("report",),
    ("api",),
    ("cli",),
)
LINE = {wing: number for number, wings in enumerate(ORDER) for wing in wings}
# Outside the order: the version, the entry points, and old places that nothing of ours imports.
DOORS = {"__init__", "__main__", "plugins", "preprocess"}
FOR_PLUGINS = {"datasets", "errors", "encoders", "data", "components", "methods", "support", "recipes", "protocol"}


def imported(path: Path) -> set[str]:
    """Return the dotted names below zsadbench that a file imports, wherever in it the import stands."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").split(".")[0] == "zsadbench":
            module = (node.module or "").removeprefix("zsadbench").removeprefix(".")
            found |= {f"{module}.{alias.name}" if module else alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name.removeprefix("zsadbench.") for a in node.names if a.name.startswith("zsadbench.")}
    return found


def wing_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("wing", sorted({wing_of(path) for path in PACKAGE.rglob("*.py")} - DOORS))
def test_a_wing_imports_only_what_stands_above_it(wing):
    assert wing in LINE, f"{wing} has no line in ORDER"
    files = PACKAGE.glob(f"{wing}/**/*.py") if (PACKAGE / wing).is_dir() else [PACKAGE / f"{wing}.py"]
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files
        for name in sorted(imported(path))
        if (other := name.partition(".")[0]) != wing and other != "__version__" and LINE.get(other, 99) >= LINE[wing]
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("folder", ["methods", "datasets"])
def test_plugins_import_contracts_and_shared_parts_only(folder):
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in (ROOT / folder).rglob("*.py")
        for name in sorted(imported(path))
        if name.partition(".")[0] not in FOR_PLUGINS
    ]
    assert not wrong, "\n".join(wrong)


def modules() -> dict[str, Path]:
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
        for path in PACKAGE.rglob("*.py")
    }


def test_no_import_circle():
    """Between files, also inside a wing: imports inside functions and for type checking count."""
    known = modules()
    arrows = {
        name: {
            target
            for one in imported(path)
            for target in (one, one.rpartition(".")[0])
            if target in known and target != name and not name.startswith(f"{target}.")
        }
        for name, path in known.items()
    }
    while free := {name for name, targets in arrows.items() if not targets & arrows.keys()}:
        arrows = {name: targets for name, targets in arrows.items() if name not in free}
    assert not arrows, f"these import each other: {', '.join(sorted(arrows))}"


def test_components_have_two_users():
    """What one method alone uses lives with that method."""
    users: dict[str, set[str]] = {}
    for path in (ROOT / "methods").rglob("*.py"):
        method = path.relative_to(ROOT / "methods").parts[0].removesuffix(".py")
        for name in imported(path):
            wing, _, rest = name.partition(".")
            if wing == "components":
                users.setdefault(rest.partition(".")[0], set()).add(method)
    own = {path.stem for path in (PACKAGE / "components").glob("*.py")} - {"__init__"}
    inside = {
        rest.partition(".")[0]: path.stem
        for path in (PACKAGE / "components").glob("*.py")
        for name in imported(path)
        for wing, _, rest in [name.partition(".")]
        if wing == "components"
    }
    lonely = {name for name in own if len(users.get(name, set())) < 2 and name not in inside}
    assert not lonely, f"components with fewer than two methods: {', '.join(sorted(lonely))}"
