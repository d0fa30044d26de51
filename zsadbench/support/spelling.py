"""Names in any spelling: `WinCLIP`, `april-gan` and `MVTec AD` mean the registered winclip, april_gan and mvtec."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from zsadbench.errors import UnknownName, UsageError


def match(kind: str, name: str, known: Iterable[str], others: Callable[[], Mapping[str, str]] = dict) -> str:
    """Return which of the known names is meant: the very one, or the only one of the same letters and digits.

    kind: what it names, in words. others: further names, such as titles, -> known names; asked only where none of
    `known` fits. Raises UnknownName where nothing fits, and UsageError where several do.
    """
    known = list(known)
    if name in known:
        return name
    wanted = _letters(name)
    found = {one for one in known if _letters(one) == wanted and wanted}
    found = found or {one for other, one in others().items() if _letters(other) == wanted and wanted}
    if not found:
        raise UnknownName(kind, name, known)
    if len(found) > 1:
        raise UsageError(f"{kind} {name!r} may be {' or '.join(sorted(found))}; type one of them.")
    return found.pop()


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name.casefold()))
