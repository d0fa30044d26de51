"""`zsadbench profile`: what methods cost. No logic lives here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zsadbench.cli.options import (
    DEFAULT_RUN,
    ENCODER,
    EXECUTION,
    METHODS,
    OUTPUT,
    Device,
    Encoder,
    Plugins,
    Precision,
    Quiet,
    Set,
    Weights,
    add_plugins,
    changes_of,
    option,
    say,
    say_encoder,
    show,
    weights_of,
)
from zsadbench.errors import UsageError
from zsadbench.records.efficiency import VISA_IMAGES, EfficiencyRecord, ProfileOptions
from zsadbench.support.texts import names_of

DEFAULT = ProfileOptions()
MEASUREMENT = "Measurement"  # a panel of --help


def profile(
    methods: Annotated[str, option(METHODS, "NAMES", '"all", or names like winclip,april_gan.visa.')],
    dataset: Annotated[str, option(METHODS, "NAME", "Presets and encoder as a run on it takes them.")] = "",
    set_: Set = None,
    encoder: Encoder = None,
    weights: Weights = None,
    random_weights: Annotated[
        bool, option(ENCODER, "", "For encoders that would be downloaded; marked in tables.", "--random-weights")
    ] = False,
    precision: Precision = "fp32",
    batches: Annotated[
        str, option(MEASUREMENT, "N,N,...", "Tried until one is no faster; the first is the latency's.")
    ] = (",".join(map(str, DEFAULT.batches))),
    category_images: Annotated[
        int, option(MEASUREMENT, "N", "For methods that see a category: their cost grows with it.", min=2)
    ] = DEFAULT.category_images,
    warmup: Annotated[int, option(MEASUREMENT, "N", "Passes that are not measured.", min=0)] = DEFAULT.warmup,
    repeat: Annotated[int, option(MEASUREMENT, "N", "Passes that are measured.", min=1)] = DEFAULT.repeat,
    train: Annotated[
        bool, option(MEASUREMENT, "", "Measure training steps of trained methods too.", "--train")
    ] = False,
    steps: Annotated[int, option(MEASUREMENT, "N", "Training steps that are measured.", min=1)] = DEFAULT.steps,
    epoch_images: Annotated[
        int, option(MEASUREMENT, "N", "Images of an epoch; by default VisA's test split.", min=1)
    ] = VISA_IMAGES,
    device: Device = "auto",
    threads: Annotated[int | None, option(EXECUTION, "N", "On the CPU; by default torch's.", min=1)] = None,
    plugins: Plugins = None,
    out: Annotated[Path, option(OUTPUT, "DIR", "Run folder; records go to its folder efficiency.")] = DEFAULT_RUN,
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
