"""Random weights: the real architecture without any file, told by every identity."""

from dataclasses import dataclass

import pytest
import torch

from zsadbench import encoders
from zsadbench.encoders.features import FeatureRequest
from zsadbench.errors import UnknownName, WeightsError
from zsadbench.methods import EncoderConfig

CLIP = "open_clip:ViT-B-32/openai"
VIT = "timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k"


@dataclass(frozen=True)
class TwoEncoders(EncoderConfig):
    encoder: str = VIT
    size: int | None = 64
    text_encoder: str = CLIP


def test_a_clip_with_random_weights_has_its_own_size_activation_and_text_tower():
    encoder = encoders.load(CLIP, random_weights=True)
    assert (encoder.size, encoder.patch, encoder.depth, encoder.width) == (224, 32, 12, 768)  # of ViT-B/32
    assert encoder.activation == "quickgelu" and encoder.identity["sha256"] == encoders.RANDOM
    with torch.inference_mode():
        images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
        embedding = encoder.encode(images, FeatureRequest(cls=True)).embedding
        text = encoder.text.encode(["a photo of a nut"])
    assert encoder.parameters == 87_849_216  # CLIP ViT-B/32: 151,277,313 in all
    assert encoder.text.parameters == 151_277_313 - 87_849_216 - 1  # the scale of the logits
    assert embedding.shape == (2, 512) and text.shape == (1, 512)
    assert torch.isfinite(embedding).all() and not torch.allclose(embedding[0], embedding[1])


def test_a_text_tower_is_borrowed_with_random_weights_and_the_identity_says_so():
    encoder = encoders.load_for(TwoEncoders(), random_weights=True)
    assert encoder.grid == 4 and encoder.text.joint_width == 512
    assert (encoder.identity["sha256"], encoder.identity["text_sha256"]) == (encoders.RANDOM, encoders.RANDOM)


def test_the_weights_are_the_same_on_every_call():
    first, second = (encoders.load(VIT, random_weights=True) for _ in range(2))
    assert torch.equal(first.blocks[3].block.mlp.fc1.weight, second.blocks[3].block.mlp.fc1.weight)


def test_encoders_that_ship_keep_their_weights():
    assert encoders.load("tiny", random_weights=True).sha256 == encoders.identify("tiny", random_weights=True)
    assert encoders.load("tiny", random_weights=True).sha256 != encoders.RANDOM


def test_a_file_that_is_given_is_used_and_a_wrong_name_is_no_random_encoder(tmp_path):
    with pytest.raises(WeightsError, match="not a file"):
        encoders.load(VIT, weights={VIT: tmp_path / "missing.safetensors"}, random_weights=True)
    with pytest.raises(UnknownName, match="ViT-B-32"):
        encoders.load("open_clip:ViT-B-33/openai", random_weights=True)
    with pytest.raises(UnknownName):
        encoders.load("timm:vit_tinny", random_weights=True)
