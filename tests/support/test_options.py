"""Options: FIELD=VALUE texts become typed values; wrong fields and values are sentences."""

from dataclasses import dataclass
from typing import Literal

import pytest

from zsadbench.errors import OptionError, UnknownName
from zsadbench.support.options import override


@dataclass(frozen=True)
class Config:
    sigma: float = 4.0
    count: int | None = None
    layers: tuple[int, ...] = (6, 12)
    rule: Literal["mean", "max"] = "mean"
    fused: bool = True
    noun: str | None = None
    topk: int | float = 0.3


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("sigma", "8", 8.0),
        ("count", "3", 3),
        ("count", "none", None),
        ("layers", "3,6, 9", (3, 6, 9)),
        ("layers", "(24)", (24,)),
        ("rule", "max", "max"),
        ("fused", "false", False),
        ("noun", "none", None),
        ("noun", "object", "object"),
        ("topk", "2", 2),
        ("topk", "0.5", 0.5),
    ],
)
def test_texts_are_parsed_by_the_annotation_of_their_field(field, text, value):
    parsed = getattr(override(Config(), {field: text}, "toy"), field)
    assert parsed == value and type(parsed) is type(value)


@pytest.mark.parametrize(
    ("field", "text", "words"),
    [
        ("sigma", "wide", "toy.sigma=wide.*a number"),
        ("count", "3.5", "an integer"),
        ("rule", "median", "one of mean, max"),
        ("fused", "maybe", "true or false"),
        ("layers", "a,b", "an integer"),
    ],
)
def test_a_value_that_does_not_fit_says_what_was_expected(field, text, words):
    with pytest.raises(OptionError, match=words):
        override(Config(), {field: text}, "toy")


def test_an_unknown_field_lists_the_fields():
    with pytest.raises(UnknownName, match=r"option of toy 'sigm'. Did you mean 'sigma'"):
        override(Config(), {"sigm": "3"}, "toy")


def test_overriding_copies_and_leaves_the_original_untouched():
    original = Config()
    assert override(original, {"sigma": 1.0}, "toy").sigma == 1.0
    assert original.sigma == 4.0
    assert override(original, {}, "toy") is original
