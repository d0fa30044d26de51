"""Weight files of the Hugging Face hub: found in its local cache without a network, else downloaded and checked.

The hub's client asks for a file again and again when nobody answers, also for one that it has. Here what lies in its
cache is used as it is, the hub is asked once whether it is there at all, and what arrives is held to its digest.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import NamedTuple

from zsadbench.errors import WeightsError
from zsadbench.support import files

PATIENCE = 5.0  # seconds that the hub has to answer at all


class Place(NamedTuple):
    """Where the weights of a SPEC come from: a page of the hub, or an address."""

    page: str = ""  # on the hub, "timm/vit_base_patch32_clip_224.openai"; "" for an address
    names: tuple[str, ...] = ()  # of the file there; the first that exists counts
    revision: str | None = None
    url: str = ""

    @property
    def words(self) -> str:
        """Say which file has the weights."""
        return f"the file {self.page}/{self.names[0]} of the Hugging Face hub" if self.page else f"the file {self.url}"

    @property
    def suffix(self) -> str:
        """What the name of the file ends in."""
        return Path(self.names[0] if self.page else self.url).suffix


def cached(place: Place) -> Path | None:
    """Return the file where the hub's client has kept it, without asking the hub; None if it is not there."""
    from huggingface_hub import try_to_load_from_cache

    for name in place.names:
        found = try_to_load_from_cache(place.page, name, revision=place.revision)
        if isinstance(found, str):
            return Path(found)
    return None


def download(place: Place) -> Path:
    """Return the file of a page of the hub, downloaded. Raises WeightsError, or what the hub's client raises."""
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    if huggingface_hub.constants.HF_HUB_OFFLINE:
        raise WeightsError("HF_HUB_OFFLINE is set")
    _ask(huggingface_hub.constants.ENDPOINT)
    for name in place.names:
        try:
            path = Path(huggingface_hub.hf_hub_download(place.page, name, revision=place.revision))
        except EntryNotFoundError:
            continue
        _check(path)
        return path
    raise WeightsError(f"the hub has no {' or '.join(place.names)} on the page {place.page}")


@cache
def _answer(endpoint: str) -> str:
    """Return "" if anybody answers at an address, else what went wrong; asked once a process."""
    from huggingface_hub import get_session

    try:
        get_session().head(endpoint, timeout=PATIENCE)
    except Exception as error:  # of one HTTP library or another
        return f"{type(error).__name__}: {error}"
    return ""


def _ask(endpoint: str) -> None:
    if problem := _answer(endpoint):
        raise WeightsError(f"{endpoint} does not answer, {problem}")


def _check(path: Path) -> None:
    """Remove a file that is not what the hub announced. Raises WeightsError.

    The client files what it downloads under the name that the hub gave it, which for large files is their SHA-256.
    """
    blob = path.resolve()
    if len(blob.name) == 64 and files.sha256(blob) != blob.name:
        path.unlink()
        blob.unlink(missing_ok=True)
        raise WeightsError(f"{path.name} arrived damaged, its digest is not the announced one; it was removed")
