"""The cross-dataset rule: what is trained on for which target, which preset that is, and what counts as seen."""

import pytest

from zsadbench import cross_dataset, datasets


@pytest.mark.parametrize(
    ("target", "expected"),
    [("mvtec", "visa"), ("visa", "mvtec"), ("btad", "mvtec"), ("dagm.official", "mvtec"), ("demo", "demo.train")],
)
def test_auxiliary_datasets_are_those_of_the_protocol(target, expected):
    assert cross_dataset.auxiliary(target) == expected


def test_no_dataset_is_its_own_auxiliary_and_every_auxiliary_exists():
    names = {listing.name for listing in datasets.available()}
    for name in names:
        assert cross_dataset.auxiliary(name) != name and cross_dataset.auxiliary(name) in names
        assert not cross_dataset.has_seen([cross_dataset.auxiliary(name)], name)


@pytest.mark.parametrize(
    ("trained_on", "target", "seen"),
    [
        (["mvtec"], "mvtec", True),
        (["dagm"], "dagm.official", True),  # variants share images
        (["visa"], "mvtec", False),
        (["visa", "mvtec"], "mvtec", True),
        (["demo.train"], "demo", False),  # drawn apart
        (["demo"], "demo", True),
        (["demo.train"], "demo.train", True),
        ([], "mvtec", False),
    ],
)
def test_what_was_trained_on_is_seen_in_every_variant_but_the_auxiliary_one(trained_on, target, seen):
    assert cross_dataset.has_seen(trained_on, target) is seen


@pytest.mark.parametrize(
    ("name", "target", "expected"),
    [
        ("april_gan", "mvtec", "april_gan.visa"),
        ("april_gan", "visa", "april_gan.mvtec"),
        ("april_gan", "btad", "april_gan.mvtec"),
        ("april_gan", "demo", "april_gan.demo"),
        ("april_gan.visa", "visa", "april_gan.visa"),  # what is named is kept
        ("winclip", "visa", "winclip"),
    ],
)
def test_a_bare_name_stands_for_the_preset_that_suits_the_target(name, target, expected):
    assert cross_dataset.suited(name, target) == expected
