from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import load
from torch.nn.functional import normalize

from zsadbench.components import prompts
from zsadbench.components.prompts import PromptList
from zsadbench.encoders.text import TextEncoder
from zsadbench.errors import UnknownName, UsageError

SHARED = Path(__file__).resolve().parents[3] / "shared"

SENTENCE_COUNTS = {  # (normal, abnormal): section "Text" of docs/methods/*.md
    "aa_clip": (6, 10),
    "adaclip": (28, 20),
    "april_gan": (245, 175),
    "clip_ad": (198, 220),
    "clip_ad_brain_mri": (176, 198),
    "clip_ad_cvc_clinicdb": (198, 220),
    "clip_ad_head_ct": (176, 198),
    "clip_surgery": (85, 0),
    "fiseclip": (245, 175),
    "winclip": (154, 88),
    "winclip_zqhang21": (147, 84),
}


@pytest.fixture(scope="module")
def text() -> TextEncoder:
    torch.manual_seed(0)
    vision = {"image_size": 16, "patch_size": 16, "width": 64, "layers": 1}
    clip = open_clip.CLIP(16, vision, {"vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}).eval()
    return TextEncoder(clip.requires_grad_(False))


def test_every_list_has_the_published_number_of_sentences() -> None:
    counts = {name: tuple(map(len, prompts.sentences(prompts.get(name), "bottle"))) for name in prompts.names()}
    assert counts == SENTENCE_COUNTS


@pytest.mark.parametrize("name", SENTENCE_COUNTS)
def test_every_phrase_takes_one_noun_and_every_list_says_where_it_comes_from(name: str) -> None:
    prompt_list = prompts.get(name)
    for phrase in (*prompt_list.normal, *prompt_list.abnormal, *prompt_list.templates):
        assert phrase.count("{}") == 1 and phrase.count("{") == 1 and phrase == phrase.strip()
    assert prompt_list.source


@pytest.mark.parametrize(
    ("name", "alias"),
    [
        *[(name, name) for name in ("winclip", "april_gan", "clip_ad", "clip_surgery", "adaclip", "aa_clip")],
        ("winclip_zqhang21", "winclip_zqhang_variant"),
        ("fiseclip", "april_gan"),
    ],
)
def test_strings_are_those_of_the_specification(name: str, alias: str) -> None:
    path = SHARED / "specs" / "prompts.json"
    if not path.is_file():
        pytest.skip(f"no specification at {path}")
    expected = json.loads(path.read_text(encoding="utf-8"))[alias]
    prompt_list = prompts.get(name)
    assert list(prompt_list.normal) == expected.get("normal", ["{}"])
    assert list(prompt_list.abnormal) == expected.get("abnormal", [])
    assert sorted(prompt_list.templates) == sorted(expected["templates"])


def test_sentences_go_through_the_templates_of_one_state_before_the_next() -> None:
    normal, abnormal = prompts.sentences(PromptList(("{}", "good {}"), ("bad {}",), ("a {}.", "the {}!")), "pcb1")
    assert normal == ["a pcb1.", "the pcb1!", "a good pcb1.", "the good pcb1!"]
    assert abnormal == ["a bad pcb1.", "the bad pcb1!"]


def test_known_sentences_are_there() -> None:
    normal, abnormal = prompts.sentences(prompts.get("april_gan"), "metal_nut")
    assert "there is a metal_nut without flaw in the scene." in normal
    assert "a jpeg corrupted photo of the broken metal_nut." in abnormal
    normal, abnormal = prompts.sentences(prompts.get("clip_ad"), "wood")
    assert "a close-up photo of the wood without contamination." in normal
    assert "a photo of a wood with scratch for visual inspection." in abnormal
    assert "a photo of a wood." not in normal  # the one list without the bare noun
    assert "a photo of a damaged pill." in prompts.sentences(prompts.get("aa_clip"), "pill")[1]


def test_the_21_templates_repeat_one_and_lack_two_of_the_22() -> None:
    listed, canonical = prompts.get("winclip_zqhang21").templates, prompts.get("winclip").templates
    assert len(set(listed)) == 20 and listed.count("a jpeg corrupted photo of the {}.") == 2
    assert set(canonical) - set(listed) == {"a jpeg corrupted photo of a {}.", "a cropped photo of a {}."}


def test_a_noun_with_braces_is_inserted_as_it_is() -> None:
    assert prompts.sentences(PromptList(("{}",), (), ("a {}.",)), "{x} {}")[0] == ["a {x} {}."]


def test_unknown_list_offers_the_known_one() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'winclip'"):
        prompts.get("winclipp")


def test_features_are_unit_rows_of_normal_then_abnormal(text: TextEncoder) -> None:
    prompt_list = prompts.get("adaclip")
    features = prompts.text_features(text, prompt_list, "bottle")
    assert features.shape == (2, 16) and features.dtype == torch.float32 and not features.requires_grad
    for row, part in zip(features, prompts.sentences(prompt_list, "bottle"), strict=True):
        expected = normalize(normalize(text.encode(part), dim=-1).mean(dim=0), dim=0)
        torch.testing.assert_close(row, expected, atol=1e-6, rtol=1e-6)


def test_raw_mean_weighs_sentences_by_their_length_and_repeats_by_their_number(text: TextEncoder) -> None:
    prompt_list = PromptList(("{}",), ("damaged {}",), ("a {}.", "a {}.", "one {} in a large and empty room"))
    features = prompts.text_features(text, prompt_list, "cable", "mean_raw")
    repeated, other = text.encode(["a cable.", "one cable in a large and empty room"])
    torch.testing.assert_close(features[0], normalize(2 * repeated + other, dim=0), atol=1e-6, rtol=1e-6)


def test_parameters_reach_the_rule(text: TextEncoder) -> None:
    with pytest.warns(UserWarning, match="min_samples=99"):
        few = prompts.text_features(text, prompts.get("adaclip"), "bottle", "dbscan", eps=0.5, min_samples=99)
    torch.testing.assert_close(few, prompts.text_features(text, prompts.get("adaclip"), "bottle"))


def test_a_list_with_one_class_is_refused_for_two_rows(text: TextEncoder) -> None:
    with pytest.raises(UsageError, match=r"1 normal and 0 abnormal states.*template_feature"):
        prompts.text_features(text, prompts.get("clip_surgery"), "bottle")


def test_importing_prompts_imports_no_torch() -> None:
    code = "import sys, zsadbench.components.prompts as p; p.get('winclip'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture(scope="module")
def ensemble_fixture() -> tuple[dict[str, Any], TextEncoder, dict[str, torch.Tensor]]:
    """Return fixture.json, the fixture's tower and its expected outputs."""
    path = SHARED / "parity" / "text_ensemble.zip"
    if not path.is_file():
        pytest.skip(f"no parity fixture at {path}")
    with zipfile.ZipFile(path) as archive:
        fixture = json.loads(archive.read("fixture.json"))
        backbone, outputs = (load(archive.read(f"{part}.safetensors")) for part in ("backbone", "outputs"))
    config = fixture["backbone"]
    clip = open_clip.CLIP(config["embed_dim"], config["vision_cfg"], config["text_cfg"], config["quick_gelu"]).eval()
    missing, unexpected = clip.load_state_dict(backbone, strict=False)
    assert not unexpected and all(key.startswith("visual.") for key in missing)
    return fixture, TextEncoder(clip), outputs


@pytest.mark.parametrize(
    ("output", "name", "ensemble", "parameters"),
    [
        ("winclip", "winclip_zqhang21", "mean_raw", {}),
        ("april_gan", "april_gan", "mean", {}),
        ("sdp_mean", "clip_ad", "mean", {}),
        ("sdp_dbscan_industrial", "clip_ad", "dbscan", {}),
        ("sdp_dbscan_visa", "clip_ad", "dbscan", {"eps": 1.5, "min_samples": 25}),
    ],
)
@pytest.mark.filterwarnings("ignore:dbscan.*plain mean:UserWarning")
def test_ensembles_agree_with_the_reference_code(
    ensemble_fixture: Any, output: str, name: str, ensemble: Any, parameters: dict[str, float]
) -> None:
    fixture, text, outputs = ensemble_fixture
    nouns = fixture["class_names"]
    produced = [prompts.text_features(text, prompts.get(name), noun, ensemble, **parameters) for noun in nouns]
    tolerance = fixture["outputs"][output]
    torch.testing.assert_close(torch.stack(produced), outputs[output], atol=tolerance["atol"], rtol=tolerance["rtol"])


@pytest.mark.parametrize("output", ["clip_surgery", "clip_surgery_redundant"])
def test_template_ensembles_agree_with_the_reference_code(ensemble_fixture: Any, output: str) -> None:
    fixture, text, outputs = ensemble_fixture
    nouns = [""] if output == "clip_surgery_redundant" else fixture["class_names"]
    templates = prompts.get("clip_surgery").templates
    produced = torch.stack([prompts.template_feature(text, templates, noun) for noun in nouns])
    tolerance = fixture["outputs"][output]
    torch.testing.assert_close(produced, outputs[output], atol=tolerance["atol"], rtol=tolerance["rtol"])
