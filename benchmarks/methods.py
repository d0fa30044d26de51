"""What methods cost beside a bare encoder pass over the same images, as Markdown tables.

    python benchmarks/methods.py --quick
    python benchmarks/methods.py --model vit_b_16_plus_240
    python benchmarks/methods.py --model vit_l_14_336 --methods fiseclip.se,fiseclip.fi,fiseclip,musc --repeat 3

Encoders have random weights; methods run at the resolution that they were published with, or at the encoder's own. A
round measures the bare pass and then every method on the same images; the number is the median over rounds of
the ratio within a round. Not counted, because they happen once a category: text features (the warm-up computes them)
and references. Not counted either: decoding, and evaluation.

With one thread on the CPU the clock is the process's CPU time, which a busy machine hardly moves.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from a checkout without installing it

from zsadbench import encoders, methods
from zsadbench.components import mutual
from zsadbench.datasets import Category
from zsadbench.encoders.base import Encoder
from zsadbench.encoders.features import FeatureRequest
from zsadbench.methods import Batch, Method, TrainableMethod
from zsadbench.running import loading
from zsadbench.support.meters import Stopwatch

MODELS = {
    "vit_b_16_plus_240": "open_clip:ViT-B-16-plus-240/laion400m_e31",
    "vit_l_14_336": "open_clip:ViT-L-14-336/openai",
    "tiny": "tiny",
}
METHODS = (
    "winclip,winclip.1shot,clip_surgery,clip_surgery.direct,clip_ad,fiseclip.se,fiseclip.fi,fiseclip,"
    "dual_image_clip,musc.pair,musc,patchcore,april_gan,clip_ad.sdp_plus_visa,anomalyclip,adaclip,aa_clip,bayes_pfl"
)
CATEGORY = Category("metal_nut", "metal nut", "benchmark")
NOTHING = FeatureRequest()


class Candidate(NamedTuple):
    """A method and the least number of images that it can be asked for."""

    name: str
    method: Method
    least: int


def make_candidates(names: Sequence[str], model: str, device: str) -> dict[Encoder, list[Candidate]]:
    """Return the methods, ready to predict, by the encoder that they share."""
    known: dict[int | None, Encoder] = {}
    found: dict[Encoder, list[Candidate]] = {}
    for name in names:
        kind, full, config = methods.lookup(name)
        size = config.size if config.encoder == MODELS[model] else None
        if size not in known:
            known[size] = encoders.load(MODELS[model], size=size, device=device, random_weights=True)
        method = methods.build(kind, full, config, known[size])
        if isinstance(method, TrainableMethod):
            method.initialise(seed=0)
        if method.shots:
            method.remember(make_batch(known[size], method.shots, seed=1))
        least = method.batch_images or (2 if full.partition(".")[0] == "musc" else 1)
        found.setdefault(known[size], []).append(Candidate(full, method, least))
    return found


def make_batch(encoder: Encoder, images: int, seed: int = 0, request: FeatureRequest = NOTHING) -> loading.ImageBatch:
    """Return random images that nothing is known of yet; their first pass answers `request` at least."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(images, 3, encoder.size, encoder.size, generator=generator).to(encoder.device)
    rows = {Path(f"{seed}_{i}.png"): image for i, image in enumerate(pixels)}
    store = loading.ChunkStore(tuple(rows), images, rows.__getitem__, encoder.device)
    store.expected[encoder.key] = request
    return loading.batch_of(store, CATEGORY, 0, images)


def predict(method: Method, batch: Batch) -> None:
    """Predict a batch in the parts that the method's scope asks for."""
    size = method.batch_images if method.scope == "batch" else None
    for part in batch.split(size or len(batch)):
        method.predict(part)


def measure_methods(
    encoder: Encoder, candidates: Sequence[Candidate], batches: Sequence[int], repeat: int, watch: Stopwatch
) -> tuple[list[list[Any]], dict[str, float]]:
    """Return the table's lines [method, a ratio a batch size, best ratio] and the best seconds an image by method."""
    whole = FeatureRequest(tokens={encoder.depth}, cls=True)  # every token through every block, as in the libraries
    ratios: dict[tuple[str, int], list[float]] = {}
    seconds: dict[tuple[str, int], list[float]] = {}
    for size in batches:
        for turn in range(-1, repeat):  # round -1 warms up
            pixels = make_batch(encoder, size).images
            bare = watch(lambda pixels=pixels: encoder.encode(pixels, whole)) / size
            taken = {"bare pass": bare}
            for name, method, least in candidates:
                if size >= least:
                    batch = make_batch(encoder, size)
                    taken[name] = watch(lambda method=method, batch=batch: predict(method, batch)) / size
            for name, value in taken.items() if turn >= 0 else ():
                ratios.setdefault((name, size), []).append(value / bare)
                seconds.setdefault((name, size), []).append(value)
    best: dict[str, float] = {}
    for (name, _), values in seconds.items():
        best[name] = min(best.get(name, float("inf")), statistics.median(values))
    lines = []
    for name, value in best.items():
        cells = [
            f"{statistics.median(ratios[name, size]):.2f}" if (name, size) in ratios else "–" for size in batches
        ]  # fmt: skip
        lines.append([name, *cells, f"{value / best['bare pass']:.2f}", f"{1000 * value:.0f}"])
    return lines, best


def measure_sharing(
    encoder: Encoder, candidates: Sequence[Candidate], images: int, repeat: int, watch: Stopwatch
) -> list[str]:
    """Return [methods, ratio, costliest]: one run of all over the costliest alone, WinCLIP's windows aside."""
    members = [one for one in candidates if one.name.partition(".")[0] != "winclip" and one.least <= images]
    ratios, costliest = [], ""
    for turn in range(-1, repeat):
        merged = NOTHING
        for one in members:
            merged = merged | one.method.request
        batch = make_batch(encoder, images, request=merged)
        together = watch(lambda batch=batch: [predict(one.method, batch) for one in members])
        alone = {
            one.name: watch(
                lambda one=one: predict(one.method, make_batch(encoder, images, request=one.method.request))
            )
            for one in members
        }
        costliest = max(alone, key=alone.__getitem__)
        if turn >= 0:
            ratios.append(together / alone[costliest])
    return [str(len(members)), f"{statistics.median(ratios):.2f}", costliest]


def measure_matching(encoder: Encoder, method: Any, images: int, repeat: int, watch: Stopwatch) -> list[str]:
    """Return [images, ratio]: MuSc's matching over the matrix products of its image pairs, on ready features."""
    batch = make_batch(encoder, images, request=method.request)
    batch.features(encoder, method.request)
    sides, layers = method.config.neighbourhoods, method.layers
    tokens = mutual.aggregate(mutual.normalise(batch.features(encoder, method.request).tokens(layers[0])), 1)
    out = tokens.new_empty(tokens.shape[1], tokens.shape[1])

    def products() -> None:
        for _ in range(len(layers) * len(sides)):
            for i in range(images):
                for j in range(i + 1, images):
                    torch.mm(tokens[i], tokens[j].T, out=out)

    ratios = []
    for turn in range(-1, repeat):
        plain = watch(products)
        matching = watch(lambda: method.patch_scores(batch))
        ratios += [matching / plain] if turn >= 0 else []
    return [str(images), f"{statistics.median(ratios):.2f}"]


def report(encoder: Encoder, candidates: Sequence[Candidate], options: argparse.Namespace, watch: Stopwatch) -> None:
    """Measure the methods of one encoder and print their tables."""
    batches = [int(size) for size in options.batches.split(",")]
    lines, best = measure_methods(encoder, candidates, batches, options.repeat, watch)
    print(f"\n### {options.model}, {encoder.size} px, {encoder.grid**2} patches\n")
    head = ["method", *(f"batch {size}" for size in batches), "best batch", "ms an image"]
    print(tabulate(lines, head, tablefmt="pipe", disable_numparse=True))
    if {"fiseclip.fi", "fiseclip.se"} <= best.keys() and 2 in batches:
        cost = {line[0]: float(line[1 + batches.index(2)]) for line in lines}
        print(f"\n- FiCLIP over SeCLIP at batch 2: {cost['fiseclip.fi'] / cost['fiseclip.se']:.2f}")
    if len(candidates) > 1:
        count, ratio, costliest = measure_sharing(encoder, candidates, max(batches), options.repeat, watch)
        print(f"- {count} methods in one run over the costliest of them alone ({costliest}): {ratio}")
    for name, method, _ in candidates:
        if name == "musc":
            images, ratio = measure_matching(encoder, method, options.matching_images, options.repeat, watch)
            print(f"- matching of {name} on {images} images over the plain products of their pairs: {ratio}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="vit_b_16_plus_240")
    parser.add_argument("--methods", default=METHODS)
    parser.add_argument("--batches", default="1,2,4", help="images a batch")
    parser.add_argument("--repeat", type=int, default=5, help="rounds")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--matching-images", type=int, default=32)
    parser.add_argument("--quick", action="store_true", help="smoke test: tiny encoder, one round")
    options = parser.parse_args()
    if options.quick:
        options.model, options.repeat, options.matching_images = "tiny", 1, 4
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")  # representative vectors of random text collapse to the mean
    watch = Stopwatch(options.device, options.threads)
    print(
        "Ratios to the bare encoder pass, every token through every block, at the same batch size; best batch: both at "
        f"their best. Median of {options.repeat} rounds. Device {options.device}, {options.threads} threads, "
        f"torch {torch.__version__}."
    )
    with torch.inference_mode():
        for encoder, candidates in make_candidates(options.methods.split(","), options.model, options.device).items():
            report(encoder, candidates, options, watch)


if __name__ == "__main__":
    main()
