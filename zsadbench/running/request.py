"""What the user asks a run for."""

from __future__ import annotations

import os
import re
import threading
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

from zsadbench import datasets as dataset_plugins
from zsadbench import methods as method_plugins
from zsadbench.errors import UnknownName, UsageError
from zsadbench.methods import Method
from zsadbench.protocol import EvaluationProtocol
from zsadbench.support import meters, options, plugins, preset_names, variants
from zsadbench.support.cache import VARIABLE as CACHE
from zsadbench.support.store import LIMIT, Store, parse_size
from zsadbench.support.texts import names_of
from zsadbench.training.request import TrainRequest

CACHE_LIMIT = "ZSADBENCH_CACHE_LIMIT"
POSITIVE = ("eval_size", "aupro_limit", "limit", "batch_size")  # numbers of the protocol that must be above 0


@dataclass(frozen=True)
class Request:
    """What the user asked for; the fields are the options of `zsadbench run`."""

    methods: Sequence[str]
    datasets: Sequence[str]
    out: Path
    data_root: Path | None = None
    encoder: str | None = None  # replaces the encoder of every method that has one
    weights: Mapping[str, Path] = field(default_factory=dict)  # encoder SPEC -> local file
    checkpoints: Mapping[str, Path | Sequence[Path]] = field(default_factory=dict)  # method name -> trained weights
    checkpoint_folder: Path | None = None  # where our own checkpoints are looked for and trained; None: nowhere
    train: bool = True  # train what is missing there, if its data is at hand
    changes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # method name -> option -> value
    sweep: Mapping[str, Mapping[str, Sequence[Any]]] = field(default_factory=dict)  # method -> option -> its values
    seeds: Sequence[int] = ()  # the run is made once with each (`running.seeds`); (): with that of the protocol
    categories: Sequence[str] = ()
    device: str = "cpu"
    protocol: EvaluationProtocol = field(default_factory=EvaluationProtocol)
    allow_leak: bool = False
    fail_fast: bool = False
    timeout_per_batch: float | None = None  # seconds that a call of a method may take; None: for ever
    save_maps: bool = False  # keep finished maps for figures; no part of the protocol
    overwrite: bool = False  # replace finished cells of other options or another protocol
    is_one_of_several: bool = False  # seeds: weights of another training seed will not do
    cache: Path | None = None  # folder that keeps images and encoder passes between runs; None: nothing is kept
    cache_limit: int = LIMIT  # bytes that it may hold

    def store(self) -> Store | None:
        """Return what is kept between runs, as one run uses it."""
        return Store(self.cache, self.cache_limit) if self.cache is not None else None

    def on_device(self) -> Request:
        """Return the request with its device resolved, "auto" too. Raises UsageError where it is not there."""
        return replace(self, device=meters.checked_device(self.device))

    def checkpoint(self, name: str | None) -> tuple[Path, ...]:
        """Return what is given as trained weights under a name: files, or our own folder; nothing if nothing is."""
        given = self.checkpoints.get(name or "", ())
        return (given,) if isinstance(given, Path) else tuple(given)

    def checkpoint_name(self, method: type[Method], full: str) -> str | None:
        """Return the name under which a method's trained weights are given: of several, that of its preset wins."""
        names = preset_names.aliases(method.presets, full)
        return next((name for name in names if name in self.checkpoints), None)

    def changes_of(self, method: type[Method], full: str) -> dict[str, Any]:
        """Return the changed options of a method under its full name; those of its preset win."""
        return _given(self.changes, method, full)

    def variants_of(self, name: str) -> list[str]:
        """Return the methods that a name stands for: its variants, every combination of the values that are swept.

        Raises UnknownName, PluginError, or UsageError for an option that is given otherwise too.
        """
        method, full, _ = method_plugins.lookup(name)
        swept = _given(self.sweep, method, full)
        base, own = variants.split(full)
        for option in swept.keys() & {*self.changes_of(method, full), *own}:
            where = f"in {full}" if option in own else "with --set"
            raise UsageError(f"--sweep gives {base} several values of {option}, which is set {where} too; give one.")
        combinations = product(*([(option, one) for one in values] for option, values in swept.items()))
        named = [variants.join(base, own | {o: options.text(v) for o, v in some}) for some in combinations]
        return list(dict.fromkeys(method_plugins.lookup(one)[1] for one in named)) if swept else [name]


def _given(values: Mapping[str, Mapping[str, Any]], method: type[Method], full: str) -> dict[str, Any]:
    """Return what is given to a method under any of its names, option -> value; that of its preset wins."""
    names = reversed(preset_names.aliases(method.presets, full))
    return {option: value for name in names for option, value in values.get(name, {}).items()}


def make_request(
    *,
    methods: str | Sequence[str] = (),
    datasets: str | Sequence[str] = (),
    out: str | Path,
    data_root: str | Path | None = None,
    encoder: str | None = None,
    weights: Mapping[str, str | Path] | str | Path | None = None,
    checkpoints: Mapping[str, str | Path | Sequence[str | Path]] | None = None,
    checkpoint_folder: str | Path | None = None,
    changes: Mapping[str, Any] | None = None,
    sweep: Mapping[str, Any] | None = None,
    seeds: str | Sequence[int | str] = (),
    categories: str | Sequence[str] = (),
    device: str = "auto",
    protocol: Mapping[str, Any] | None = None,
    cache: str | Path | None = None,
    cache_limit: str | int | None = None,
    timeout_per_batch: float | str | None = None,
    plugin_folders: Iterable[str | Path] = (),
    **switches: bool,
) -> Request:
    """Make a request of what a user gives: the one door for the command line and for Python.

    methods, datasets, categories: names, or one text of names with commas. weights: a file by SPEC, or a folder of them
    (`encoders.in_folder`), beside those of the variable ZSADBENCH_WEIGHTS. changes: "METHOD.OPTION" -> value. sweep:
    "METHOD.OPTION" -> values, or one text of values with commas: the method runs with each of them, as variants.
    seeds: numbers, or one text with commas: the run is made with each. protocol: fields of `EvaluationProtocol`, values
    or texts. Where every data set is the demo set, the demo's own encoder is chosen unless another one is named. cache:
    a folder that keeps images and encoder passes between runs, by default what ZSADBENCH_CACHE names; cache_limit: its
    size, a number of bytes or a text such as "50GB", by default ZSADBENCH_CACHE_LIMIT. timeout_per_batch: seconds above
    0 that a call of a method may take, a number or a text; None and "" are for ever. switches: the boolean fields of
    Request.
    Names may be in any spelling, and stand in the request as they are registered. Raises UsageError for what is empty,
    unknown or out of range. torch is not imported for it, nor is any method: whether this machine has the device is
    asked by `Request.on_device`.
    """
    from zsadbench import encoders
    from zsadbench.encoders import names as encoder_names

    for folder in plugin_folders:
        plugins.add_folder(Path(folder))
    kept = cache or os.environ.get(CACHE)
    named = () if datasets == () else _names(datasets, "--datasets", dataset_plugins.registered_name)
    given = encoders.in_folder(weights) if isinstance(weights, str | Path) else weights or {}
    weight_files = {spec: Path(path).expanduser() for spec, path in given.items()}
    changed = _by_method(changes or {}, "--set")
    inherited = encoders.inherited()
    set_ = (own.get(option) for own in changed.values() for option in ("encoder", "text_encoder"))
    for spec in filter(None, (encoder, *weight_files, *set_)):
        encoder_names.check(spec, inherited | weight_files)
    return Request(
        methods=() if methods == () else _names(methods, "--methods", _method),
        datasets=named,
        out=Path(out).expanduser(),
        data_root=None if data_root is None else Path(data_root).expanduser(),
        encoder=encoder or demo_encoder(named),
        weights=inherited | weight_files,
        checkpoints={_method(name): _paths(given) for name, given in (checkpoints or {}).items()},
        checkpoint_folder=None if checkpoint_folder is None else Path(checkpoint_folder).expanduser(),
        changes=changed,
        sweep=_swept(sweep or {}),
        seeds=_seeds(seeds),
        categories=() if categories == () else names_of(categories, "--categories"),
        device=meters.check_device_name(device),
        protocol=make_protocol(protocol or {}),
        cache=Path(kept).expanduser() if kept else None,
        cache_limit=parse_size(str(cache_limit or os.environ.get(CACHE_LIMIT) or LIMIT)),
        timeout_per_batch=None if timeout_per_batch in (None, "") else _seconds(timeout_per_batch),
        **switches,
    )


def _seconds(given: float | str) -> float:
    """Return a number of seconds above 0. Raises UsageError."""
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < threading.TIMEOUT_MAX:  # what can be waited for; "nan" is refused too
        raise UsageError(f"--timeout-per-batch {given}: expected a number of seconds above 0, e.g. 60.")
    return seconds


def make_train_request(
    method: str,
    dataset: str,
    *,
    changes: Mapping[str, Any] | None = None,
    precision: str = "fp32",
    seed: int = 0,
    epochs: int | None = None,
    limit: int | None = None,
    **shared: Any,
) -> TrainRequest:
    """Make the request of a training: arguments and errors are those of `make_request`.

    changes: OPTION -> value of the method. epochs: of every stage; None for the recipe's. limit: images a category.
    """
    request = make_request(
        methods=[method],
        datasets=[dataset],
        changes={f"{method}.{option}": value for option, value in (changes or {}).items()},
        protocol={"precision": precision, "seed": seed, "limit": limit},
        **shared,
    ).on_device()
    return TrainRequest(
        method=request.methods[0],
        dataset=request.datasets[0],
        out=request.out,
        data_root=request.data_root,
        encoder=request.encoder,
        weights=request.weights,
        changes=changes or {},
        device=request.device,
        precision=request.protocol.precision,
        seed=request.protocol.seed,
        epochs=epochs,
        limit=request.protocol.limit,
        cache=request.cache,
        cache_limit=request.cache_limit,
    )


def make_protocol(given: Mapping[str, Any]) -> EvaluationProtocol:
    """Make a protocol of values or texts by field. Raises UsageError for an unknown field and for a wrong value."""
    kinds = typing.get_type_hints(EvaluationProtocol)
    values = {}
    for name, value in given.items():
        if name not in kinds:
            raise UnknownName("option of the protocol", name, kinds)
        option = f"--{name.replace('_', '-')}"
        if typing.get_origin(kinds[name]) is Literal and value not in typing.get_args(kinds[name]):
            raise UnknownName(option, str(value), typing.get_args(kinds[name]))
        try:
            values[name] = options.parse(str(value), kinds[name])
        except ValueError as error:
            raise UsageError(f"{option} {value}: {error}.") from None
        if name in POSITIVE and not isinstance(values[name], str | None) and values[name] <= 0:
            raise UsageError(f"{option} {value}: expected a number above 0.")
    return EvaluationProtocol(**values)


def demo_encoder(datasets: Sequence[str]) -> str | None:
    """Return the demo set's own small encoder where nothing else is asked for, None elsewhere."""
    return "demo" if datasets and all(re.split("[.=]", name)[0] == "demo" for name in datasets) else None


def _names(given: str | Sequence[str], option: str, registered: Callable[[str], str]) -> tuple[str, ...]:
    return tuple(map(registered, names_of(given, option)))


def _method(name: str) -> str:
    return name if name == "all" else method_plugins.registered_name(name)


def _paths(given: str | Path | Sequence[str | Path]) -> tuple[Path, ...]:
    return tuple(Path(path).expanduser() for path in ([given] if isinstance(given, str | Path) else given))


def _swept(given: Mapping[str, str | Sequence[Any]]) -> dict[str, dict[str, Sequence[Any]]]:
    """Return what is swept, method -> option -> values, of "METHOD.OPTION" -> values or a text with commas.

    Raises UsageError.
    """
    values = {
        target: [one for one in variants.parts(several) if one] if isinstance(several, str) else [*several]
        for target, several in given.items()
    }
    for target, several in values.items():
        if not several:
            raise UsageError(f"--sweep {target} has no values; expected some, e.g. fiseclip.lambda_=0.95,1.0,1.05.")
    return _by_method(values, "--sweep")


def _seeds(given: str | Sequence[int | str]) -> tuple[int, ...]:
    """Return seeds, each once. Raises UsageError."""
    if not given:
        return ()
    names = names_of(given if isinstance(given, str) else [str(one) for one in given], "--seeds")
    try:
        return tuple(dict.fromkeys(int(name) for name in names))
    except ValueError:
        raise UsageError(f"--seeds {','.join(names)}: expected whole numbers separated by commas.") from None


def _by_method(changes: Mapping[str, Any], door: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for target, value in changes.items():
        method, _, option = target.rpartition(".")
        if not method:
            raise UsageError(
                f"{door} {target}={value}: got no method; expected METHOD.FIELD=VALUE, e.g. winclip.temperature=0.01."
            )
        method = method_plugins.registered_name(method)
        method_plugins.check_options(method, [option])
        own = found.setdefault(method, {})
        if option in own:
            raise UsageError(f"{door} {method}.{option} is given twice, as {own[option]} and as {value}; give it once.")
        own[option] = value
    return found
