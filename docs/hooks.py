"""Fills the marks `<!-- generated: KIND NAME -->` of pages from cards, options and help texts; downloads nothing."""

from __future__ import annotations

import importlib
import inspect
import posixpath
import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

import typer
from markdown.extensions.toc import slugify

from zsadbench import datasets, encoders, methods, metrics
from zsadbench.cli import listing
from zsadbench.cli.main import app
from zsadbench.records import published
from zsadbench.support.options import changes, documented
from zsadbench.training import cross_dataset

MARK = re.compile(r"^<!-- generated: (\w+) ?([\w.]*) -->$", re.MULTILINE)
NOTHING_JOINED = "None is joined with measured numbers.\n"
PAGE = re.compile(r"docs/([\w/-]+\.md)(#[\w-]+)?")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Replace every mark of a page, and link pages and sections, such as §Map, that comments name; called by mkdocs."""

    def generated(mark: re.Match[str]) -> str:
        text = GENERATORS[mark[1]](*filter(None, [mark[2]]))
        folder = posixpath.dirname(page.file.src_uri)
        return PAGE.sub(lambda cited: f"[{cited[0]}]({posixpath.relpath(cited[1], folder)}{cited[2] or ''})", text)

    text = MARK.sub(generated, markdown)
    for title in sorted(re.findall(r"^## (.+)$", markdown, re.MULTILINE), key=len, reverse=True):
        text = text.replace(f"§{title}", f"[{title}](#{slugify(title, '-')})")
    return text


def all_methods() -> str:
    """Return the table of all methods, linked to their pages."""
    rows = [
        (f"[{row.title}]({row.name}.md)", f"`{row.name}`", row.facts["setting"], row.facts["reference"])
        for row in listing.rows("methods")
    ]
    return table(("method", "name", "setting", "reference"), rows)


def all_datasets() -> str:
    """Return the table of all datasets and their variants."""
    columns = ("domain", "categories", "normal", "anomalous", "levels", "licence")
    rows = [
        (f"`{row.name}`", row.title, *(row.facts[column] for column in columns)) for row in listing.rows("datasets")
    ]
    return table(("name", "dataset", *columns), rows)


def method(name: str) -> str:
    """Return a method's card and presets."""
    card = methods.lookup(name)[0].card
    facts = {
        "Paper": card.reference,
        "Code read": f"`{card.code}`" if card.code else "none",
        "Licence of the code": card.licence,
        "Setting": listing.setting(card),
        "Notes": card.notes,
    }
    return table(("Name", f"`{name}`"), [(key, fact) for key, fact in facts.items() if fact]) + presets(name)


def presets(name: str) -> str:
    """Return a table of what each preset changes of the options' defaults."""
    found = methods.lookup(name)[0].presets
    if len(found) == 1:
        return ""
    rows = [
        (
            f"`{methods.lookup(f'{name}.{preset}')[1]}`",
            ", ".join(f"`{option}={value}`" for option, value in changes(config).items()),
        )
        for preset, config in found.items()
    ]
    return "\n" + table(("preset", "options that differ from the defaults"), rows)


def options(name: str) -> str:
    """Return a method's options with their defaults and what the comments beside them say."""
    text = ""
    for kind in dict.fromkeys(type(config) for config in methods.lookup(name)[0].presets.values()):
        of = "" if not text else f"\nPresets such as {_first(name, kind)} have more options:\n\n"
        known = re.findall(r"^\| `(\w+)`", text, re.MULTILINE)
        rows = [row for row in fields(kind) if row[0].strip("`") not in known]
        text += of + (table(("option", "default", "meaning and source"), rows) if rows else "")
    return text


def _first(name: str, kind: type) -> str:
    found = methods.lookup(name)[0].presets
    return next(f"`{name}.{preset}`" for preset, config in found.items() if type(config) is kind)


def class_fields(path: str) -> str:
    """Return the fields of a class, by its dotted path, that a comment explains."""
    module, _, name = path.rpartition(".")
    return table(
        ("field", "default", "meaning"),
        [row for row in fields(getattr(importlib.import_module(module), name)) if row[2]],
    )


def fields(kind: type) -> list[tuple[str, str, str]]:
    """Return (name, default, comment) of each field of a class, inherited ones included."""
    return [(f"`{one.name}`", code(one.default), one.meaning) for one in documented(kind)]


def dataset(stem: str) -> str:
    """Return a table of a dataset's variants, and what their cards say in words."""
    rows, words = [], []
    for item in _datasets():
        if item.card is not None and item.name.partition(".")[0] == stem:
            card, name = item.card, f"`{item.name}`"
            levels = ", ".join(card.levels)
            counts = [sum(pair[label] for pair in card.expected.values()) for label in (0, 1)] if card.expected else []
            rows.append((name, " / ".join(map(str, counts)) or "?", levels, f"`{card.mask_rule}`", card.licence))
            words.append(f"\n{name}: {card.source}. {card.notes}\n")
    return table(("name", "normal / anomalous", "levels", "masks", "licence"), rows) + "".join(words)


def published_means(name: str) -> str:
    """Return the published dataset means that stand beside measured ones, a row a preset and dataset."""
    library = _library()
    rows, differs = [], {}
    for preset, config in methods.lookup(name)[0].presets.items():
        full = methods.lookup(f"{name}.{preset}")[1]
        trained_on = frozenset(filter(None, getattr(config, "trained_on", "").split("+")))
        for item in _datasets():
            if cross_dataset.has_seen(trained_on, item.name):
                continue
            keys = [
                published.Key(full, config.encoder, getattr(config, "shots", 0), trained_on, item.name, "mean", *pair)
                for pair in metrics.columns()
            ]
            found = [library.find(key) for key in keys]
            if any(found):
                values = [f"{one.number.value:g}{'‡' if one.differs else ''}" if one else "–" for one in found]
                sources = dict.fromkeys(f"`{one.number.source}`" for one in found if one)
                rows.append((f"`{full}`", f"`{item.name}`", *values, ", ".join(sources)))
                differs |= dict.fromkeys(one.differs for one in found if one and one.differs)
    heads = [f"{level} {metrics.get(metric).title}" for level, metric in metrics.columns()]
    marked = "".join(f"\n‡ {text}.\n" for text in differs)
    return table(("method", "dataset", *heads, "source"), rows) + marked if rows else NOTHING_JOINED


@cache  # a look into every dataset's source, and into thousands of numbers
def _datasets() -> list[datasets.DatasetListing]:
    return datasets.available()


@cache
def _library() -> published.Library:
    return published.Library.read()


def weights() -> str:
    """Return which weight files the presets of all methods read, and where each is found."""
    users: dict[str, dict[str, None]] = {}
    for listed in methods.available():
        for config in methods.lookup(listed.name)[0].presets.values():
            for spec in (getattr(config, "encoder", ""), getattr(config, "text_encoder", "")):
                users.setdefault(spec, {})[listed.name] = None
    rows = [
        (f"`{spec}`", encoders.weight_source(spec).removeprefix("the file "), ", ".join(f"`{name}`" for name in names))
        for spec, names in users.items()
        if spec not in ("", "demo")
    ]
    return table(("encoder", "file", "methods"), rows)


def commands() -> str:
    """Return the help of every command, from typer."""
    return "\n".join(_command(path, command) for path, command in _walk((), typer.main.get_command(app)))


def _walk(path: tuple[str, ...], command: Any) -> Iterable[tuple[tuple[str, ...], Any]]:
    children = getattr(command, "commands", {})
    if not children:
        yield path, command
    for name, child in children.items():
        yield from _walk((*path, name), child)


def _command(path: Sequence[str], command: Any) -> str:
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    rows = []
    for one in command.params:
        named = f"`{one.name.upper()}`" if one in arguments else ", ".join(f"`{name}`" for name in sorted(one.opts))
        default = str(getattr(one.default, "value", one.default))
        rows.append(
            (
                named,
                "required" if one.required else code("" if default in ("None", "False") else default),
                one.help or "",
            )
        )
    usage = " ".join(["zsadbench", *path, *(one.name.upper() for one in arguments), "[OPTIONS]"])
    text = f"## {' '.join(path)}\n\n```text\n{usage}\n```\n\n{inspect.cleandoc(command.help or '')}\n\n"
    return text + table(("option", "default", "meaning"), rows)


def code(text: str) -> str:
    """Return a text in code font; nothing for nothing."""
    return f"`{text}`" if text else ""


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


GENERATORS: dict[str, Callable[..., str]] = {
    "methods": all_methods,
    "datasets": all_datasets,
    "method": method,
    "options": options,
    "dataset": dataset,
    "published": published_means,
    "fields": class_fields,
    "commands": commands,
    "weights": weights,
}
