"""The encoder against timm's own forward passes: every class of model it takes, shrunk and with random weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from timm.layers import resample_abs_pos_embed

from zsadbench import encoders
from zsadbench.data.images import IMAGENET_MEAN, IMAGENET_STD
from zsadbench.encoders import timm as timm_layout
from zsadbench.encoders.features import FeatureRequest
from zsadbench.errors import UsageError, WeightsError

SMALL = {"embed_dim": 64, "depth": 3, "num_heads": 2}
MODELS = {  # timm name -> what distinguishes it
    "vit_tiny_patch16_224": {"img_size": 64, "num_classes": 0},
    "vit_small_patch14_dinov2": {"img_size": 70},  # layer scale
    "vit_small_patch14_reg4_dinov2": {"img_size": 70},  # registers, positions without prefix rows
    "vit_base_patch16_clip_quickgelu_224": {"img_size": 64, "num_classes": 24},  # pre-norm, projection, QuickGELU
    "vit_small_patch16_dinov3": {"img_size": 64},  # Eva: rotary positions, registers, gamma
    "vit_small_patch16_dinov3_qkvb": {"img_size": 64},  # the same with query and value biases
    "vit_small_plus_patch16_dinov3": {"img_size": 64},  # SwiGLU
    "eva02_tiny_patch14_224": {"img_size": 70, "num_classes": 0},  # learned and rotary positions, separate q, k, v
    "eva02_base_patch16_clip_224": {"img_size": 64, "num_classes": 24},  # norm before the output projection
    "vit_small_patch16_rope_mixed_224": {"img_size": 64, "num_classes": 0},  # rotary positions per block
}
SIZED = ["vit_small_patch16_dinov3", "eva02_tiny_patch14_224", "vit_small_patch16_rope_mixed_224"]
DINOV2 = Path(__file__).parents[3] / "shared" / "weights" / "dinov2_vits14.safetensors"
DINOV2_SPEC = "timm:vit_small_patch14_dinov2.lvd142m"
needs_dinov2 = pytest.mark.skipif(not DINOV2.is_file(), reason=f"the real DINOv2 weights are not at {DINOV2}")


def make(name, **kwargs):
    """Return a random timm model whose every parameter matters, and the config that builds it."""
    config = {"model": name, "kwargs": SMALL | MODELS.get(name, {}) | kwargs}
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False, **config["kwargs"]).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model, config


def draw(encoder, count=2):
    return torch.randn(count, 3, encoder.size, encoder.size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_tokens_equal_timms_own(name):
    model, config = make(name)
    encoder = timm_layout.from_config(config, model.state_dict(), spec="test")
    images = draw(encoder)
    features = encoder.encode(images, FeatureRequest(tokens={1, 3}, cls=True))
    final, expected = model.forward_intermediates(images, indices=[0, 2], return_prefix_tokens=True, output_fmt="NLC")
    for layer, (patches, prefix) in zip((1, 3), expected, strict=True):
        torch.testing.assert_close(features.tokens(layer), patches)
        torch.testing.assert_close(features.prefix(layer), prefix)
    torch.testing.assert_close(final, model.forward_features(images))
    if isinstance(model.norm, torch.nn.Identity):  # the norm comes after pooling in models that average
        final = model.fc_norm(final)
    torch.testing.assert_close(features.cls, final[:, 0])
    whole = torch.cat([features.prefix(3), features.tokens(3)], dim=1)
    torch.testing.assert_close(encoder.project(whole), model.head(final))


@torch.no_grad()
def test_the_embedding_of_clip_in_timm_is_the_models_output():
    model, config = make("vit_base_patch16_clip_quickgelu_224")
    encoder = timm_layout.from_config(config, model.state_dict(), spec="test")
    images = draw(encoder)
    torch.testing.assert_close(encoder.encode(images, FeatureRequest(cls=True)).embedding, model(images))
    assert encoder.joint_width == 24 and encoder.activation == "quickgelu"
    assert encoder.text is None and encoder.logit_scale is None


@torch.no_grad()
def test_without_a_projection_the_embedding_is_the_class_token():
    model, config = make("vit_small_patch14_dinov2")
    encoder = timm_layout.from_config(config, model.state_dict(), spec="test")
    features = encoder.encode(draw(encoder), FeatureRequest(cls=True))
    assert encoder.joint_width is None and torch.equal(features.embedding, features.cls)


@pytest.mark.parametrize("name", ["vit_small_patch14_dinov2", "vit_small_patch16_dinov3", "eva02_tiny_patch14_224"])
@torch.no_grad()
def test_attention_and_layer_scale_reproduce_the_attended_stream(name):
    model, config = make(name)
    encoder = timm_layout.from_config(config, model.state_dict(), spec="test")
    request = FeatureRequest(tokens={1}, attention={2}, attended={2}, vv={2})
    features = encoder.encode(draw(encoder), request)
    before = torch.cat([features.prefix(1), features.tokens(1)], dim=1)
    block = encoder.blocks[1]
    v = block.qkv(block.norm1(before))[2]
    torch.testing.assert_close(features.attention(2).sum(-1), torch.ones(features.attention(2).shape[:3]))
    torch.testing.assert_close(before + block.out(features.attention(2) @ v), features.attended(2))
    weights = torch.softmax(torch.einsum("bhid,bhjd->bhij", v, v) * v.shape[-1] ** -0.5, dim=-1)
    torch.testing.assert_close(features.vv(2), block.out(weights @ v))


@pytest.mark.parametrize("name", ["vit_small_patch14_reg4_dinov2", "vit_small_patch16_dinov3"])
@torch.no_grad()
def test_merged_requests_change_no_bit_in_timm_models(name):
    model, config = make(name)
    encoder = timm_layout.from_config(config, model.state_dict(), spec="test")
    images = draw(encoder)
    parts = [FeatureRequest(tokens={2}), FeatureRequest(vv={1, 3}), FeatureRequest(attention={2}, cls=True)]
    merged = encoder.encode(images, parts[0] | parts[1] | parts[2])
    for part in parts:
        for key, tensor in encoder.encode(images, part).tensors.items():
            assert torch.equal(tensor, merged.tensors[key]), key


@pytest.mark.parametrize("name", SIZED)
@torch.no_grad()
def test_rotary_positions_follow_the_size(name):
    model, config = make(name)
    patch = model.patch_embed.patch_size[0]
    size = config["kwargs"]["img_size"] + 2 * patch
    encoder = timm_layout.from_config(config, model.state_dict(), spec="test", size=size)
    larger, _ = make(name, img_size=size)
    state = dict(model.state_dict())
    if model.pos_embed is not None:
        state["pos_embed"] = resample_abs_pos_embed(state["pos_embed"], (size // patch,) * 2)
    larger.load_state_dict(state)
    images = draw(encoder)
    expected = larger.forward_intermediates(images, indices=[2], output_fmt="NLC", intermediates_only=True)[0]
    torch.testing.assert_close(encoder.encode(images, FeatureRequest(tokens={3})).tokens(3), expected)


@pytest.mark.parametrize("name", ["vit_small_patch14_dinov2", "vit_small_patch14_reg4_dinov2"])
def test_learned_positions_are_resized_from_the_native_grid_and_registers_have_none(name):
    model, config = make(name)
    encoder = timm_layout.from_config(config, model.state_dict(), spec="test", size=98)
    prefixes = 0 if model.no_embed_class else 1
    expected = resample_abs_pos_embed(model.pos_embed, (7, 7), num_prefix_tokens=prefixes)[0]
    torch.testing.assert_close(encoder.positions[encoder.prefixes :], expected[prefixes:])
    if model.no_embed_class:
        assert encoder.prefixes == 5 and not encoder.positions[:5].any()
    else:
        assert torch.equal(encoder.positions[0], model.pos_embed[0, 0])


@torch.no_grad()
def test_windows_of_tokens_need_learned_positions():
    model, config = make("vit_small_patch16_dinov3")
    encoder = timm_layout.from_config(config, model.state_dict(), spec="test")
    with pytest.raises(UsageError, match="rotary"):
        encoder.encode_tokens(encoder.embed(draw(encoder))[:, :6])


@torch.no_grad()
def test_extra_prefix_tokens_are_not_rotated():
    model, config = make("vit_small_patch16_dinov3")
    encoder = timm_layout.from_config(config, model.state_dict(), spec="test")
    x = encoder.embed(draw(encoder))
    block = encoder.blocks[0]
    longer = torch.cat([torch.zeros(2, 3, 64), x], dim=1)
    for short, long in zip(block.qkv(x), block.qkv(longer), strict=True):
        torch.testing.assert_close(long[:, :, 3:], short)


def test_the_activation_can_be_named_where_timm_lets_it():
    model, config = make("vit_tiny_patch16_224")
    encoder = timm_layout.from_config(config, model.state_dict(), spec="test", activation="quickgelu")
    assert encoder.activation == "quickgelu"
    x = torch.randn(1, 17, 64)
    quick, _ = make("vit_tiny_patch16_224", act_layer="quick_gelu")
    torch.testing.assert_close(encoder.blocks[0](x), quick.blocks[0](x))


def test_an_activation_that_the_model_cannot_have_is_refused():
    model, config = make("vit_small_plus_patch16_dinov3")
    with pytest.raises(UsageError, match="silu"):
        timm_layout.from_config(config, model.state_dict(), spec="test", activation="gelu")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("regnetx_002", "RegNet|needs numbers"),  # some releases of timm compute while they build it
        ("vit_base_patch16_siglip_224", "no class token"),
        ("vit_small_r26_s32_224", "HybridEmbed"),
        ("vit_base_patch16_rpn_224", "ResPostBlock|no class token"),
    ],
)
def test_models_of_another_kind_are_refused(name, reason):
    with pytest.raises(UsageError, match=reason):
        timm_layout.from_config({"model": name}, {}, spec="test")


def test_a_model_that_cannot_be_built_without_numbers_is_refused(monkeypatch):
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: torch.zeros(2).unique())
    with pytest.raises(UsageError, match="'test' needs numbers to be built; expected a plain timm"):
        timm_layout.from_config({"model": "vit_tiny_patch16_224"}, {}, spec="test")


@pytest.mark.parametrize("size", [518, 100])
def test_dinov3_refuses_sizes_that_are_no_multiple_of_its_patch(size):
    model, config = make("vit_small_patch16_dinov3")
    with pytest.raises(UsageError, match=f"{size // 16 * 16} or {size // 16 * 16 + 16}"):
        timm_layout.from_config(config, model.state_dict(), spec="test", size=size)


@needs_dinov2
@torch.no_grad()
def test_real_dinov2_weights_in_their_original_layout_give_timms_features():
    encoder = encoders.load(DINOV2_SPEC, weights={DINOV2_SPEC: DINOV2}, size=224)
    assert (encoder.grid, encoder.depth, encoder.width, encoder.heads, encoder.activation) == (16, 12, 384, 6, "gelu")
    assert (encoder.preprocess.mean, encoder.preprocess.std) == (IMAGENET_MEAN, IMAGENET_STD)
    overlay = {"file": str(DINOV2)}
    model = timm.create_model(
        "vit_small_patch14_dinov2.lvd142m", pretrained=True, pretrained_cfg_overlay=overlay, img_size=224
    )
    images = draw(encoder, 1)
    features = encoder.encode(images, FeatureRequest(tokens={6}, cls=True))
    expected = model.eval().forward_intermediates(images, indices=[5], output_fmt="NLC", intermediates_only=True)
    torch.testing.assert_close(features.tokens(6), expected[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(features.cls, model.forward_features(images)[:, 0], rtol=1e-4, atol=1e-4)
    assert encoder.sha256 == encoders.identify(DINOV2_SPEC, {DINOV2_SPEC: DINOV2})


@needs_dinov2
@pytest.mark.parametrize(
    "spec",
    [
        "timm:vit_base_patch14_dinov2.lvd142m",
        "timm:vit_small_patch14_reg4_dinov2.lvd142m",
        "timm:vit_small_patch16_dinov3.lvd1689m",
        "open_clip:ViT-B-16/openai",
    ],
)
def test_dinov2_weights_do_not_pass_for_another_model(spec):
    with pytest.raises(WeightsError, match="another architecture"):
        encoders.load(spec, weights={spec: DINOV2})
