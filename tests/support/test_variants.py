"""The grammar of variants' names, and who is meant by one that a user types."""

import pytest

from zsadbench.support import variants


def test_a_part_without_an_option_belongs_to_the_value_before_it():
    assert variants.split("m.p[layers=6,12,size=3]") == ("m.p", {"layers": "6,12", "size": "3"})
    assert variants.join(*variants.split("m.p[layers=6,12,size=3]")) == "m.p[layers=6,12,size=3]"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a[x=1,y=2],b", ["a[x=1,y=2]", "b"]),
        (r"one\,two,three", ["one,two", "three"]),
        ("[1,3],(5,7), 9", ["[1,3]", "(5,7)", "9"]),
    ],
)
def test_commas_in_brackets_separate_nothing(text, found):
    assert list(variants.parts(text)) == found


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("m", True),
        ("m.p", True),
        ("m.p[x=1]", True),
        ("m.p[x=1.0]", True),
        ("m.p[x=2]", False),
        ("m[x=1]", False),
        ("n", False),
    ],
)
def test_who_is_meant_by_a_name(typed, meant):
    assert variants.is_called("m.p[x=1.0]", typed) == meant
