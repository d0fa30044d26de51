"""From what the user asked for to the cells that must be run, grouped so that methods share encoder passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from zsadbench import datasets, encoders, methods
from zsadbench.data import contents, findings
from zsadbench.data.findings import Finding
from zsadbench.datasets import Dataset
from zsadbench.errors import MissingDependency, MissingWeights, PluginError, ZsadError
from zsadbench.methods import Method, TrainableMethod
from zsadbench.running import checkpoint_choice, given, resume, same_images, targets
from zsadbench.running.checkpoint_choice import Choice, Chooser
from zsadbench.running.planned import Cell, EncoderChoice, Plan, PlannedMethod, Resolved
from zsadbench.running.request import Request
from zsadbench.running.resume import Parts, Standing
from zsadbench.running.targets import Target
from zsadbench.support import files, source
from zsadbench.training import cross_dataset


def resolve(request: Request, sets: list[Dataset] | None = None) -> Resolved:
    """Resolve names and options, and verify the datasets' folders. Raises as `make_plan`."""
    sets = targets.sets(request) if sets is None else sets
    names, left_out = importable(request)
    return Resolved(sets, {dataset.name: suited(names, dataset.name, request) for dataset in sets}, left_out)


def make_plan(
    request: Request,
    sets: list[Dataset] | None = None,
    progress: contents.Progress | None = None,
    may_download: bool = True,
) -> Plan:
    """Resolve names, verify the datasets' folders, and find out which cells are missing or out of date.

    A trained method's bare name stands for the preset that suits each dataset. sets: what `targets.sets` gave, where
    that was asked before. progress: told while files are read whose content is not known yet. may_download: weights
    that are not here; else the problem of their methods is MissingWeights. Raises UsageError, UnknownName, OptionError
    or DataError before any weights are loaded, and UsageError where the folder holds finished cells of another question
    (`zsadbench.running.resume`) or of other images under the same name.
    """
    resolved = resolve(request, sets)
    given.check(request, resolved.chosen, resolved.sets, resolved.left_out)
    return plan_cells(request, resolved, progress=progress, may_download=may_download)


def plan_cells(
    request: Request,
    resolved: Resolved,
    failures: Mapping[str, ZsadError] | None = None,
    progress: contents.Progress | None = None,
    may_download: bool = True,
) -> Plan:
    """Find out which cells of a request are missing or out of date.

    progress, may_download: as for `make_plan`. failures: why trainings failed, by the method's full name; its cells
    fail for that reason. Raises UsageError where the run folder holds finished cells of another question.
    """
    sets, suited = resolved.sets, resolved.suited
    for dataset in sets:
        same_images.refuse_another(request.out, dataset)
    named = [target for dataset in sets for target in targets.of(dataset, request)]
    images = _Images(named, {shots(method, config) for _, method, config in resolved.chosen}, request, progress)
    identify, chooser = _Identify(request.weights, may_download), Chooser(request)
    planned, seen = {}, {}
    for full, method, config in resolved.chosen:  # last: it may download weights
        failure = (failures or {}).get(full)
        planned[full], seen[full] = _plan_method(method, full, config, identify, chooser, failure)
    own = {full: _parts(method, request) for full, method in planned.items()}
    groups: dict[EncoderChoice, list[Cell]] = {}
    done, standings, known = [], [], []
    for target in named:
        for full in suited[target.dataset.name]:
            cell = images.cell(target, planned[full], own[full], seen[full])
            found = standing(cell, request)
            standings.append(found)
            unknown = isinstance(cell.planned.problem, MissingWeights)  # whether its record would stand
            if not unknown:
                known.append(found)
            if found.done:
                done.append(cell.path(request.out))
            else:
                cell = replace(cell, why="its weights are missing" if unknown else resume.why(found))
                groups.setdefault(cell.planned.encoder_choice, []).append(cell)
    resume.check(standings, request)
    told = [
        finding
        for dataset in sets
        for of in (findings.of_counts, findings.of_names)
        for finding in of(dataset, request.categories)
    ]
    told += [Finding("checkpoint", note, False) for note in chooser.notes]
    told += [Finding("finished cells", note, False) for note in resume.notes(known, request)]
    told += [Finding("method", f"Without {name}: {problem}", True) for name, problem in resolved.left_out.items()]
    return Plan(tuple(tuple(group) for group in groups.values()), tuple(done), resolved, planned, tuple(told))


def standing(cell: Cell, request: Request) -> Standing:
    """Return what a cell finds in its place of the run folder."""
    return resume.look(cell.path(request.out), cell.parts, request)


def resolve_methods(request: Request) -> tuple[dict[str, tuple[type[Method], Any]], dict[str, ZsadError]]:
    """Return the methods of a request by full name, (class, options), and those that cannot be imported, and why.

    They are those that suit its datasets, if it names any. Raises UnknownName, UsageError or OptionError.
    """
    names, left_out = importable(request)
    found = {full: (method, config) for method, full, config in (configure(name, request) for name in names)}
    if request.datasets:
        names_ = [datasets.name_of(name) for name in request.datasets]
        found = {full: chosen for target in names_ for full, chosen in suited(names, target, request).items()}
    given.check(request, [(full, *chosen) for full, chosen in found.items()], (), left_out)
    return found, left_out


def suited(names: Sequence[str], target: str, request: Request) -> dict[str, tuple[type[Method], Any]]:
    """Return the methods that run on a dataset, by full name: (class, options)."""
    found = {}
    for name in names:
        for variant in request.variants_of(checkpoint_choice.preset(name, target, request)):
            method, full, config = configure(variant, request)
            found[full] = method, config
    return found


def importable(request: Request) -> tuple[list[str], dict[str, ZsadError]]:
    """Return the methods that a request names and that can be imported, "all" spelt out; and why the others cannot.

    Raises UnknownName; PluginError or MissingDependency where no method is left or one suffices to stop the run.
    """
    names: list[str] = []
    left_out: dict[str, ZsadError] = {}
    for name in request.methods:
        if name == "all":
            found, problems = cross_dataset.everything()
            names, left_out = names + found, left_out | problems
            continue
        try:
            methods.lookup(name)
        except (PluginError, MissingDependency) as error:
            left_out[name] = error
        else:
            names.append(name)
    if left_out and (request.fail_fast or not names):
        raise next(iter(left_out.values()))
    return list(dict.fromkeys(names)), left_out


def configure(name: str, request: Request) -> tuple[type[Method], str, Any]:
    """Resolve a method's name and options; returns (class, full name, options)."""
    method, full, _ = methods.lookup(name)
    return methods.configure(name, request.encoder, request.changes_of(method, full))


def _plan_method(
    method: type[Method],
    full: str,
    config: Any,
    identify: _Identify,
    chooser: Chooser,
    failure: ZsadError | None,
) -> tuple[PlannedMethod, frozenset[str]]:
    """Return a method with its weights, and the marks of the images that those were trained on."""
    choice = Choice()
    weights = {"encoder": "", "text_encoder": ""}
    try:
        for kind in weights:
            weights[kind] = identify(getattr(config, kind)) if getattr(config, kind, "") else ""
    except ZsadError as error:
        failure = failure or error
    if issubclass(method, TrainableMethod) and failure is None:
        choice = chooser.choose(full, method, config, (*weights.values(),))
    planned = PlannedMethod(
        name=full,
        method=method,
        config=config,
        checkpoint=choice.paths,
        weights_sha256=weights["encoder"],
        checkpoint_sha256=files.sha256_of_all(choice.paths) if choice.paths else "",
        problem=failure or choice.problem,
        text_sha256=weights["text_encoder"],
        trained_on=choice.trained_on,
        checkpoint_differs=choice.differs,
        training=choice.training,
    )
    return planned, choice.images


class _Identify:
    """Hashes each encoder's weights once a plan, and remembers a failure: a hub that is out of reach answers slowly."""

    def __init__(self, weights: Mapping[str, Path], may_download: bool) -> None:
        self._weights, self._may_download = weights, may_download
        self._known: dict[str, str | ZsadError] = {}

    def __call__(self, spec: str) -> str:
        if spec not in self._known:
            try:
                self._known[spec] = encoders.identify(spec, self._weights, may_download=self._may_download)
            except ZsadError as error:
                self._known[spec] = error
        known = self._known[spec]
        if isinstance(known, ZsadError):
            raise known
        return known


def _parts(planned: PlannedMethod, request: Request) -> Parts:
    """Return everything but the images that a method's numbers depend on, as JSON values."""
    return {
        "protocol": asdict(request.protocol),
        "options": files.as_json(asdict(planned.config)),
        "weights": {"encoder": planned.weights_sha256, "text_encoder": planned.text_sha256},
        "checkpoint": {"sha256": planned.checkpoint_sha256},
        "code": {"zsadbench": source.of_harness(source.RESULTS), "method": source.of_plugin(planned.method)},
    }


def shots(method: type[Method], config: Any) -> int:
    """Return how many reference images a category a method with these options wants, without making it."""
    return int(getattr(config, "shots", method.shots))


class _Images:
    """Makes the cells of a plan: each list of images is drawn and hashed once, whichever methods see it."""

    def __init__(
        self, named: Sequence[Target], counts: set[int], request: Request, progress: contents.Progress | None
    ) -> None:
        seed = request.protocol.seed
        self._drawn = {(target, n): target.draw_references(n, seed) for target in named for n in counts}
        lists = [(target.dataset, target.samples) for target in named]
        lists += [(target.dataset, references.samples) for (target, _), references in self._drawn.items()]
        known = targets.read(lists, progress)
        self._digests = {target: {sample.image: known[sample.image] for sample in target.samples} for target in named}
        for (target, _), references in self._drawn.items():
            self._digests[target] |= {sample.image: known[sample.image] for sample in references.samples}
        self._marks = {target: contents.marks(target.samples, known) for target in named}
        self._data = {target: targets.identity(target.dataset, target.samples, known) for target in named}
        self._references = {
            key: targets.identity(key[0].dataset, references.samples, known) for key, references in self._drawn.items()
        }

    def cell(self, target: Target, planned: PlannedMethod, own: Parts, seen: frozenset[str]) -> Cell:
        """Return the cell of a method, whose numbers depend on `own` beside some images.

        seen: marks of the images that it was trained on; none where that is unknown.
        """
        key = target, shots(planned.method, planned.config)
        dataset, category, references = target.dataset, target.category, self._drawn[key]
        data = self._data[target] | {"noun": category.noun}
        if references.samples:
            data |= {"references_sha256": self._references[key]["content_sha256"]}
        parts = {
            **own,
            "cell": {"method": planned.name, "dataset": dataset.name, "category": category.name},
            "data": data,
            "code": {**own["code"], "dataset": source.of_plugin(type(dataset))},
        }
        count = len(self._marks[target] & seen) if seen else None
        own_images = self._digests[target]
        return Cell(planned, dataset, category, target.samples, parts, *references, digests=own_images, seen=count)
