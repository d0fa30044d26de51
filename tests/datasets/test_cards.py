"""All dataset cards together: counts, names and flags against the published facts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from zsadbench import datasets
from zsadbench.records import published

CARDS = {listing.name: listing.card for listing in datasets.available()}
COUNTS = Path(__file__).resolve().parents[2].parent / "shared" / "specs" / "dataset_counts.json"
PROTOCOLS = {  # of dataset_counts.json: the variant that has its name; the other protocols are the default variant
    "dagm:adaclip": "dagm.adaclip",
    "dagm:bayespfl": "dagm.bayespfl",
    "ksdd2:bayespfl": "ksdd2.bayespfl",
    "ksdd:dra_strips_test": "ksdd.adaclip",
    "rsdd:bayespfl": "rsdd.bayespfl",
    "brainmri:bayespfl": "brainmri.bayespfl",
}


@pytest.mark.parametrize(
    ("name", "categories", "normal", "anomalous"),
    [  # docs/datasets/index.md#adapters
        ("mvtec", 15, 467, 1258),
        ("visa", 12, 962, 1200),
        ("btad", 3, 451, 290),
        ("mpdd", 6, 176, 282),
        ("rsdd", 2, 0, 195),
        ("rsdd.bayespfl", 1, 387, 387),
        ("ksdd2", 1, 894, 110),
        ("ksdd2.bayespfl", 1, 356, 356),
        ("ksdd", 1, 347, 52),
        ("ksdd.strips3", 1, 1143, 54),
        ("ksdd.adaclip", 1, 286, 54),
        ("dagm", 10, 6996, 1054),
        ("dagm.adaclip", 10, 2100, 2100),
        ("dagm.bayespfl", 7, 1350, 1350),
        ("dtd_synthetic", 12, 357, 947),
        ("isic", 1, 0, 379),
        ("colondb", 1, 0, 380),
        ("clinicdb", 1, 0, 612),
        ("tn3k", 1, 0, 614),
        ("endo", 1, 0, 200),
        ("kvasir", 1, 0, 1000),
        ("headct", 1, 100, 100),
        ("brainmri", 1, 98, 155),
        ("brainmri.bayespfl", 1, 85, 68),
    ],
)
def test_card_has_the_published_counts_and_flags_follow_from_them(name, categories, normal, anomalous):
    card = CARDS[name]
    assert len(card.expected) == categories
    assert tuple(map(sum, zip(*card.expected.values(), strict=True))) == (normal, anomalous)
    assert card.image_level == (normal > 0)


@pytest.mark.skipif(not COUNTS.is_file(), reason=f"the collected counts are not here: {COUNTS}")
def test_counts_of_every_category_are_the_collected_ones():
    for protocol, collected in json.loads(COUNTS.read_text()).items():
        card = CARDS[PROTOCOLS.get(protocol, protocol.partition(":")[0])]
        expected = {name: (count["normal"], count["anomalous"]) for name, count in collected.items()}
        assert card.expected == expected, protocol


def test_dagm_train_counts_add_up_to_the_published_total():
    assert sum(CARDS["dagm"].expected_train.values()) == 7004


def test_only_head_ct_and_brain_mri_have_no_masks():
    assert {name for name, card in CARDS.items() if not card.pixel_level} == {"headct", "brainmri", "brainmri.bayespfl"}


def test_mask_rules_are_the_ones_of_the_adapter_contract():
    """docs/protocol.md#masks; sets without masks do not matter."""
    gt0 = {name for name, card in CARDS.items() if card.mask_rule == "gt0" and card.domain != "custom"}
    ksdd = {"ksdd", "ksdd.strips3", "ksdd.adaclip", "ksdd.anomalyclip", "ksdd2", "ksdd2.bayespfl"}
    assert gt0 == {"visa", "mvtec_loco", *ksdd}


def test_every_variant_that_a_paper_was_measured_on_exists():
    named = {number.dataset for number in published.load()}
    assert {name for name in named if "." in name} <= set(CARDS)


def test_cards_say_where_to_get_the_data_and_what_is_unclear():
    for name, card in CARDS.items():
        assert card.source and card.licence and card.reference, name
        assert card.notes or card.domain == "procedural", name
        assert card.domain in ("procedural", "custom") or card.folders, name


def test_nouns_are_words_not_folder_names():
    for name, card in CARDS.items():
        nouns = {category: card.nouns.get(category, datasets.readable_noun(category)) for category in card.expected}
        assert set(card.nouns) <= set(card.expected) or not card.expected, name
        odd = {category: noun for category, noun in nouns.items() if any(sign in noun for sign in "_0123456789")}
        assert not odd, name
