"""`zsadbench show` and `list`: what methods and datasets say of themselves, at 80 columns."""

from __future__ import annotations

import subprocess
import sys

import pytest
from commands import zsadbench

from zsadbench import datasets, methods
from zsadbench.cli import listing, show


def shown(name, capsys):
    show.show(name)
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    return text


@pytest.mark.parametrize("name", [item.name for item in methods.available()])
def test_a_method_shows_its_card_presets_and_options(name, capsys):
    text = " ".join(shown(name, capsys).split())
    kind, _, config = methods.lookup(name)
    assert text.startswith(f"{kind.card.title} ({name})")
    assert kind.card.reference in text and " ".join(kind.card.notes.split()) in text
    for preset in kind.presets:
        assert methods.lookup(f"{name}.{preset}")[1] in text
    for option in config.__dataclass_fields__:
        assert f" {option} = " in text


def test_a_preset_shows_its_own_options_and_needs(capsys):
    text = " ".join(shown("clip_ad.sdp_plus_visa_headct", capsys).split())
    assert "prompts = clip_ad_head_ct" in text and "--set clip_ad.sdp_plus_visa_headct.NAME=VALUE" in text
    assert (
        "needs weights trained on visa (`zsadbench train --method clip_ad.sdp_plus_visa_headct --dataset visa`" in text
    )
    assert "1 normal train image of each category" in " ".join(shown("patchcore", capsys).split())
    assert "(--checkpoint adaclip.visa_clinicdb=PATH)" in " ".join(shown("adaclip.visa_clinicdb", capsys).split())


def test_a_method_says_which_presets_its_bare_name_means(capsys):
    text = shown("clip_ad", capsys)
    assert "clip_ad alone means what its paper used, which is on\n  visa          clip_ad.sdp_rvs_visa\n" in text


@pytest.mark.parametrize("name", [item.name for item in datasets.available()])
def test_a_dataset_shows_its_card(name, capsys):
    text = shown(name, capsys)
    card = next(item.card for item in datasets.available() if item.name == name)
    words = " ".join(text.split())
    assert words.startswith(f"{card.title} ({name})") and " ".join(card.notes.split()) in words
    assert card.licence in words and all(category in words for category in card.expected)


def test_showing_a_dataset_imports_no_torch():
    code = "import sys; from zsadbench.cli import show; show.show('mvtec'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_an_unknown_name_is_called_so():
    done = zsadbench("show", "visaa")
    assert done.returncode == 2 and "Unknown method or dataset 'visaa'. Did you mean 'visa'" in done.stderr


@pytest.mark.parametrize("kind", ["methods", "datasets", "encoders"])
def test_lists_fit_80_columns(kind):
    lines = listing.render(listing.rows(kind)).splitlines()
    assert max(map(len, lines)) <= 80


def test_the_list_of_methods_names_settings_as_tables_do():
    settings = {row.name: row.facts["setting"] for row in listing.rows("methods")}
    assert settings["patchcore"] == "1-shot" and settings["winclip"] == "0-shot"
    assert settings["musc"] == "0-shot, transductive" and settings["fiseclip"] == "0-shot, batch"
    wider = {row.name for row in listing.rows("methods") if row.facts["image scope"] == "category"}
    assert wider == {"acr", "musc", "aa_clip", "bayes_pfl", "clip_ad", "clip_surgery"}
    assert settings["clip_ad"] == "0-shot"
