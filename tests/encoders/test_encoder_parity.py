"""Towers and position embeddings against the reference implementations' intermediates (the parity fixtures)."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load

from zsadbench.encoders import open_clip as clip_layout
from zsadbench.encoders import timm as timm_layout
from zsadbench.encoders.features import FeatureRequest

FOLDER = Path(__file__).parents[3] / "shared" / "parity"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"the parity fixtures are not at {FOLDER}")


class Fixture:
    """One opened parity fixture."""

    def __init__(self, name):
        with zipfile.ZipFile(FOLDER / f"{name}.zip") as archive:
            self.card = json.loads(archive.read("fixture.json"))
            self.backbone, self.inputs, self.outputs = (
                load(archive.read(f"{part}.safetensors")) for part in ("backbone", "inputs", "outputs")
            )

    def encoder(self):
        """Return the fixture's vision encoder, with its own resize rule."""
        config = {name: self.card["backbone"][name] for name in ("embed_dim", "vision_cfg", "text_cfg", "quick_gelu")}
        rule = self.card["options"]["pos_embed_resize"] or "bicubic, antialias=True"
        plain = any(word in rule for word in ("antialias=False", "no antialias")) or "antialias" not in rule
        kernel = rule.split(",")[0] + ("" if plain else "_antialias")
        size = self.inputs["images"].shape[-1]
        return clip_layout.from_config(config, self.backbone, spec="fixture", size=size, pos_embed=kernel)

    def check(self, name, found):
        """Compare with the reference output of that name, within its tolerance."""
        card = self.card["outputs"][name]
        torch.testing.assert_close(found, self.outputs[name], atol=card["atol"], rtol=card["rtol"], msg=name)


def all_tokens(features, layer):
    return torch.cat([features.prefix(layer), features.tokens(layer)], dim=1)


@pytest.mark.parametrize(
    "name",
    [f"{method}_{kind}" for method in ("winclip", "april_gan", "musc", "clip_surgery") for kind in ("native", "interp")]
    + ["sdp_interp", "fiseclip_interp", "anomalyclip_multi", "adaclip_nohsf_interp", "aa_clip_l24"],
)
def test_positions_equal_the_reference(name):
    fixture = Fixture(name)
    fixture.check("pos_embed", fixture.encoder().positions)


@pytest.mark.parametrize("kind", ["native", "interp"])
@torch.inference_mode()
def test_winclip_patch_tokens_windows_and_image_embedding_equal_the_reference(kind):
    fixture = Fixture(f"winclip_{kind}")
    encoder = fixture.encoder()
    images = fixture.inputs["images"]
    features = encoder.encode(images, FeatureRequest(tokens={encoder.depth}, embedded=True, cls=True))
    fixture.check("patch_tokens", features.tokens(encoder.depth))
    fixture.check("image_embedding", features.embedding)
    grid = torch.arange(encoder.grid**2).reshape(encoder.grid, encoder.grid)
    rows = grid.unfold(0, 2, 1).unfold(1, 2, 1).reshape(-1, 4)
    windows = torch.stack([features.embedded[:, [0, *(row + 1).tolist()]] for row in rows], dim=1)
    found = encoder.encode_tokens(windows.flatten(0, 1)).unflatten(0, (len(images), -1))
    fixture.check("win2", found)


@pytest.mark.parametrize("kind", ["native", "interp"])
@torch.inference_mode()
def test_april_gan_stage_tokens_and_image_embedding_equal_the_reference(kind):
    fixture = Fixture(f"april_gan_{kind}")
    encoder = fixture.encoder()
    layers = encoder.stages(4)
    assert list(layers) == fixture.card["options"]["layers"]
    features = encoder.encode(fixture.inputs["images"], FeatureRequest(tokens=layers, cls=True))
    fixture.check("tokens", torch.stack([all_tokens(features, layer) for layer in layers]))
    fixture.check("image_embedding", features.embedding)


@pytest.mark.parametrize("kind", ["native", "interp"])
@torch.inference_mode()
def test_musc_last_tokens_and_class_embeddings_equal_the_reference(kind):
    fixture = Fixture(f"musc_{kind}")
    encoder = fixture.encoder()
    features = encoder.encode(fixture.inputs["images"], FeatureRequest(tokens={encoder.depth}, cls=True))
    fixture.check("tokens_last", all_tokens(features, encoder.depth))
    fixture.check("cls_feats", torch.nn.functional.normalize(features.embedding, dim=-1))


@torch.inference_mode()
def test_dinov3_features_equal_the_reference():
    fixture = Fixture("dual_anchor_full")
    tower = fixture.card["backbone"]["image_tower"]
    prefix = tower["key_prefix"]
    tensors = {name.removeprefix(prefix): t for name, t in fixture.backbone.items() if name.startswith(prefix)}
    encoder = timm_layout.from_config(tower, tensors, spec="fixture")
    layers = fixture.card["options"]["layers"]
    features = encoder.encode(fixture.inputs["images"], FeatureRequest(tokens=layers, cls=True))
    fixture.check("patch_features", torch.stack([encoder.project(features.tokens(layer)) for layer in layers]))
    fixture.check("cls_token", features.cls)
