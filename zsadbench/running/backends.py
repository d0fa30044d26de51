"""Where cells may run beside this process, as `--executor` names it. `zsadbench.running.executors` uses it."""

from __future__ import annotations

from typing import NamedTuple

from zsadbench.errors import UsageError


class Backend(NamedTuple):
    """A joblib backend that `--executor` names."""

    name: str  # "loky", "dask" or "ray"
    workers: int | None = None  # None: as many as the cluster has
    address: str = ""  # of dask's scheduler, HOST:PORT


def parse(text: str) -> Backend | None:
    """Read "loky:4", "dask://HOST:PORT", "ray" or "" (this process: None). Raises UsageError."""
    kind, _, rest = text.partition(":")
    if not text:
        return None
    if kind == "loky" and rest.isdigit() and int(rest) > 0:
        return Backend("loky", workers=int(rest))
    if kind == "dask" and rest.startswith("//") and rest.rpartition(":")[2].isdigit():
        return Backend("dask", address=rest[2:])
    if text == "ray":
        return Backend("ray")
    raise UsageError(f"--executor {text}: expected loky:N with N processes, dask://HOST:PORT, or ray.")
