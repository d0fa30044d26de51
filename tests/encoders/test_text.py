from __future__ import annotations

from collections.abc import Iterator

import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zsadbench.encoders.text import TextEncoder
from zsadbench.errors import UsageError, WeightsError

SENTENCES = [
    "a photo of a metal_nut.",
    "",
    "a close-up photo of the flawless printed circuit board without damage for visual inspection.",
    "bottle",
]
VISION = {"image_size": 16, "patch_size": 16, "width": 64, "layers": 1}


def build(**text_options: object) -> open_clip.CLIP:
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 3, **text_options}
    torch.manual_seed(0)
    clip = open_clip.CLIP(24, VISION, text, quick_gelu=True).eval()
    for parameter in clip.parameters():  # fresh LayerNorms and biases would hide a forgotten one
        torch.nn.init.normal_(parameter, std=0.3)
    return clip.requires_grad_(False)


@pytest.fixture(scope="module")
def clip() -> Iterator[open_clip.CLIP]:
    yield build()


@pytest.fixture(scope="module")
def text(clip: open_clip.CLIP) -> TextEncoder:
    return TextEncoder(clip)


def test_sizes_are_those_of_the_tower(text: TextEncoder) -> None:
    assert (text.width, text.joint_width, text.context_length) == (32, 24, 77)


def test_tokens_equal_those_of_open_clip(text: TextEncoder) -> None:
    ids = text.tokenize(SENTENCES)
    assert ids.dtype == torch.int64
    assert torch.equal(ids, open_clip.tokenize(SENTENCES))


def test_sentences_encode_as_open_clip_encodes_them_with_the_full_context(
    clip: open_clip.CLIP, text: TextEncoder
) -> None:
    expected = clip.encode_text(open_clip.tokenize(SENTENCES))
    encoded = text.encode(SENTENCES)
    assert encoded.dtype == torch.float32
    torch.testing.assert_close(encoded, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("options", [{"proj_bias": True}, {"proj_type": "none"}, {"context_length": 40}])
def test_other_projections_and_contexts_encode_as_open_clip_does(options: dict[str, object]) -> None:
    clip = build(**options)
    text = TextEncoder(clip)
    expected = clip.encode_text(open_clip.tokenize(SENTENCES, context_length=text.context_length))
    torch.testing.assert_close(text.encode(SENTENCES), expected, atol=1e-6, rtol=1e-6)
    assert expected.shape[1] == text.joint_width


@settings(max_examples=20, deadline=None)
@given(picks=st.lists(st.sampled_from(SENTENCES), min_size=1, max_size=9), batch_size=st.integers(1, 4))
def test_repeats_and_chunks_change_no_row(text: TextEncoder, picks: list[str], batch_size: int) -> None:
    alone = {sentence: text.encode([sentence])[0] for sentence in set(picks)}
    expected = torch.stack([alone[sentence] for sentence in picks])
    torch.testing.assert_close(text.encode(picks, batch_size=batch_size), expected, atol=1e-6, rtol=1e-6)


def test_repeated_sentences_are_computed_once(text: TextEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = []
    original = text.encode_embeddings
    monkeypatch.setattr(text, "encode_embeddings", lambda x, ends: rows.append(len(x)) or original(x, ends))
    assert len(text.encode(["bottle", "cable", "bottle", "bottle"])) == 4
    assert rows == [2]


def test_nothing_behind_the_last_end_token_matters(text: TextEncoder) -> None:
    ids = text.tokenize(SENTENCES)
    ends = ids.argmax(dim=-1)
    embeddings = text.embed(ids)
    noisy = embeddings.clone()
    noisy[:, int(ends.max()) + 1 :] = 100
    assert torch.equal(text.encode_embeddings(noisy, ends), text.encode_embeddings(embeddings, ends))
    cut = embeddings[:, : int(ends.max()) + 1]
    assert torch.equal(text.encode_embeddings(cut, ends), text.encode_embeddings(embeddings, ends))


def test_each_row_is_read_at_its_own_end(text: TextEncoder) -> None:
    embeddings = torch.randn(2, 9, 32, generator=torch.Generator().manual_seed(1))
    both = text.encode_embeddings(embeddings, torch.tensor([3, 8]))
    short = text.encode_embeddings(embeddings[:1, :4], torch.tensor([3]))
    torch.testing.assert_close(both[:1], short, atol=1e-6, rtol=1e-6)
    assert not torch.allclose(both[:1], text.encode_embeddings(embeddings[:1], torch.tensor([4])), atol=1e-3)


def test_gradients_reach_every_prompt_token_up_to_the_end_and_none_behind(text: TextEncoder) -> None:
    ids = text.tokenize(["x x x x object."])
    end = int(ids.argmax())
    embeddings = text.embed(ids).clone().requires_grad_()
    text.encode_embeddings(embeddings, torch.tensor([end])).square().sum().backward()
    assert embeddings.grad is not None
    reached = embeddings.grad[0].abs().sum(dim=-1) > 0
    assert torch.equal(reached, torch.arange(77) <= end)


def test_gradient_equals_a_finite_difference() -> None:
    text = TextEncoder(build(layers=2).double())
    embeddings = torch.randn(1, 4, 32, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    step = torch.randn(1, 4, 32, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def total(x: torch.Tensor) -> torch.Tensor:
        return text.encode_embeddings(x, torch.tensor([3])).double().sum()

    (gradient,) = torch.autograd.grad(total(embeddings.requires_grad_()), embeddings)
    difference = (total(embeddings + 1e-3 * step) - total(embeddings - 1e-3 * step)) / 2e-3
    torch.testing.assert_close((gradient * step).sum(), difference, rtol=1e-3, atol=1e-3)


def test_between_sees_every_block_and_replaces_what_the_next_one_reads(clip: open_clip.CLIP, text: TextEncoder) -> None:
    deep = torch.randn(4, 32, generator=torch.Generator().manual_seed(4), requires_grad=True)
    seen = []

    def replace_first_words(layer: int, x: torch.Tensor) -> torch.Tensor:
        seen.append(layer)
        return torch.cat([x[:, :1], deep.expand(len(x), -1, -1), x[:, 5:]], dim=1) if layer == 1 else x

    ids = text.tokenize(["x x x x object.", "x x x x damaged object."])
    encoded = text.encode_embeddings(text.embed(ids), ids.argmax(dim=-1), replace_first_words)
    assert seen == [1, 2, 3]

    x = clip.token_embedding(ids) + clip.positional_embedding  # the same by hand, with the full context
    x = clip.transformer.resblocks[0](x, attn_mask=clip.attn_mask)
    x = torch.cat([x[:, :1], deep.expand(2, -1, -1), x[:, 5:]], dim=1)
    for block in clip.transformer.resblocks[1:]:
        x = block(x, attn_mask=clip.attn_mask)
    expected = clip.ln_final(x)[torch.arange(2), ids.argmax(dim=-1)] @ clip.text_projection
    torch.testing.assert_close(encoded, expected, atol=1e-6, rtol=1e-6)
    encoded.sum().backward()
    assert deep.grad is not None and deep.grad.abs().min() > 0


def test_embedding_is_the_projection_of_the_end_token(text: TextEncoder) -> None:
    ids = text.tokenize(SENTENCES)
    tokens = text.end_tokens(text.embed(ids), ids.argmax(dim=-1))
    assert tokens.shape == (len(SENTENCES), text.width)
    torch.testing.assert_close(text.project(tokens), text.encode(SENTENCES), atol=1e-6, rtol=1e-6)


def test_autocast_computes_in_low_precision_and_returns_float32(clip: open_clip.CLIP, text: TextEncoder) -> None:
    low = TextEncoder(clip, autocast=torch.bfloat16).encode(SENTENCES)
    full = text.encode(SENTENCES)
    assert low.dtype == torch.float32
    relative = ((low - full).norm() / full.norm()).item()
    assert 1e-4 < relative < 5e-2  # bfloat16 keeps 8 bits


def test_an_autocast_of_the_caller_changes_nothing(text: TextEncoder) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = text.encode(SENTENCES)
    assert torch.equal(inside, text.encode(SENTENCES))


def test_a_sentence_that_fits_exactly_passes_and_one_token_more_is_an_error_that_names_it(text: TextEncoder) -> None:
    longest = " ".join(["photo"] * 75)
    assert int(text.tokenize([longest]).argmax()) == 76
    with pytest.raises(UsageError, match=r"'photo photo .*' has 78 tokens; the text tower takes at most 77"):
        text.encode(["bottle", f"{longest} photo"])


def test_no_sentences_is_an_error(text: TextEncoder) -> None:
    with pytest.raises(UsageError, match="no sentences"):
        text.encode([])


def test_too_long_prompt_embeddings_are_an_error(text: TextEncoder) -> None:
    with pytest.raises(UsageError, match="have 78 tokens"):
        text.encode_embeddings(torch.zeros(1, 78, 32), torch.tensor([5]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"no_causal_mask": True}, "no causal mask"),
        ({"pool_type": "last"}, "pooling 'last'"),
        ({"vocab_size": 100}, "100 rows"),
    ],
)
def test_a_text_tower_of_another_kind_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        TextEncoder(build(**options))
