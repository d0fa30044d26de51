"""What the encoder package does without torch, and how options become an encoder."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

from zsadbench import encoders
from zsadbench.methods import EncoderConfig


def test_listing_encoders_imports_no_torch():
    code = "import sys; from zsadbench import encoders; print(encoders.available()); assert 'torch' not in sys.modules"
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    for name in ("demo", "tiny", "open_clip:NAME/TAG", "timm:NAME"):
        assert name in output


def test_options_without_an_encoder_load_none():
    assert encoders.load_for(EncoderConfig()) is None
    assert encoders.load_for(object()) is None


def test_options_reach_the_encoder():
    config = EncoderConfig(encoder="tiny", size=48, activation="quickgelu", pos_embed="bilinear")
    encoder = encoders.load_for(config, precision="bf16")
    assert (encoder.size, encoder.activation, encoder.pos_embed, encoder.precision) == (
        48,
        "quickgelu",
        "bilinear",
        "bf16",
    )


def test_the_identity_is_json_and_changes_with_everything_that_changes_numbers():
    config = EncoderConfig(encoder="tiny")
    changes = ({}, {"size": 48}, {"activation": "quickgelu"}, {"pos_embed": "bicubic"})
    keys = {encoders.load_for(replace(config, **change)).key for change in changes}
    assert len(keys) == 4
    encoder = encoders.load_for(config)
    assert json.loads(json.dumps(encoder.identity)) == encoder.identity == json.loads(encoder.key)
    assert {"spec", "sha256", "size", "activation", "pos_embed", "precision"} <= encoder.identity.keys()
    assert encoder.key == encoders.load_for(replace(config, activation="gelu", size=64)).key
