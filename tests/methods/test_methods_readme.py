"""The example in methods/README.md works as it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from zsadbench import methods
from zsadbench.testing import check_method

README = Path(__file__).parents[2] / "methods" / "README.md"


def test_the_example_of_the_readme_keeps_the_contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = README.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    (tmp_path / "texture_energy.py").write_text(code, encoding="utf-8")
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    listing = {one.name: one for one in methods.available()}["texture_energy"]
    assert (listing.problem, listing.presets) == ("", ("default", "early"))
    check_method("texture_energy.early")
