"""Methods share features, an encoder and a process: none of them may change what the others see.

Changed settings are noticed after each call (`zsadbench.support.calls`). Features and the encoder are looked at after
each chunk, for all methods at once, and before anything of a category is recorded. Where something has changed, the
category starts again with everything made anew: first with a look after each call, which tells the method and its
line, then without that method. So what is recorded is what a run without it records.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import torch

from zsadbench import encoders, methods
from zsadbench.encoders import weights as weight_files
from zsadbench.encoders.base import Encoder
from zsadbench.encoders.kept import KeptPasses, passes
from zsadbench.encoders.watch import Watch
from zsadbench.errors import ZsadError
from zsadbench.methods import Method, TrainableMethod
from zsadbench.running.loading import ChunkStore
from zsadbench.running.planned import Cell, EncoderChoice, PlannedMethod
from zsadbench.running.request import Request
from zsadbench.support import calls
from zsadbench.support.calls import Harm, Overdue
from zsadbench.support.guard import guard
from zsadbench.support.store import Store

NOBODY = Harm(
    "Something that the methods of this category share was changed while none of them was called, perhaps by a thread "
    "that one of them started. Run them one by one to see which."
)
Load = Callable[[EncoderChoice, Request], Encoder | None]
SHARE = 0.01  # of the time, at most, goes to looks at the encoder that are not the last of a category


class Disturbed(Exception):
    """What methods share was changed: their cells start again. `cell`, if that is known, did it."""

    def __init__(self, cell: Cell | None = None, problem: ZsadError | None = None) -> None:
        super().__init__()
        self.cell, self.problem = cell, problem or NOBODY


class Shared:
    """What methods share: an encoder (None: they have none), and in a pass the features of a category's chunks."""

    def __init__(self, encoder: Encoder | None, watch: Watch | None, store: ChunkStore | None = None) -> None:
        """`watch` was made when the encoder was loaded."""
        self._encoder, self._watch, self._store = encoder, watch, store
        self._next = 0.0  # when the encoder is looked at again

    def changed(self) -> list[str]:
        """Return what is not as it was, in words."""
        return self._changed_features(lately=False) + _changed_encoder(self._watch)

    def changed_so_far(self) -> list[str]:
        """Return the same, or of the encoder nothing where it is too early to look again."""
        began = time.perf_counter()
        if began < self._next:
            return self._changed_features(lately=True)
        found = self._changed_features(lately=True) + _changed_encoder(self._watch)
        now = time.perf_counter()
        self._next = now + (now - began) / SHARE
        return found

    def renew(self) -> None:
        """Have features computed anew, and take an encoder that was changed as it is now."""
        if self._store is not None:
            self._store.forget()
        if self._encoder is not None and _changed_encoder(self._watch):
            self._watch = Watch(self._encoder)

    def _changed_features(self, lately: bool) -> list[str]:
        names = self._store.changed(lately) if self._store is not None else []
        return [f"the features that it was lent ({', '.join(names)})"] if names else []


class Roster:
    """The methods of cells that agree on an encoder, made on one that none of them has changed."""

    def __init__(self, cells: Sequence[Cell], load: Load, request: Request) -> None:
        """`load` loads the encoder for the first time."""
        self.ready: dict[str, Method | ZsadError] = {}  # by full name: what is ready to predict, or why it is not
        self._planned = {cell.planned.name: cell.planned for cell in cells}
        self._request = request
        self._harmful: dict[str, Harm] = {}  # that changed something while they were made
        self._given_up: dict[str, Overdue] = {}
        self._make(load)

    @property
    def parameters(self) -> int:
        """How many weights the encoder has; 0 where there is none."""
        return self._encoder.parameters if self._encoder is not None else 0

    def renew(self) -> None:
        """Where the encoder was changed, load it and make the methods anew."""
        if _changed_encoder(self._watch):
            self._make(load_chosen)

    def kept(self, store: Store | None) -> KeptPasses | None:
        """Return the passes of the encoder that a store keeps, if there is one."""
        return passes(self._encoder, self._watch, store)

    def shared(self, store: ChunkStore) -> Shared:
        """Return what the methods share that work on a store."""
        return Shared(self._encoder, self._watch, store)

    def call(self, cell: Cell, action: Callable[[], Any], number: int, shared: Shared | None) -> Any:
        """Return what a method's action for a cell returns, and raise what it raises: Harm if it changed settings.

        number: of the action in the cell, on which what it draws depends, beside the seed of the run. shared: what to
        look at as well; None leaves that to the caller.
        """
        planned, request = cell.planned, self._request
        before = self._given_up.get(planned.name)
        if before is not None and before.thread is not None and before.thread.is_alive():
            raise Overdue(f"method {planned.name} is still at work on a batch that was given up, and gets no other.")
        facts = f"{request.protocol.seed} {cell.dataset.name} {cell.category.name} {number}"
        plugin = calls.Plugin(planned.name, planned.method)
        try:
            return calls.call(plugin, action, zlib.crc32(facts.encode()), request.timeout_per_batch, shared)
        except Overdue as error:
            self._given_up[planned.name] = error
            raise

    def _make(self, load: Load) -> None:
        """Load the encoder and make the methods; again without one that changes something meanwhile."""
        self._encoder: Encoder | None = None
        self._watch: Watch | None = None
        encoder = cache(partial(self._load, load))
        for name, planned in self._planned.items():
            made = self._harmful.get(name) or guard(partial(self._made, planned, encoder), self._request.fail_fast)
            if isinstance(made, Harm) and name not in self._harmful:
                self._harmful[name] = made
                self._make(load_chosen)
                return
            self.ready[name] = made

    def _load(self, load: Load) -> Encoder | None:
        with torch.inference_mode(False):  # its weights shall count how often they are written
            self._encoder = load(next(iter(self._planned.values())).encoder_choice, self._request)
        self._watch = Watch(self._encoder) if self._encoder is not None else None
        return self._encoder

    def _made(self, planned: PlannedMethod, encoder: Callable[[], Encoder | None]) -> Method:
        if planned.problem is not None:
            raise planned.problem
        plugin, build = calls.Plugin(planned.name, planned.method), partial(_build, planned, encoder())
        method: Method = calls.call(plugin, build, seed=0, shared=Shared(self._encoder, self._watch))
        return method


def load_chosen(choice: EncoderChoice, request: Request) -> Encoder | None:
    """Return the encoder that methods share in a run, None for methods without. Raises WeightsError."""
    precision = request.protocol.precision
    return encoders.load_for(choice, device=request.device, precision=precision, weights=request.weights)


def _build(planned: PlannedMethod, encoder: Encoder | None) -> Method:
    method = methods.build(planned.method, planned.name, planned.config, encoder)
    if isinstance(method, TrainableMethod) and planned.checkpoint:
        origin = " and ".join(map(str, planned.checkpoint))
        method.load_checkpoint(weight_files.read_checkpoint(*planned.checkpoint), origin)
        method.trained_on = planned.trained_on or method.trained_on
    return method


def _changed_encoder(watch: Watch | None) -> list[str]:
    return watch.changed() if watch is not None else []
