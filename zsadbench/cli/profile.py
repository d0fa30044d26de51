"""`zsadbench profile`: what methods cost. No logic lives here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zsadbench.cli.options import (
    DEFAULT_RUN,
    Device,
    Encoder,
    Plugins,
    Quiet,
    Weights,
    add_plugins,
    changes_of,
    say,
    say_encoder,
    show,
    weights_of,
)
from zsadbench.errors import UsageError
from zsadbench.records.efficiency import VISA_IMAGES, EfficiencyRecord, ProfileOptions
from zsadbench.support.texts import names_of

DEFAULT = ProfileOptions()


def profile(
    methods: Annotated[str, typer.Option(help='"all", or names like winclip,april_gan.visa.')],
    dataset: Annotated[
        str, typer.Option(help="Take the presets and the encoder that a run on this dataset would take.")
    ] = "",
    train: Annotated[bool, typer.Option("--train", help="Measure training steps of trained methods too.")] = False,
    out: Annotated[Path, typer.Option(help="Run folder; records go to its folder efficiency.")] = DEFAULT_RUN,
    encoder: Encoder = None,
    weights: Weights = None,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="For encoders that would be downloaded; marked in every table.")
    ] = False,
    set_: Annotated[list[str] | None, typer.Option("--set", help="METHOD.FIELD=VALUE; may be repeated.")] = None,
    device: Device = "auto",
    precision: Annotated[str, typer.Option(help="fp32, bf16 or fp16 encoder passes.")] = "fp32",
    threads: Annotated[int | None, typer.Option(min=1, help="On the CPU; by default torch's.")] = None,
    batches: Annotated[
        str, typer.Option(help="Batch sizes, tried until one is no faster; the first is the latency's.")
    ] = (",".join(map(str, DEFAULT.batches))),
    category_images: Annotated[
        int, typer.Option(min=2, help="For methods that see a whole category: their cost an image grows with it.")
    ] = DEFAULT.category_images,
    warmup: Annotated[int, typer.Option(min=0, help="Passes that are not measured.")] = DEFAULT.warmup,
    repeat: Annotated[int, typer.Option(min=1, help="Passes that are measured.")] = DEFAULT.repeat,
    steps: Annotated[int, typer.Option(min=1, help="Training steps that are measured.")] = DEFAULT.steps,
    epoch_images: Annotated[
        int, typer.Option(min=1, help="Images of an epoch; by default VisA's test split.")
    ] = VISA_IMAGES,
    plugins: Plugins = None,
    quiet: Quiet = False,
) -> None:
    """Measure latency, throughput, memory, parameters and FLOPs of methods, and what training them costs."""
    add_plugins(plugins)
    from zsadbench.running.request import make_request

    request = make_request(
        methods=methods,
        datasets=(dataset,) if dataset else (),
        out=out,
        encoder=encoder,
        weights=weights_of(weights or []),
        changes=changes_of(set_ or []),
        device=device,
        protocol={"precision": precision},
    )
    options = ProfileOptions(
        random_weights=random_weights,
        batches=_sizes(batches),
        category_images=category_images,
        warmup=warmup,
        repeat=repeat,
        threads=threads,
        train=train,
        steps=steps,
        epoch_images=epoch_images,
        plugin_folders=tuple(plugins or ()),
    )
    say_encoder(encoder, request.encoder)
    request = request.on_device()
    from zsadbench.profiling import measure
    from zsadbench.records import efficiency
    from zsadbench.tables import efficiency as efficiency_table

    records = []
    for record in measure.profile(request, options):
        records.append(record)
        path = efficiency.save(request.out, record)
        if not quiet:
            say(f"{record.method}: {_told(record)} ({path})")
    show(efficiency_table.render(records, []).rstrip("\n"))
    raise typer.Exit(1 if any(record.status == "failed" for record in records) else 0)


def _sizes(text: str) -> tuple[int, ...]:
    parts = names_of(text, "--batches")
    sizes = tuple(int(part) for part in parts if part.isdigit() and int(part) > 0)
    if len(sizes) < len(parts) or list(sizes) != sorted(set(sizes)):
        raise UsageError(f"--batches {text}: expected ascending numbers of images, separated by commas, e.g. 1,2,4.")
    return sizes


def _told(record: EfficiencyRecord) -> str:
    if record.status == "failed":
        return f"failed. {record.reason}"
    first, best = record.timings[0], record.best
    return (
        f"{first.median_ms:.1f} ms an image at batch {first.batch}, {best.images_per_second:.1f} images a second at "
        f"batch {best.batch} ({record.stopped})"
    )
