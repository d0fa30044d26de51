"""What `run --dry-run` prints."""

from __future__ import annotations

from collections.abc import Iterator

from zsadbench.running.forecast import EncoderNeeded, Forecast
from zsadbench.support.store import in_words
from zsadbench.tables import sheet


def render(forecast: Forecast) -> str:
    """Return a forecast as paragraphs: cells, encoders, checkpoints and trainings, then what they need."""
    parts = (_cells(forecast), _encoders(forecast), _trained(forecast), _needs(forecast))
    return "\n\n".join(part for part in parts if part)


def _cells(forecast: Forecast) -> str:
    rows: dict[tuple[str, str, str, str], list[int]] = {}
    for cell in forecast.cells:
        rows.setdefault((cell.method, cell.dataset, cell.why, cell.problem), []).append(cell.images)
    if not rows:
        return "Nothing to run."
    body = [[method, data, len(own), sum(own), why] for (method, data, why, _), own in rows.items()]
    problems = dict.fromkeys(f"{name}: {problem}" for name, _, _, problem in rows if problem)
    return "\n".join([sheet.plain(["method", "dataset", "cells", "images", "why"], body), *problems])


def _encoders(forecast: Forecast) -> str:
    if not forecast.encoders:
        return ""
    return sheet.plain(["encoder", "weights"], [[one.spec, _weights(one)] for one in forecast.encoders])


def _weights(one: EncoderNeeded) -> str:
    if not one.sha256:
        return f"missing, to be downloaded: {one.source}"
    return f"{one.file or one.source}, SHA-256 {one.sha256[:12]}"


def _trained(forecast: Forecast) -> str:
    found = [one for one in forecast.checkpoints if one.files]
    lines = [f"{one.method}: {' '.join(one.files)}, SHA-256 {one.sha256[:12]}" for one in found]
    lines += [f"will first train: {command}" for command in forecast.trainings]
    return "\n".join(lines)


def _needs(forecast: Forecast) -> str:
    return "\n".join(_need(forecast)) if forecast.cells else ""


def _need(forecast: Forecast) -> Iterator[str]:
    yield f"Images: {forecast.images:,} different ones."
    if forecast.bytes_kept:
        yield f"Disk: at most {in_words(forecast.bytes_kept)} for the maps that are kept."
    if forecast.seconds is not None and forecast.bytes_temporary is not None:
        yield f"Disk while it runs: about {in_words(forecast.bytes_temporary)}."
        yield f"Time: about {_duration(forecast.seconds)} of prediction, by earlier runs here; trainings come on top."
    if forecast.unknown:
        shown = ", ".join(forecast.unknown[:5]) + (", ..." if len(forecast.unknown) > 5 else "")
        yield f"Time and disk are unknown for what has not run on this machine and device so far: {shown}."


def _duration(seconds: float) -> str:
    """Return a time as people say it: "1 h 02 min", "4 min", "12 s"."""
    minutes = round(seconds / 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02} min"
    return f"{minutes} min" if minutes else f"{max(seconds, 1):.0f} s"
