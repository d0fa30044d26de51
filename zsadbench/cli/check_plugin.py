"""`zsadbench check-plugin`: a method or dataset held to its contract. No logic lives here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from zsadbench.cli.options import DataRoot, Plugins, add_plugins, say, show
from zsadbench.errors import DatasetNotFound, UsageError, ZsadError

OF_METHOD = """\
shapes, types and finite numbers; equal results of equal calls; inputs,
encoder and settings left as they were; no gradients kept; all features declared;
results depend on what the card's scope allows"""
OF_DATASET = """\
test samples found, and the same ones twice; names unique and
independent of the machine; labels, defects and masks agree with each other and
with the card; no image opened while scanning"""


def check_plugin(
    name: Annotated[str, typer.Argument(help="A method, with a preset or without, or a dataset.")],
    encoder: Annotated[
        str, typer.Option(metavar="SPEC", help="A small one, on which a method is tried with toy images.")
    ] = "tiny",
    data_root: DataRoot = None,
    plugins: Plugins = None,
) -> None:
    """Hold a method, all its presets, or a dataset to its contract; exit code 1 with a sentence when it breaks it."""
    add_plugins(plugins)
    from zsadbench.api import listing
    from zsadbench.support import traces

    kind, found = listing.resolve(name.partition("=")[0])
    failed = False
    for told, check in _of_method(found, encoder) if kind == "method" else _of_dataset(name, data_root):
        try:
            check()
        except (KeyboardInterrupt, UsageError, DatasetNotFound):
            raise
        except BaseException as error:  # whatever a plugin raises, SystemExit too
            failed = True
            ours = isinstance(error, AssertionError | ZsadError)
            say(f"{told}: {(ours and str(error)) or traces.sentence(error)}")
        else:
            show(f"{told}: keeps its contract")
    say(f"Checked: {OF_METHOD if kind == 'method' else OF_DATASET}.")
    raise typer.Exit(1 if failed else 0)


def _of_method(name: str, encoder: str) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield what is checked and its check: the preset that is named, or all of them."""
    from zsadbench import methods
    from zsadbench.support import variants
    from zsadbench.testing import check_method

    method, full, _ = methods.lookup(name)
    stem = variants.stem_of(full)
    for one in [full] if name != stem else [methods.lookup(f"{stem}.{preset}")[1] for preset in method.presets]:
        yield one, partial(check_method, one, encoder)


def _of_dataset(name: str, data_root: Path | None) -> Iterator[tuple[str, Callable[[], None]]]:
    from zsadbench import datasets
    from zsadbench.testing.dataset import check_dataset

    yield name, lambda: check_dataset(datasets.create(name, data_root))
