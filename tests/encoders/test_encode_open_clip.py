"""The encoder against open_clip's own forward pass, and its extras against explicit formulas."""

from __future__ import annotations

import open_clip
import pytest
import torch
from open_clip.model import resize_pos_embed
from torch.nn import functional as F
from toy_clip import make

from zsadbench.encoders import open_clip as clip_layout
from zsadbench.encoders.base import KERNELS
from zsadbench.encoders.features import FeatureRequest
from zsadbench.encoders.transformer import resize_positions
from zsadbench.errors import UsageError

EVERYTHING = FeatureRequest(
    tokens={0, 1, 2, 3}, attended={1, 3}, attention={2}, qq={1}, kk={2}, vv={1, 2, 3}, embedded=True, cls=True
)


@pytest.mark.parametrize("options", [{}, {"quick_gelu": True}, {"ls_init_value": 0.3}, {"no_ln_pre": True}])
@torch.no_grad()
def test_tokens_and_embedding_equal_open_clips_own(options, images):
    model, config = make(**options)
    encoder = clip_layout.from_config(config, model.state_dict(), spec="test")
    features = encoder.encode(images, FeatureRequest(tokens={1, 2, 3}, cls=True))
    expected = model.visual.forward_intermediates(images, indices=[0, 1, 2], output_fmt="NLC", output_extra_tokens=True)
    for layer in (1, 2, 3):
        torch.testing.assert_close(features.tokens(layer), expected["image_intermediates"][layer - 1])
        torch.testing.assert_close(features.prefix(layer), expected["image_intermediates_prefix"][layer - 1])
    torch.testing.assert_close(features.embedding, model.encode_image(images))
    torch.testing.assert_close(features.cls @ model.visual.proj, features.embedding)
    torch.testing.assert_close(features.class_token, features.prefix(3)[:, 0])


@torch.no_grad()
def test_input_of_block_one_is_open_clips_embedding(pair, images):
    model, encoder = pair
    features = encoder.encode(images, FeatureRequest(tokens={0}, embedded=True))
    both = torch.cat([features.prefix(0), features.tokens(0)], dim=1)
    torch.testing.assert_close(both, model.visual._embeds(images))
    torch.testing.assert_close(model.visual.ln_pre(features.embedded), both)
    torch.testing.assert_close(encoder.embed(images), features.embedded, rtol=0, atol=0)


@torch.no_grad()
def test_attention_equals_that_of_multihead_attention(pair, images):
    model, encoder = pair
    features = encoder.encode(images, FeatureRequest(tokens={1}, attention={2}))
    stream = torch.cat([features.prefix(1), features.tokens(1)], dim=1)
    block = model.visual.transformer.resblocks[1]
    y = block.ln_1(stream)
    expected = block.attn(y, y, y, need_weights=True, average_attn_weights=False)[1]
    torch.testing.assert_close(features.attention(2), expected)


@pytest.mark.parametrize("kind", ["qq", "kk", "vv"])
@torch.no_grad()
def test_self_attention_paths_equal_an_explicit_loop(kind, pair, images):
    model, encoder = pair
    features = encoder.encode(images, FeatureRequest(tokens={1}, **{kind: {2}}))
    block = model.visual.transformer.resblocks[1]
    y = block.ln_1(torch.cat([features.prefix(1), features.tokens(1)], dim=1))
    joint = (y @ block.attn.in_proj_weight.T + block.attn.in_proj_bias).chunk(3, dim=-1)
    same, values = joint["qkv".index(kind[0])], joint[2]
    heads = []
    for start in range(0, 48, 16):
        a, v = same[..., start : start + 16], values[..., start : start + 16]
        heads.append(torch.softmax(a @ a.transpose(1, 2) / 4.0, dim=-1) @ v)
    expected = torch.cat(heads, dim=-1) @ block.attn.out_proj.weight.T + block.attn.out_proj.bias
    torch.testing.assert_close(getattr(features, kind)(2), expected)


@torch.no_grad()
def test_a_value_path_is_the_stream_before_its_first_block_plus_the_value_attention_of_its_blocks(pair, images):
    paths = {(1, 2), (2, 2), (2, 3)}
    features = pair[1].encode(images, FeatureRequest(tokens={0, 1}, vv={1, 2, 3}, vv_path=paths))
    for first, last in paths:
        expected = torch.cat([features.prefix(first - 1), features.tokens(first - 1)], dim=1)
        for layer in range(first, last + 1):
            expected = expected + features.vv(layer)
        assert torch.equal(features.vv_path(first, last), expected)
    alone = pair[1].encode(images, FeatureRequest(vv_path={(2, 3)}))
    assert set(alone.tensors) == {"vv_path.2-3"}
    assert torch.equal(alone.vv_path(2, 3), features.vv_path(2, 3))


@torch.no_grad()
def test_attended_is_the_stream_between_attention_and_mlp(pair, images):
    model, encoder = pair
    features = encoder.encode(images, FeatureRequest(tokens={2, 3}, attended={3}))
    block = model.visual.transformer.resblocks[2]
    attended = features.attended(3)
    before = torch.cat([features.prefix(2), features.tokens(2)], dim=1)
    after = torch.cat([features.prefix(3), features.tokens(3)], dim=1)
    y = block.ln_1(before)
    torch.testing.assert_close(attended, before + block.attn(y, y, y)[0])
    torch.testing.assert_close(after, attended + block.mlp(block.ln_2(attended)))


@torch.no_grad()
def test_merged_requests_change_no_bit_of_any_part(pair, images):
    encoder = pair[1]
    merged = encoder.encode(images, EVERYTHING)
    assert merged.covers(EVERYTHING)
    for name in EVERYTHING.keys():
        kind, _, layer = name.partition(".")
        kind = {"prefix": "tokens", "class_token": "cls", "embedding": "cls"}.get(kind, kind)
        alone = encoder.encode(images, FeatureRequest(**{kind: {int(layer)} if layer else True}))
        assert torch.equal(alone.tensors[name], merged.tensors[name]), name


@torch.no_grad()
def test_a_request_returns_its_keys_and_nothing_else(pair, images):
    request = FeatureRequest(tokens={2}, vv={1})
    assert set(pair[1].encode(images, request).tensors) == request.keys()


@torch.no_grad()
def test_features_hardly_depend_on_the_batch(pair, images):
    encoder = pair[1]
    together = encoder.encode(images, EVERYTHING)
    for row in range(3):
        alone = encoder.encode(images[row : row + 1], EVERYTHING)
        for name, tensor in alone.tensors.items():
            torch.testing.assert_close(tensor, together.tensors[name][row : row + 1])


@torch.no_grad()
def test_blocks_after_the_last_requested_one_are_not_computed(images, monkeypatch):
    model, config = make()
    encoder = clip_layout.from_config(config, model.state_dict(), spec="test")
    expected = encoder.encode(images, FeatureRequest(vv={2}))

    def fail(x):
        raise AssertionError("block 3 ran")

    monkeypatch.setattr(encoder.blocks[2], "mlp", fail)
    assert torch.equal(encoder.encode(images, FeatureRequest(vv={2})).vv(2), expected.vv(2))
    with pytest.raises(AssertionError, match="block 3 ran"):
        encoder.encode(images, FeatureRequest(cls=True))


@torch.no_grad()
def test_encode_tokens_of_whole_images_is_the_image_embedding(pair, images):
    encoder = pair[1]
    expected = encoder.encode(images, FeatureRequest(cls=True)).embedding
    torch.testing.assert_close(encoder.encode_tokens(encoder.embed(images)), expected)


@torch.no_grad()
def test_encode_tokens_of_a_window_runs_the_tower_on_those_tokens_alone(pair, images):
    model, encoder = pair
    window = encoder.embed(images)[:, [0, 1, 2, 5, 6]]
    x = model.visual.transformer(model.visual.ln_pre(window))
    expected = model.visual.ln_post(x[:, 0]) @ model.visual.proj
    torch.testing.assert_close(encoder.encode_tokens(window), expected)


@torch.no_grad()
def test_blocks_called_one_by_one_give_the_stream(pair, images):
    encoder = pair[1]
    features = encoder.encode(images, FeatureRequest(tokens={0, 3}))
    x = torch.cat([features.prefix(0), features.tokens(0)], dim=1)
    for block in encoder.blocks:
        x = block(x)
    assert torch.equal(x[:, 1:], features.tokens(3))
    torch.testing.assert_close(encoder.project(x), model_tokens(pair[0], x))


def model_tokens(model, x):
    return model.visual.ln_post(x) @ model.visual.proj


def test_gradients_reach_the_input_and_no_weight(pair, images):
    encoder = pair[1]
    leaf = images.clone().requires_grad_()
    encoder.encode(leaf, FeatureRequest(cls=True)).embedding.sum().backward()
    assert leaf.grad is not None and leaf.grad.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in encoder.text._clip.parameters())


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@torch.no_grad()
def test_lower_precision_returns_float32_near_the_exact_values(precision, pair, images):
    model, config = make()
    encoder = clip_layout.from_config(config, model.state_dict(), spec="test", precision=precision)
    exact, rounded = pair[1].encode(images, EVERYTHING), encoder.encode(images, EVERYTHING)
    tolerance = {"bf16": 0.15, "fp16": 0.02}[precision]
    for name, tensor in rounded.tensors.items():
        assert tensor.dtype == torch.float32, name
        torch.testing.assert_close(tensor, exact.tensors[name], rtol=0, atol=tolerance, msg=name)
    assert not torch.equal(rounded.embedding, exact.embedding)
    assert encoder.encode_tokens(encoder.embed(images)).dtype == torch.float32
    assert encoder.key != pair[1].key


@torch.no_grad()
def test_fp32_stays_fp32_under_a_foreign_autocast(pair, images):
    expected = pair[1].encode(images, FeatureRequest(cls=True)).embedding
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(pair[1].encode(images, FeatureRequest(cls=True)).embedding, expected)


@pytest.mark.parametrize("activation", ["gelu", "quickgelu"])
@torch.no_grad()
def test_the_named_activation_is_used_in_both_towers(activation, images):
    model, config = make()
    other, _ = make(quick_gelu=activation == "quickgelu")
    other.load_state_dict(model.state_dict())
    encoder = clip_layout.from_config(config, model.state_dict(), spec="test", activation=activation)
    assert encoder.activation == activation
    torch.testing.assert_close(encoder.encode(images, FeatureRequest(cls=True)).embedding, other.encode_image(images))
    ids = open_clip.tokenize(["a scratched coin"])
    torch.testing.assert_close(encoder.text.encode(["a scratched coin"]), other.encode_text(ids))


def test_an_activation_with_tanh_approximation_is_refused_as_gelu():
    model, config = make()
    config["vision_cfg"]["act_kwargs"] = {"approximate": "tanh"}
    with pytest.raises(UsageError, match="'gelu'"):
        clip_layout.from_config(config, model.state_dict(), spec="test")


@pytest.mark.parametrize("side", [3, 4, 6, 9])
def test_bicubic_antialias_equals_open_clips_own_resize(side):
    table = torch.randn(17, 48, generator=torch.Generator().manual_seed(2))
    model, _ = make(image_size=8 * side)
    state = {"visual.positional_embedding": table}
    resize_pos_embed(state, model)
    ours = resize_positions(table, 1, side, "bicubic_antialias")
    torch.testing.assert_close(ours, state["visual.positional_embedding"], rtol=0, atol=0)


@pytest.mark.parametrize("kernel", list(KERNELS))
def test_positions_are_resized_by_the_named_kernel_and_prefix_rows_are_kept(kernel):
    table = torch.randn(3 + 25, 8, generator=torch.Generator().manual_seed(3))
    ours = resize_positions(table, 3, 7, kernel)
    assert torch.equal(ours[:3], table[:3])
    mode, _, antialias = kernel.partition("_")
    for channel in range(8):
        grid = table[3:, channel].reshape(1, 1, 5, 5)
        expected = F.interpolate(grid, (7, 7), mode=mode, align_corners=False, antialias=bool(antialias))
        torch.testing.assert_close(ours[3:, channel].reshape(7, 7), expected[0, 0])


def test_kernels_differ_and_the_native_grid_is_left_alone():
    table = torch.randn(26, 4, generator=torch.Generator().manual_seed(4))
    resized = [resize_positions(table, 1, 8, kernel) for kernel in KERNELS]
    assert all((a - b).abs().max() > 1e-3 for i, a in enumerate(resized) for b in resized[:i])
    assert all(torch.equal(resize_positions(table, 1, 5, kernel), table) for kernel in KERNELS)


@torch.no_grad()
def test_an_encoder_at_another_size_equals_open_clip_built_at_that_size():
    model, config = make()
    larger, _ = make(image_size=48)
    state = dict(model.state_dict())
    encoder = clip_layout.from_config(config, dict(state), spec="test", size=48)
    resize_pos_embed(state, larger)
    larger.load_state_dict(state)
    images = torch.randn(2, 3, 48, 48)
    assert (encoder.size, encoder.grid, encoder.preprocess.size) == (48, 6, 48)
    torch.testing.assert_close(encoder.encode(images, FeatureRequest(cls=True)).embedding, larger.encode_image(images))


def test_class_token_has_the_same_bits_whoever_else_reads_the_last_block(pair, images):
    encoder = pair[1]
    alone = encoder.encode(images, FeatureRequest(cls=True))
    merged = encoder.encode(images, FeatureRequest(cls=True, tokens={encoder.depth}, attended={encoder.depth}))
    assert torch.equal(alone.embedding, merged.embedding) and torch.equal(alone.cls, merged.cls)
    torch.testing.assert_close(alone.cls, encoder.tower.norm(merged.prefix(encoder.depth)[:, 0]))
