"""`zsadbench weights`: which files the encoders of methods need. No logic lives here."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from zsadbench.cli.options import DEFAULT_RUN, AsJson, Encoder, Plugins, Weights, add_plugins, say, show, weights_of
from zsadbench.errors import MissingWeights

app = typer.Typer(help="The weight files of encoders.", no_args_is_help=True)


@app.callback()
def _weights() -> None:
    """Keep `list` a command of its own."""


@app.command("list")
def list_(
    methods: Annotated[str, typer.Option(help='"all", or names like winclip,april_gan.visa.')] = "all",
    datasets: Annotated[str, typer.Option(help="Names like mvtec,visa: they decide about presets.")] = "",
    encoder: Encoder = None,
    weights: Weights = None,
    plugins: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Show which files are needed, where they come from, what to call them in a folder, and whether they are here.

    Nothing is downloaded. `--weights DIR` takes a folder of files that are called so.
    """
    add_plugins(plugins)
    from zsadbench import encoders
    from zsadbench.running.plan import resolve_methods
    from zsadbench.running.request import make_request
    from zsadbench.tables import sheet

    request = make_request(
        methods=methods, datasets=datasets or (), out=DEFAULT_RUN, encoder=encoder, weights=weights_of(weights or [])
    )
    needed: dict[str, list[str]] = {}
    for full, (_, config) in resolve_methods(request)[0].items():
        for spec in encoders.specs(config):
            needed.setdefault(spec, []).append(full)
    rows: list[dict[str, Any]] = []
    for spec, names in sorted(needed.items()):
        place = encoders.weight_place(spec)
        try:
            digest = encoders.identify(spec, request.weights, may_download=False)
        except MissingWeights:
            digest = ""
        file = f"{encoders.file_stem(spec)}{place.suffix}" if place is not None else ""
        rows.append(
            {"encoder": spec, "methods": names, "file": file, "from": encoders.weight_source(spec), "sha256": digest}
        )
    if as_json:
        show(json.dumps(rows, indent=1))
        return
    for row in rows:
        show(row["encoder"])
        show(sheet.plain(["", ""], [
            ["here", f"yes, SHA-256 {row['sha256']}" if row["sha256"] else "missing"],
            ["from", row["from"]], ["call it", row["file"]], ["for", ", ".join(row["methods"])],
        ]).split("\n", 2)[2] + "\n")  # fmt: skip
    missing = sum(not row["sha256"] for row in rows)
    say(f"{len(rows)} encoders, the weights of {missing} are missing. --weights DIR takes a folder of such files.")
