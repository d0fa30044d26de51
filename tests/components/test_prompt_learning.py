"""Learnable vectors in sentences and before later blocks of the text tower."""

from __future__ import annotations

import torch

from zsadbench import encoders
from zsadbench.components.prompt_learning import deep_prompts, placeholders, splice


def test_placeholders_take_one_token_each() -> None:
    assert placeholders(3, "damaged object.") == "X X X damaged object."
    ids = encoders.load("tiny").text.tokenize([placeholders(3, "object."), "X"])
    assert ids[0, 1:4].unique().tolist() == [int(ids[1, 1])]


def test_spliced_vectors_overwrite_as_many_tokens() -> None:
    tokens = torch.arange(10.0).reshape(1, 5, 2).expand(2, -1, -1)
    spliced = splice(tokens, torch.tensor([[-1.0, -2.0], [-3.0, -4.0]]))
    assert spliced.tolist() == [[[0, 1], [-1, -2], [-3, -4], [6, 7], [8, 9]]] * 2


def test_spliced_vectors_may_differ_by_sentence_and_be_more_than_what_they_replace() -> None:
    tokens = torch.arange(3.0).reshape(1, 3, 1).expand(2, -1, -1)
    spliced = splice(tokens, torch.tensor([[[7.0], [8.0]], [[9.0], [10.0]]]), removed=1)
    assert spliced[..., 0].tolist() == [[0, 7, 8, 2], [0, 9, 10, 2]]


def test_spliced_half_precision_vectors_keep_their_rounding_and_take_the_type_of_the_tokens() -> None:
    spliced = splice(torch.zeros(1, 2, 1), torch.tensor([[0.1]]).half())
    assert spliced.dtype == torch.float32
    assert float(spliced[0, 1, 0]) == float(torch.tensor(0.1).half())


def test_deep_prompts_are_read_by_their_block_alone() -> None:
    between = deep_prompts([torch.ones(1, 1), 2 * torch.ones(1, 1)])
    x = torch.zeros(2, 3, 1)
    assert [between(layer, x)[0, :, 0].tolist() for layer in (1, 2, 3)] == [[0, 1, 0], [0, 2, 0], [0, 0, 0]]


def test_deep_prompts_equal_to_what_comes_out_change_nothing() -> None:
    text = encoders.load("tiny").text
    ids = text.tokenize(["X X object."])
    seen: dict[int, torch.Tensor] = {}

    def watch(layer: int, x: torch.Tensor) -> torch.Tensor:
        seen[layer] = x[:, 1:3]
        return x

    with torch.no_grad():
        plain = text.encode_embeddings(text.embed(ids), ids.argmax(1), watch)
        deep = text.encode_embeddings(text.embed(ids), ids.argmax(1), deep_prompts([seen[1], seen[2]]))
    torch.testing.assert_close(deep, plain)
