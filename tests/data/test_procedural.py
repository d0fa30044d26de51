"""The procedural images: the same everywhere, exact masks, disjoint families."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zsadbench.data import procedural
from zsadbench.errors import UnknownName

FAMILIES = (procedural.TRAIN_CATEGORIES, procedural.VALIDATION_CATEGORIES, procedural.TEST_CATEGORIES)
CATEGORIES = tuple(category for family in FAMILIES for category in family)
KINDS = tuple((category, defect) for category in CATEGORIES for defect in procedural.defects(category))
seeds = st.integers(0, 2**31 - 1)


@pytest.mark.parametrize("category", CATEGORIES)
def test_flawless_image_has_an_empty_mask(category: str) -> None:
    image, mask = procedural.render(category, seed=3)
    assert image.shape == (procedural.SIDE, procedural.SIDE, 3) and image.dtype == np.uint8
    assert mask.shape == (procedural.SIDE, procedural.SIDE) and mask.dtype == np.bool_
    assert not mask.any()


@pytest.mark.parametrize("category", CATEGORIES)
def test_flawless_image_has_contrast_and_is_not_clipped(category: str) -> None:
    image, _ = procedural.render(category, seed=4)
    assert image.std() > 2
    assert ((image == 0) | (image == 255)).mean() < 0.5


@pytest.mark.parametrize(("category", "defect"), KINDS)
def test_defect_covers_half_to_three_percent_and_can_be_seen(category: str, defect: str) -> None:
    twins = procedural.render_twins(category, 11, defect)
    assert 0.005 <= twins.mask.mean() <= 0.03
    change = np.abs(twins.defective.astype(int) - twins.clean.astype(int)).mean(axis=2)
    assert change[twins.mask].mean() > 5


@given(kind=st.sampled_from(KINDS), seed=seeds)
@settings(max_examples=25, deadline=None)
def test_same_arguments_give_the_same_picture_whatever_was_rendered_before(kind: tuple[str, str], seed: int) -> None:
    first = procedural.render(kind[0], seed, kind[1])
    np.random.default_rng().random()
    procedural.render("leather", seed + 1)
    second = procedural.render(kind[0], seed, kind[1])
    assert np.array_equal(first.image, second.image) and np.array_equal(first.mask, second.mask)


@given(kind=st.sampled_from(KINDS), seed=seeds)
@settings(max_examples=25, deadline=None)
def test_twins_differ_only_around_the_mask(kind: tuple[str, str], seed: int) -> None:
    twins = procedural.render_twins(kind[0], seed, kind[1])
    around = cv2.dilate(twins.mask.astype(np.uint8), np.ones((9, 9), np.uint8)).astype(bool)
    difference = np.abs(twins.clean.astype(int) - twins.defective).max(axis=2)
    beyond = difference[~around & (difference > 0)]  # the tips of a crack cover too little of a pixel to be marked
    assert len(beyond) <= 0.15 * twins.mask.sum() and beyond.max(initial=0) <= 48
    assert not np.array_equal(twins.clean[twins.mask], twins.defective[twins.mask])


def test_twins_are_the_two_renderings_of_one_seed() -> None:
    twins = procedural.render_twins("gear", 5, "dent")
    assert np.array_equal(twins.clean, procedural.render("gear", 5).image)
    assert np.array_equal(twins.defective, procedural.render("gear", 5, "dent").image)


@pytest.mark.parametrize("category", CATEGORIES)
def test_other_seeds_give_other_pictures(category: str) -> None:
    assert not np.array_equal(procedural.render(category, 0).image, procedural.render(category, 1).image)


def test_families_share_no_category() -> None:
    assert len(set(CATEGORIES)) == len(CATEGORIES)
    assert len(procedural.TRAIN_CATEGORIES) >= 12 and len(procedural.TEST_CATEGORIES) >= 4


def test_test_family_has_defects_that_no_other_family_has() -> None:
    train, validation, test = ({d for c in family for d in procedural.defects(c)} for family in FAMILIES)
    assert test - train - validation == {"glue", "print"}
    assert validation <= train


@pytest.mark.parametrize("category", CATEGORIES)
def test_every_category_has_several_defects(category: str) -> None:
    assert len(set(procedural.defects(category))) >= 4


def test_unknown_category_and_defect_are_named_in_the_error() -> None:
    with pytest.raises(UnknownName, match="lether"):
        procedural.render("lether", 0)
    with pytest.raises(UnknownName, match=r"leather.*dent"):
        procedural.render("leather", 0, "dent")


# Mean brightness of the nine blocks of 32 x 32 pixels, row by row, and the pixels of the mask, for VERSION 1.
KNOWN = {
    ("leather", "glue"): ([93, 78, 81, 85, 79, 74, 83, 80, 77], 173),
    ("wood", "crack"): ([93, 96, 94, 96, 95, 98, 97, 96, 89], 170),
    ("pill", "print"): ([138, 155, 142, 167, 174, 163, 140, 133, 128], 270),
    ("gear", "dent"): ([75, 121, 67, 119, 129, 113, 76, 131, 83], 203),
    ("marble", "stain"): ([189, 192, 188, 202, 203, 179, 198, 183, 192], 244),
    ("chip", "thread"): ([124, 95, 118, 111, 61, 91, 140, 88, 120], 167),
}


@pytest.mark.parametrize("kind", KNOWN)
def test_pictures_are_those_of_this_version_up_to_rounding(kind: tuple[str, str]) -> None:
    blocks, area = KNOWN[kind]
    image, mask = procedural.render(kind[0], 2024, kind[1])
    assert procedural.VERSION == 1
    np.testing.assert_allclose(image.reshape(3, 32, 3, 32, 3).mean((1, 3, 4)).ravel(), blocks, atol=2)
    assert abs(int(mask.sum()) - area) <= 8
