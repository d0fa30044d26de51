"""Print the lowest versions that pyproject.toml allows as pins, one a line: a constraints file for pip.

    python scripts/lowest_versions.py report dask > lowest.txt && pip install --constraint lowest.txt ".[report,dask]"

What the named extras need is pinned too. `make test-lowest` runs tests with these versions, so that every lower bound
is one that was tried.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
BOUNDED = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?\s*>=\s*([0-9][0-9A-Za-z.]*)(?:\s*[,;].*)?")


def pin(requirement: str) -> str:
    """Return "name==version" for "name>=version". Raises ValueError for a requirement without a lower bound."""
    match = BOUNDED.fullmatch(requirement.strip())
    if match is None:
        raise ValueError(
            f"pyproject.toml requires {requirement!r}; expected a lower bound first, as in 'numpy>=1.26.0'."
        )
    return f"{match[1]}=={match[2]}"


def pins(pyproject: Path, extras: list[str]) -> list[str]:
    """Return the pins of a project's dependencies and of these extras, in the file's order. Raises ValueError."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    optional = project.get("optional-dependencies", {})
    if unknown := sorted(set(extras) - set(optional)):
        raise ValueError(f"{pyproject} has no extra {', '.join(unknown)}; expected some of {', '.join(optional)}.")
    groups = [project["dependencies"], *(optional[name] for name in extras)]
    return [pin(requirement) for group in groups for requirement in group]


def main() -> None:
    """Print the pins, or what is wrong with pyproject.toml."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("extras", nargs="*", help="extras whose packages are pinned as well")
    try:
        print("\n".join(pins(ROOT / "pyproject.toml", parser.parse_args().extras)))
    except ValueError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
