"""The text tower of CLIP: sentences, or embeddings with learnable prompts in them, to vectors in the joint space."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from zsadbench.errors import UsageError, WeightsError

if TYPE_CHECKING:
    from open_clip import CLIP, SimpleTokenizer

Between = Callable[[int, Tensor], Tensor]  # (1-based block just passed, its output [K, C, width]) -> input of the next


class Keeper(Protocol):
    """What keeps encoded sentences between runs (`zsadbench.encoders.kept`)."""

    def sentences(self, sentences: Sequence[str], batch_size: int, compute: Callable[[], Tensor]) -> Tensor:
        """Return what `compute` returns, or returned in an earlier run."""


class TextEncoder:
    """A view of the causal text tower of an open_clip CLIP model; it shares the model's parameters and device.

    K sentences or prompts, context C tokens, `width` and `depth` (blocks) of the tower, `joint_width` J of the space
    shared with images.
    """

    def __init__(self, clip: CLIP, autocast: torch.dtype | None = None) -> None:
        """Wrap a model; `autocast` is the dtype of the matrix products, None for that of the weights.

        Raises WeightsError for a text tower of another kind than CLIP's: without the causal mask, with another
        pooling than the end token, or with another vocabulary.
        """
        pooling = getattr(clip, "text_pool_type", "argmax")
        if clip.attn_mask is None or pooling != "argmax":
            mask = "no causal mask" if clip.attn_mask is None else "a causal mask"
            raise WeightsError(
                f"The text tower has {mask} and pooling {pooling!r}; expected a causal mask and pooling 'argmax', as "
                "CLIP has. Choose an encoder with a CLIP text tower."
            )
        words = _tokenizer().vocab_size
        if clip.token_embedding.num_embeddings < words:
            raise WeightsError(
                f"The token embedding has {clip.token_embedding.num_embeddings} rows; CLIP's vocabulary has {words}. "
                "Scatter a compact table into all rows, or choose an encoder with CLIP's tokeniser."
            )
        self._clip = clip
        self._autocast = autocast
        self.keeper: list[Keeper] = []  # one at most; a list, which stays the same object while encoders are watched
        self._encoded: dict[tuple[str | int, ...], Tensor] = {}  # methods of one encoder often share their sentences
        self.context_length: int = clip.positional_embedding.shape[0]
        self.width: int = clip.positional_embedding.shape[1]
        self.depth: int = len(clip.transformer.resblocks)
        self.joint_width: int = _output_width(clip.text_projection, self.width)

    @property
    def module(self) -> CLIP:
        """The model that this is a view of; it may have a vision tower too."""
        return self._clip

    @property
    def device(self) -> torch.device:
        """Where the tower's weights lie."""
        device: torch.device = self._clip.token_embedding.weight.device
        return device

    @property
    def parameters(self) -> int:
        """How many values all weights of the tower have."""
        named = self._clip.named_parameters()  # those of the vision tower too, where the model has one
        return sum(parameter.numel() for name, parameter in named if is_text(name))

    def tokenize(self, sentences: Sequence[str]) -> Tensor:
        """Return token ids [K, context_length] int64: start, words, end (the largest id of a row), then zeros.

        Raises UsageError for a sentence that the context cannot hold; CLIP's own tokeniser would cut it silently.
        """
        tokenizer = _tokenizer()
        ids = torch.zeros(len(sentences), self.context_length, dtype=torch.long)
        for row, sentence in zip(ids, sentences, strict=True):
            tokens = [tokenizer.sot_token_id, *tokenizer.encode(sentence), tokenizer.eot_token_id]
            if len(tokens) > self.context_length:
                raise UsageError(
                    f"The sentence {sentence!r} has {len(tokens)} tokens; the text tower takes at most "
                    f"{self.context_length}. Shorten the class noun or the prompt."
                )
            row[: len(tokens)] = torch.tensor(tokens)
        return ids.to(self.device)

    def embed(self, ids: Tensor) -> Tensor:
        """Return the token embeddings of ids [K, C], without positions: [K, C, width]."""
        embeddings: Tensor = self._clip.token_embedding(ids)
        return embeddings

    def end_tokens(self, embeddings: Tensor, ends: Tensor, between: Between | None = None) -> Tensor:
        """Run the tower and return the end token of each row after the final norm, before the projection: [K, width].

        embeddings: [K, C, width] token embeddings without positions, C <= context_length; ends: [K] index of the token
        to read (`ids.argmax(-1)` for token ids). Tokens behind the last end are not computed: under the causal mask
        they cannot reach it. `between` is called after every block on the computed tokens, and returns what the
        next one shall read (deep prompts and adapters: AnomalyCLIP, AdaCLIP, AA-CLIP).
        Differentiable.
        """
        if embeddings.shape[1] > self.context_length:
            raise UsageError(
                f"Prompt embeddings have {embeddings.shape[1]} tokens; the text tower takes at most "
                f"{self.context_length}. Cut the padding behind the end token."
            )
        length = int(ends.max()) + 1
        mask = self._clip.attn_mask[:length, :length]
        with self._precision():
            x = embeddings[:, :length] + self._clip.positional_embedding[:length]
            for layer, block in enumerate(self._clip.transformer.resblocks, start=1):
                x = block(x, attn_mask=mask)
                x = x if between is None else between(layer, x)
            rows: Tensor = self._clip.ln_final(x[torch.arange(len(x), device=x.device), ends.to(x.device)])
        return rows

    def project(self, tokens: Tensor) -> Tensor:
        """Project normed end tokens [..., width] into the joint space: [..., J] float32, not normalised."""
        projection = self._clip.text_projection
        if projection is None:
            return tokens.float()
        with self._precision():
            projected: Tensor = projection(tokens) if isinstance(projection, nn.Linear) else tokens @ projection
        return projected.float()

    def encode_embeddings(self, embeddings: Tensor, ends: Tensor, between: Between | None = None) -> Tensor:
        """Return [K, J] float32, not normalised, for prompts given as embeddings; arguments as in `end_tokens`."""
        return self.project(self.end_tokens(embeddings, ends, between))

    @torch.no_grad()
    def encode(self, sentences: Sequence[str], batch_size: int = 256) -> Tensor:
        """Return [K, J] float32, not normalised, one row per sentence; repeated sentences are computed once.

        Raises UsageError for no sentences, or for one that the context cannot hold.
        """
        if not sentences:
            raise UsageError("Got no sentences to encode; expected at least one. Check the states of the prompt list.")
        rows = {sentence: row for row, sentence in enumerate(dict.fromkeys(sentences))}
        key: tuple[str | int, ...] = (*rows, batch_size)
        if key not in self._encoded:
            compute = partial(self._encode, list(rows), batch_size)
            self._encoded[key] = self.keeper[0].sentences(list(rows), batch_size, compute) if self.keeper else compute()
        return self._encoded[key][[rows[sentence] for sentence in sentences]]  # a copy

    def _encode(self, sentences: Sequence[str], batch_size: int) -> Tensor:
        chunks = torch.split(self.tokenize(sentences), batch_size)
        return torch.cat([self.encode_embeddings(self.embed(ids), ids.argmax(dim=-1)) for ids in chunks])

    def _precision(self) -> torch.autocast:
        # Without a dtype this switches the caller's autocast off: precision is a fact of the encoder.
        return torch.autocast(self.device.type, dtype=self._autocast, enabled=self._autocast is not None)


def is_text(key: str) -> bool:
    """Tell whether a key of a CLIP's state dict belongs to its text tower."""
    return not key.startswith("visual.") and key != "logit_scale"


def _output_width(projection: Tensor | nn.Linear | None, width: int) -> int:
    if projection is None:
        return width
    return projection.out_features if isinstance(projection, nn.Linear) else projection.shape[1]


@cache
def _tokenizer() -> SimpleTokenizer:
    from open_clip import SimpleTokenizer  # here, because it reads its vocabulary file

    return SimpleTokenizer()
