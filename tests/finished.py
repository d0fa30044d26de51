"""What the record of every finished cell holds beside its numbers, for tests that make records by hand."""

from typing import Any

SETTING: dict[str, Any] = {"scope": "image", "shots": 0, "trained_on": [], "leak": False}
PARTS: dict[str, dict[str, Any]] = {
    "setting": SETTING,
    "protocol": {"seed": 0, "aupro_limit": 0.3},
    "data": {"samples": 3, "sha256": "d" * 64},
}
