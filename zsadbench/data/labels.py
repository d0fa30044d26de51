"""What names say about a label: the one list for folders and index files, at test and at train.

Only words that say of themselves that nothing is wrong mean normal. "0", "no" or "negative" do not: beside other
folders they may number or deny anything, so for them the user has to be asked.
"""

from __future__ import annotations

from collections.abc import Collection

NORMAL = frozenset(
    {
        "good", "ok", "okay", "normal", "nominal", "healthy", "intact", "flawless", "pass", "passed",
        "no_defect", "no_defects", "defect_free", "non_defective", "nondefective", "no_anomaly", "anomaly_free",
    }
)  # fmt: skip
UNNAMED = frozenset(  # something is wrong, but what? ("defective" is MVTec AD's name for the defects of its toothbrush)
    {"anomaly", "anomalous", "abnormal", "bad", "defect", "defects", "fail", "failed", "ko", "ng", "nok", "unhealthy"}
)


def is_normal(name: str, also: Collection[str] = ()) -> bool:
    """Tell whether a name means normal, whatever its case and its separators; `also` are names that the user gave."""
    return plain(name) in NORMAL or plain(name) in {plain(word) for word in also}


def defect(name: str) -> str:
    """Return the kind of defect that the name of a folder or a column tells, "" for none."""
    return "" if plain(name) in UNNAMED | NORMAL else name


def plain(name: str) -> str:
    """Return a name as the lists spell it: lower case, "_" between words."""
    return name.strip().casefold().replace("-", "_").replace(" ", "_")
