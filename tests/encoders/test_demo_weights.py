"""The committed demo CLIP: its card is true, stock open_clip loads it, and it can tell damage without being perfect."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import normalize

from zsadbench import encoders
from zsadbench.data import procedural

FOLDER = Path(encoders.__file__).parent
WEIGHTS = FOLDER / "demo.safetensors"
NORMAL = ("{}", "flawless {}", "perfect {}", "unblemished {}")
NORMAL += ("{} without flaw", "{} without defect", "{} without damage")
ABNORMAL = ("damaged {}", "{} with flaw", "{} with defect", "{} with damage")
TEMPLATES = ("a photo of a {}.", "a close-up photo of the {}.", "a dark photo of a {}.", "a blurry photo of the {}.")


@pytest.fixture(scope="module")
def card() -> dict[str, Any]:
    return json.loads((FOLDER / "demo.json").read_text())


@pytest.fixture(scope="module")
def model(card: dict[str, Any]) -> open_clip.CLIP:
    """A stock open_clip model, loaded strictly after the compact token rows are put in their places."""
    tensors = load_file(WEIGHTS)
    token_ids = tensors.pop("token_ids").long()
    tensors = {name: tensor.float() for name, tensor in tensors.items()}
    rows = tensors["token_embedding.weight"]
    table = torch.zeros(card["text_cfg"]["vocab_size"], rows.shape[1])
    table[token_ids] = rows
    stock = open_clip.CLIP(card["embed_dim"], card["vision_cfg"], card["text_cfg"], card["quick_gelu"])
    stock.load_state_dict({**tensors, "token_embedding.weight": table}, strict=True)
    return stock.eval()


def test_card_names_the_hash_of_the_weights(card: dict[str, Any]) -> None:
    assert card["sha256"] == hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()


def test_weights_are_small_half_precision_and_finite() -> None:
    assert WEIGHTS.stat().st_size <= 8 * 2**20
    tensors = load_file(WEIGHTS)
    token_ids = tensors.pop("token_ids")
    assert token_ids.dtype == torch.int32 and torch.equal(token_ids, token_ids.unique())
    assert all(tensor.dtype == torch.float16 and tensor.isfinite().all() for tensor in tensors.values())


def test_card_fits_the_images_and_states_licence_and_limits(card: dict[str, Any]) -> None:
    assert card["input_size"] == card["vision_cfg"]["image_size"] == procedural.SIDE
    assert card["procedural_version"] == procedural.VERSION
    assert card["license"] == "Apache-2.0"
    assert "mean nothing outside the tour" in card["note"]


def test_tower_has_four_stages_of_three_blocks_and_clip_scale(model: open_clip.CLIP) -> None:
    assert len(model.visual.transformer.resblocks) == 12
    assert model.logit_scale.exp().item() == pytest.approx(100, rel=1e-3)


def test_end_of_text_token_has_a_row(model: open_clip.CLIP) -> None:
    assert model.token_embedding.weight[49406:49408].abs().sum(dim=1).gt(0).all()


def _image_auroc(model: open_clip.CLIP, card: dict[str, Any], category: str) -> float:
    """Return the image AUROC of the class token, as the share of (flawless, defective) pairs in the right order."""
    kinds = [None] * 12 + [defect for defect in procedural.defects(category) for _ in range(3)]
    images = np.stack([procedural.render(category, 500 + number, kind).image for number, kind in enumerate(kinds)])
    pixels = torch.from_numpy(images).float() / 255
    pixels = ((pixels - torch.tensor(card["mean"])) / torch.tensor(card["std"])).permute(0, 3, 1, 2)
    features = model.encode_image(pixels, normalize=True)
    texts = []
    for states in (NORMAL, ABNORMAL):
        prompts = [template.format(state.format(category)) for state in states for template in TEMPLATES]
        texts.append(model.encode_text(open_clip.tokenize(prompts), normalize=True).mean(dim=0))
    normal, abnormal = normalize(torch.stack(texts), dim=-1)
    scores = features @ (abnormal - normal)
    return float((scores[12:, None] > scores[None, :12]).float().mean())


def test_class_token_tells_damage_on_unseen_categories_without_being_perfect(
    model: open_clip.CLIP, card: dict[str, Any]
) -> None:
    with torch.no_grad():
        aurocs = [_image_auroc(model, card, category) for category in procedural.TEST_CATEGORIES]
    assert 0.80 < sum(aurocs) / len(aurocs) < 0.995
