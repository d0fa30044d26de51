"""`zsadbench figure`: maps, efficiency, ranks, study and sweep as PNG, PDF or SVG. No logic lives here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zsadbench.cli.options import DataRoot, Plugins, add_plugins, say
from zsadbench.support.texts import names_of

if TYPE_CHECKING:
    from zsadbench.figures.drawing import Drawing

app = typer.Typer(help="Draw figures for print from runs and studies.", no_args_is_help=True)

Runs = Annotated[list[Path], typer.Argument(help="Run folders; their records are shown together.")]
Out = Annotated[Path, typer.Option("--out", help="Picture file: .png, .pdf or .svg.")]


@app.command()
def maps(
    runs: Runs,
    out: Out,
    dataset: Annotated[
        str, typer.Option(help="Name, or NAME=FOLDER if it moved; may be left out where a run has one.")
    ] = "",
    category: Annotated[str, typer.Option(help="May be left out where the dataset has one.")] = "",
    samples: Annotated[str, typer.Option(help="worst, random, first, or names separated by commas.")] = "worst",
    count: Annotated[int, typer.Option(min=1, help="How many samples, unless they are named.")] = 6,
    methods: Annotated[str, typer.Option(help="Columns, in this order; by default all methods.")] = "",
    overlay: Annotated[bool, typer.Option("--overlay", help="Lay heat-maps on the image in grey.")] = False,
    data_root: DataRoot = None,
    plugins: Plugins = None,
) -> None:
    """Draw image, ground truth and a heat-map a method for samples of a category; needs `run --save-maps`."""
    add_plugins(plugins)
    from zsadbench.figures import drawing, gather

    drawing.check_suffix(out)
    columns = names_of(methods, "--methods") if methods else ()
    wanted = names_of(samples, "--samples")
    _save(gather.maps(runs, dataset, category, wanted, count, columns, overlay, data_root), out)


@app.command()
def efficiency(
    runs: Runs,
    out: Out,
    dataset: Annotated[str, typer.Option(help="Where quality is shown; may be left out where a run has one.")] = "",
    plugins: Plugins = None,
) -> None:
    """Draw quality against time and memory an image; needs `zsadbench profile` with the run's folder."""
    add_plugins(plugins)
    from zsadbench.figures import drawing, gather

    drawing.check_suffix(out)
    _save(gather.efficiency(runs, dataset), out)


@app.command()
def ranks(
    runs: Runs,
    out: Out,
    level: Annotated[str, typer.Option(help="image or pixel.")] = "image",
    metric: Annotated[str, typer.Option(help="auroc, f1_max, ap or aupro.")] = "auroc",
) -> None:
    """Draw the critical-difference figure: methods by average rank, bars over those that no test tells apart."""
    from zsadbench.figures import drawing, gather

    drawing.check_suffix(out)
    _save(gather.ranks(runs, level, metric), out)


@app.command()
def study(
    name: Annotated[str, typer.Argument(help="A name of `zsadbench study --list`, or the path of a study file.")],
    out: Out,
    run: Annotated[Path | None, typer.Option("--run", help="The study's --out; by default runs/studies/NAME.")] = None,
    metrics: Annotated[str, typer.Option(help="Panels, e.g. image.auroc,pixel.ap; by default all.")] = "",
    plugins: Plugins = None,
) -> None:
    """Draw a study: its metrics over the swept option, measured and published."""
    add_plugins(plugins)
    from zsadbench.figures import drawing
    from zsadbench.figures import study as study_series
    from zsadbench.figures import sweep as sweeps
    from zsadbench.running import studies

    drawing.check_suffix(out)
    found = studies.load(name)
    series = study_series.collect(found, run or Path("runs/studies") / found.name)
    _save(sweeps.draw(series, names_of(metrics, "--metrics") if metrics else ()), out)


@app.command()
def sweep(
    runs: Runs,
    out: Out,
    option: Annotated[str, typer.Option(help="The option along the axis; needed where variants differ in more.")] = "",
    methods: Annotated[str, typer.Option(help="Whose variants; by default of all methods.")] = "",
    metrics: Annotated[str, typer.Option(help="Panels, e.g. image.auroc,pixel.ap; by default all.")] = "",
) -> None:
    """Draw the variants of `zsadbench run --sweep`: their metrics over the option, the best with a ring."""
    from zsadbench.figures import drawing, gather

    drawing.check_suffix(out)
    wanted = names_of(methods, "--methods") if methods else ()
    _save(gather.sweep(runs, option, wanted, names_of(metrics, "--metrics") if metrics else ()), out)


def _save(drawing: Drawing, out: Path) -> None:
    from zsadbench.figures.drawing import save

    save(drawing.figure, out)
    say(f"{out}. Caption: {drawing.caption}")
