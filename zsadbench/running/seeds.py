"""A run that is made with several seeds: one run folder a seed, and only for what a seed changes.

The seed draws the order of images (which matters where the images of a batch see each other), the references of
few-shot methods, the images of --limit, and trainings. What none of them changes runs with the first seed alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from zsadbench.data import contents
from zsadbench.datasets import Dataset
from zsadbench.errors import UsageError
from zsadbench.records import places, results
from zsadbench.running import executors
from zsadbench.running.backends import Backend
from zsadbench.running.plan import make_plan, shots
from zsadbench.running.planned import Plan, PlannedMethod, Resolved
from zsadbench.running.progress import Progress, Relay
from zsadbench.running.request import Request
from zsadbench.running.runner import Summary
from zsadbench.support import variants


class SeedRun(NamedTuple):
    """A run with one seed."""

    request: Request
    plan: Plan


def make_plans(
    request: Request,
    sets: list[Dataset] | None = None,
    progress: contents.Progress | None = None,
    may_download: bool = True,
) -> list[SeedRun]:
    """Plan a request, once for each of its seeds. Raises as `make_plan`, for all seeds before anything is written."""
    folders = results.folders(request.out)
    if not request.seeds:
        if folders != [request.out]:
            raise UsageError(f"--out {request.out} holds a run of several seeds; give --seeds, or another --out.")
        return [SeedRun(request, make_plan(request, sets, progress, may_download))]
    if any(not places.is_note(path) for path in request.out.glob("*/*/*.json")):
        raise UsageError(f"--out {request.out} holds a run of one seed; choose another --out for --seeds.")
    found: list[SeedRun] = []
    for seed in request.seeds:
        out = results.seed_folder(request.out, seed)
        protocol = replace(request.protocol, seed=seed)
        own = replace(request, out=out, protocol=protocol, seeds=(), is_one_of_several=True)
        planned = make_plan(own, sets, progress, may_download)
        found.append(SeedRun(own, _varying(planned, own, found[0].plan) if found else planned))
    return found


def run(runs: Sequence[SeedRun], progress: Progress, backend: Backend | None) -> Summary:
    """Run plans one after another; returns how they ended, all together. Raises as `executors.run`."""
    whole = Summary(planned=0, skipped=0)
    progress.begin(sum(one.plan.cells for one in runs), sum(one.plan.images for one in runs))
    for one in runs:
        summary = executors.run(one.plan, one.request, _OfSeed(progress), backend)
        whole.planned += summary.planned
        whole.skipped += summary.skipped
        whole.done += summary.done
        for status, count in summary.counts.items():
            whole.counts[status] = whole.counts.get(status, 0) + count
    return whole


class _OfSeed(Relay):
    """A Progress of one of several runs, which were announced together."""

    def begin(self, cells: int, images: int) -> None:
        """Announce nothing."""


def _varying(plan: Plan, request: Request, first: Plan) -> Plan:
    """Return a plan without the methods that have the numbers of the first seed."""
    kept = {name for name, method in plan.methods.items() if _varies(method, first.methods[name], request)}
    suited = {
        dataset: {name: chosen for name, chosen in methods.items() if name in kept}
        for dataset, methods in plan.resolved.suited.items()
    }
    groups = (tuple(cell for cell in group if cell.planned.name in kept) for group in plan.groups)
    return replace(
        plan,
        groups=tuple(filter(None, groups)),
        done=tuple(path for path in plan.done if variants.from_folder(path.parent.name) in kept),
        resolved=Resolved(plan.resolved.sets, suited, plan.resolved.left_out),
    )


def _varies(planned: PlannedMethod, first: PlannedMethod, request: Request) -> bool:
    """Tell whether a seed may change the numbers of a method: as far as can be told before it is made."""
    method = planned.method
    return (
        request.protocol.limit is not None
        or (method.card.scope == "batch" and request.protocol.order == "shuffled")
        or shots(method, planned.config) > 0
        or planned.training is not None
        or planned.checkpoint_sha256 != first.checkpoint_sha256
    )
