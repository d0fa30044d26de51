"""`zsadbench show`: all that a method or a dataset says of itself. A dataset needs no torch; a method is imported."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

import typer

from zsadbench import datasets, methods
from zsadbench.api import listing
from zsadbench.cli import options
from zsadbench.cli.options import Plugins, add_plugins
from zsadbench.datasets import DatasetCard
from zsadbench.errors import counted
from zsadbench.methods import Method

SCOPES = {
    "image": "depend on their image alone",
    "batch": "depend on the images of their batch",
    "category": "depend on all test images of their category",
}
MASKS = {
    "gt0": "a value above 0 is anomalous",
    "gt127": "a value above 127 is anomalous",
    "index_gt0": "a palette index above 0 is anomalous",
}
LABEL = 14  # characters of a fact's name
WIDEST = 100  # columns of a terminal that are used

SECTION = "\N{SECTION SIGN}"  # as the comments of options cite their page


def show(
    name: Annotated[str, typer.Argument(help="A method, with a preset or without, or a dataset.")],
    plugins: Plugins = None,
) -> None:
    """Show a method or dataset: its card and notes, presets, options with defaults, and what it needs."""
    add_plugins(plugins)
    kind, found = listing.resolve(name)
    options.show("\n".join((_method if kind == "method" else _dataset)(found)))


def _method(name: str) -> Iterator[str]:
    kind, full, config = methods.lookup(name)
    card, stem = kind.card, name.partition(".")[0]
    yield f"{card.title} ({full})"
    yield ""
    yield from _facts(
        {
            "paper": card.reference,
            "code read": card.code or "none",
            "licence": card.licence and f"{card.licence} (of that code)",
            "maps": SCOPES[card.scope],
            "image scores": SCOPES[card.image_scope or card.scope],
            "encoder": _encoder(kind, config),
            "needs": ", ".join(_needs(full, kind, config)) or "nothing but images",
        }
    )
    if card.notes:
        yield ""
        yield from _wrapped(card.notes)
    yield from _presets(stem, kind)
    yield from _papers(stem)
    yield from _options(full, config)


def _encoder(kind: type[Method], config: Any) -> str:
    spec = getattr(config, "encoder", "")
    if not spec:
        return "none"
    size = f"at {config.size} pixels" if getattr(config, "size", None) else "at its own size"
    other = getattr(config, "text_encoder", "")
    text = f", and the text tower of {other}" if other else ", and its text tower"
    return f"{spec} {size}{text if kind.reads_text(config) else ''}"


def _needs(full: str, kind: type[Method], config: Any) -> Iterator[str]:
    trained_on = getattr(config, "trained_on", "")
    if trained_on:
        make = f"`zsadbench train --method {full} --dataset {trained_on}`, or " if "+" not in trained_on else ""
        yield f"weights trained on {trained_on.replace('+', ' and ')} ({make}--checkpoint {full}=PATH)"
    shots = getattr(config, "shots", kind.shots)
    if shots:
        yield f"{counted(shots, 'normal train image')} of each category"


def _presets(stem: str, kind: type[Method]) -> Iterator[str]:
    from zsadbench.support.options import changes

    yield from ("", "Presets, and what they change of the options' defaults")
    for preset, config in kind.presets.items():
        full = methods.lookup(f"{stem}.{preset}")[1]
        told = ", ".join(f"{option}={value}" for option, value in changes(config).items())
        alias = f" (also {stem}.{preset})" if full == stem and len(kind.presets) > 1 else ""
        yield from _item(f"{full}{alias}", told)


def _papers(stem: str) -> Iterator[str]:
    """Yield which presets bare names stand for, where papers used others than the usual one."""
    from zsadbench.records import published

    found = {key: preset for key, preset in published.presets().items() if key[0].partition(".")[0] == stem}
    for name in dict.fromkeys(name for name, _ in found):
        yield from ("", f"{name} alone means what its paper used, which is on")
        yield from (f"  {dataset:13} {found[name, dataset]}" for other, dataset in found if other == name)


def _options(full: str, config: Any) -> Iterator[str]:
    from zsadbench.support import options

    page = full.partition(".")[0]
    yield ""
    yield from _wrapped(f"Options, for --set {full}.NAME=VALUE; {SECTION} names a section of docs/methods/{page}.md")
    for option in options.documented(type(config)):
        value = options.text(getattr(config, option.name, ""))
        yield from _item(f"{option.name} = {value}", option.meaning)


def _dataset(name: str) -> Iterator[str]:
    cards = {item.name: item.card for item in datasets.available() if item.card}
    card, stem = cards[name], name.partition(".")[0]
    yield f"{card.title} ({name})"
    yield ""
    yield from _facts(
        {
            "paper": card.reference,
            "source": card.source,
            "fetch": f"zsadbench data fetch {name}" if card.downloads else "",
            "licence": card.licence,
            "levels": " and ".join(card.levels),
            "masks": MASKS[card.mask_rule] if card.pixel_level else "",
            "folder": f"{', '.join([stem, *card.folders])} below --data-root, or {name}=FOLDER" if card.folders else "",
            "training": f"on {_auxiliary(name)}, before a trained method is tested here",
            "variants": ", ".join(other for other in cards if other.partition(".")[0] == stem and other != name),
        }
    )
    if card.notes:
        yield ""
        yield from _wrapped(card.notes)
    if card.expected:
        yield from ("", *_categories(card))


def _auxiliary(name: str) -> str:
    from zsadbench.training import cross_dataset

    return cross_dataset.auxiliary(name)


def _categories(card: DatasetCard) -> Iterator[str]:
    from zsadbench.tables import sheet

    head = ["category", "normal", "anomalous", *(["train"] if card.expected_train else []), "noun in prompts"]
    rows = []
    for category, (normal, anomalous) in card.expected.items():
        train = [card.expected_train.get(category, "?")] if card.expected_train else []
        rows.append([category, normal, anomalous, *train, card.nouns.get(category, category.replace("_", " "))])
    yield sheet.plain(head, rows)


def _facts(facts: dict[str, str]) -> Iterator[str]:
    for label, text in facts.items():
        if text:
            yield from _wrapped(text, " " * LABEL, label.ljust(LABEL))


def _item(head: str, text: str) -> Iterator[str]:
    """Yield a thing and what is said of it, indented on lines of its own."""
    yield from _wrapped(head, "    ", "  ")
    if text:
        yield from _wrapped(text, "      ")


def _wrapped(text: str, indent: str = "", first: str | None = None) -> Iterable[str]:
    width = min(shutil.get_terminal_size().columns, WIDEST)
    return textwrap.wrap(
        text, width, initial_indent=indent if first is None else first, subsequent_indent=indent,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
