"""The cross-dataset rule: what is trained on for which target, which preset that is, and what counts as seen."""

import pytest

from zsadbench import datasets, methods
from zsadbench.errors import UnknownName
from zsadbench.support import preset_names
from zsadbench.training import cross_dataset


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
        ("clip_ad", "btad", "clip_ad"),  # its default preset needs no training
        ("clip_ad", "visa", "clip_ad.sdp_rvs_visa"),  # what the paper used there
        ("clip_ad.sdp", "visa", "clip_ad.sdp"),
        ("clip_ad.sdp_plus", "mvtec", "clip_ad.sdp_plus_visa"),  # a family: what is trained on is left out
        ("clip_ad.sdp_plus", "btad", "clip_ad.sdp_plus_mvtec"),
        ("clip_ad.sdp_plus", "visa", "clip_ad.sdp_plus_mvtec_rvs_visa"),
        ("april_gan.1shot", "mvtec", "april_gan.1shot_visa"),
        ("clip_ad.sdp_plus", "demo", "clip_ad.sdp_plus_demo"),
        ("clip_ad.sdp_plus_visa", "demo", "clip_ad.sdp_plus_visa"),
    ],
)
def test_a_bare_name_stands_for_the_preset_that_suits_the_target(name, target, expected):
    assert cross_dataset.suited(name, target) == expected


def test_everything_is_each_method_once_and_a_trained_family_beside_an_untrained_default():
    everything, problems = cross_dataset.everything()
    assert not problems
    stems = [name for name in everything if "." not in name]
    assert stems == [listing.name for listing in methods.available()]
    assert [name for name in everything if "." in name] == ["clip_ad.sdp_plus"]


def test_a_family_is_called_by_presets_that_leave_out_what_they_were_trained_on():
    method, full, config = methods.lookup("clip_ad.sdp_plus")
    assert (full, config.trained_on) == ("clip_ad.sdp_plus_visa", "visa")
    assert preset_names.aliases(method.presets, full) == (full, "clip_ad.sdp_plus", "clip_ad")
    assert preset_names.aliases(method.presets, "clip_ad") == ("clip_ad.sdp", "clip_ad")
    for special in ("sdp_plus_mvtec_rvs_visa", "sdp_plus_visa_headct"):
        full = f"clip_ad.{special}"
        assert preset_names.aliases(method.presets, full) == (full, "clip_ad.sdp_plus", "clip_ad")
    dual_anchor = methods.lookup("dual_anchor")[0]
    assert preset_names.aliases(dual_anchor.presets, "dual_anchor.visa_clip") == (
        "dual_anchor.visa_clip",
        "dual_anchor",
    ), "dual_anchor.visa is a preset of its own"
    with pytest.raises(UnknownName, match=r"clip_ad 'sdp_rvs'"):
        methods.lookup("clip_ad.sdp_rvs")  # an untrained preset's name is given in full
