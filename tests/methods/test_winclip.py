"""WinCLIP: windows, harmonic aggregation and the few-shot memory, against slow loops."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from zsadbench import encoders, methods
from zsadbench.components.image_scores import crop_abnormal
from zsadbench.components.similarity import unit
from zsadbench.datasets import Category
from zsadbench.encoders import open_clip, tiny
from zsadbench.encoders.features import FeatureRequest
from zsadbench.errors import OptionError, UsageError, WeightsError
from zsadbench.running.loading import from_tensor
from zsadbench.support import plugins
from zsadbench.testing import check_method, toy_images

winclip = plugins.load("zsadbench.methods", "winclip")
CATEGORY = Category("metal_nut", "metal nut", "toy")
GRID = 8  # of the tiny encoder


@pytest.fixture(scope="module")
def encoder() -> encoders.base.Encoder:
    return encoders.load("tiny")


@pytest.mark.parametrize("name", ["winclip", "winclip.1shot", "winclip.4shot"])
def test_winclip_keeps_the_contract(name: str) -> None:
    check_method(name)


def test_presets_name_their_number_of_shots() -> None:
    assert {name: config.shots for name, config in winclip.WinClip.presets.items()} == {
        "zero_shot": 0,
        "1shot": 1,
        "2shot": 2,
        "4shot": 4,
    }


def test_windows_are_listed_row_by_row() -> None:
    assert winclip.window_positions(3, 2).tolist() == [[0, 1, 3, 4], [1, 2, 4, 5], [3, 4, 6, 7], [4, 5, 7, 8]]


def test_cover_matrix_marks_the_patches_of_each_window() -> None:
    cover = winclip.cover_matrix(winclip.window_positions(3, 2), 9)
    assert cover[1].tolist() == [0, 1, 1, 0, 1, 1, 0, 0, 0]
    assert cover.sum(dim=0).tolist() == [1, 2, 1, 2, 4, 2, 1, 2, 1]


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_aggregation_equals_a_loop_over_patches_and_windows(scale: int) -> None:
    positions = winclip.window_positions(4, scale)
    values = torch.rand(2, len(positions), generator=torch.Generator().manual_seed(0))
    expected = torch.zeros(2, 16, dtype=torch.float64)
    for image in range(2):
        for patch in range(16):
            inverses = [1 / float(values[image, w]) for w, window in enumerate(positions.tolist()) if patch in window]
            expected[image, patch] = len(inverses) / sum(inverses)
    torch.testing.assert_close(winclip.aggregate(values, winclip.cover_matrix(positions, 16)), expected)


def test_a_window_of_value_zero_gives_its_patches_zero_and_leaves_the_others_alone() -> None:
    positions = winclip.window_positions(3, 2)
    values = torch.tensor([[0.0, 0.5, 0.5, 0.5]])
    aggregated = winclip.aggregate(values, winclip.cover_matrix(positions, 9))[0]
    torch.testing.assert_close(aggregated.float(), torch.tensor([0, 0, 0.5, 0, 0, 0.5, 0.5, 0.5, 0.5]))


def test_harmonic_mean_of_one_third_and_one_is_one_half() -> None:
    values = torch.tensor([[1 / 3], [1.0]], dtype=torch.float64)
    assert winclip.harmonic_mean(values).item() == pytest.approx(0.5)


def encode_window(encoder: encoders.base.Encoder, embedded: Tensor, row: int, column: int, side: int) -> Tensor:
    """Encode the class token and the patches of one window of one image: [J]."""
    patches = [1 + GRID * (row + i) + column + j for i in range(side) for j in range(side)]
    return encoder.encode_tokens(embedded[[0, *patches]][None])[0]


def test_each_window_is_encoded_alone_with_the_class_token(encoder: encoders.base.Encoder) -> None:
    method = methods.create("winclip", encoder=encoder)
    embedded = encoder.encode(toy_images(2, encoder.size), FeatureRequest(embedded=True)).embedded
    windows = method.encode_windows(embedded, method.positions[1])
    assert windows.shape == (2, 36, encoder.joint_width)
    for image, row, column in ((0, 0, 0), (1, 5, 5), (1, 2, 4)):
        expected = unit(encode_window(encoder, embedded[image], row, column, 3))
        torch.testing.assert_close(windows[image, row * 6 + column], expected, rtol=1e-4, atol=1e-5)


def test_windows_in_small_passes_equal_one_pass(
    encoder: encoders.base.Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = methods.create("winclip", encoder=encoder)
    embedded = encoder.encode(toy_images(2, encoder.size), FeatureRequest(embedded=True)).embedded
    expected = method.encode_windows(embedded, method.positions[0])
    monkeypatch.setattr(winclip, "TOKENS_PER_PASS", 40)
    torch.testing.assert_close(method.encode_windows(embedded, method.positions[0]), expected, rtol=1e-4, atol=1e-5)


def test_zero_shot_prediction_equals_the_formulas_of_the_page(encoder: encoders.base.Encoder) -> None:
    method = methods.create("winclip", encoder=encoder, temperature=0.1)
    batch = from_tensor(toy_images(1, encoder.size), CATEGORY)
    text = method.text(CATEGORY)

    def abnormal(embedding: Tensor) -> float:
        return float((unit(embedding) @ text.T / 0.1).softmax(dim=-1)[1])

    features = encoder.encode(batch.images, method.request)
    image = abnormal(features.embedding[0])
    inverse = torch.full((GRID, GRID), 1 / image)
    for side in (2, 3):
        total, count = torch.zeros(GRID, GRID), torch.zeros(GRID, GRID)
        for row in range(GRID - side + 1):
            for column in range(GRID - side + 1):
                p = abnormal(encode_window(encoder, features.embedded[0], row, column, side))
                total[row : row + side, column : column + side] += 1 / p
                count[row : row + side, column : column + side] += 1
        inverse += total / count
    scores, maps = method.predict(batch)
    assert scores.item() == pytest.approx(image, rel=1e-4)
    torch.testing.assert_close(maps[0], 3 / inverse, rtol=1e-4, atol=1e-5)


def test_without_the_image_scale_the_map_is_the_mean_of_the_windows_alone(encoder: encoders.base.Encoder) -> None:
    batch = from_tensor(toy_images(1, encoder.size), CATEGORY)
    full = methods.create("winclip", encoder=encoder).predict(batch)
    windows = methods.create("winclip", encoder=encoder, include_image_scale=False).predict(batch)
    torch.testing.assert_close(3 / full.maps, 2 / windows.maps + 1 / full.scores[:, None, None])


def test_a_reference_that_equals_the_image_adds_nothing(encoder: encoders.base.Encoder) -> None:
    batch = from_tensor(toy_images(2, encoder.size), CATEGORY)
    zero_shot = methods.create("winclip", encoder=encoder).predict(batch)
    method = methods.create("winclip.2shot", encoder=encoder)
    method.remember(batch)
    few_shot = method.predict(batch)
    torch.testing.assert_close(few_shot.maps, zero_shot.maps, rtol=0, atol=1e-6)
    torch.testing.assert_close(few_shot.scores, zero_shot.scores / 2, rtol=0, atol=1e-6)


def test_few_shot_association_is_the_mean_over_scales_and_patches(encoder: encoders.base.Encoder) -> None:
    method = methods.create("winclip.1shot", encoder=encoder, window_scales=(2,))
    images = toy_images(3, encoder.size)
    method.remember(from_tensor(images[:1], CATEGORY))
    batch = from_tensor(images[1:], CATEGORY)
    views = method.views(batch.features(encoder, method.request))
    _, memory = method.memory
    windows = (1 - views.windows[0] @ memory.windows[0][0].T).amin(dim=2) / 2
    patches = (1 - views.patches @ memory.patches[0].T).amin(dim=2) / 2
    expected = (winclip.aggregate(windows, method.covers[0]) + patches) / 2
    association = method.association(views, CATEGORY)
    torch.testing.assert_close(association, expected.float().view(2, GRID, GRID))
    zero_shot = methods.create("winclip", encoder=encoder, window_scales=(2,)).predict(batch)
    few_shot = method.predict(batch)
    torch.testing.assert_close(few_shot.maps, zero_shot.maps + association)
    torch.testing.assert_close(few_shot.scores, (zero_shot.scores + association.amax(dim=(1, 2))) / 2)


def test_fusing_by_the_mean_halves_the_map(encoder: encoders.base.Encoder) -> None:
    images = toy_images(2, encoder.size)
    maps = []
    for fusion in ("sum", "mean"):
        method = methods.create("winclip.1shot", encoder=encoder, few_shot_fusion=fusion)
        method.remember(from_tensor(images[:1], CATEGORY))
        maps.append(method.predict(from_tensor(images[1:], CATEGORY)).maps)
    torch.testing.assert_close(maps[0], 2 * maps[1])


@pytest.mark.parametrize("remembered", [None, Category("screw", "screw", "toy")])
def test_predicting_without_references_of_the_category_is_an_error(
    encoder: encoders.base.Encoder, remembered: Category | None
) -> None:
    method = methods.create("winclip.1shot", encoder=encoder)
    if remembered:
        method.remember(from_tensor(toy_images(1, encoder.size), remembered))
    with pytest.raises(UsageError, match=r"winclip.1shot with shots=1 knows no references of category 'metal_nut'"):
        method.predict(from_tensor(toy_images(1, encoder.size), CATEGORY))


def test_encoder_without_text_tower_is_refused_when_the_method_is_made() -> None:
    visual = {name: tensor for name, tensor in tiny.tensors().items() if name.startswith("visual.")}
    with pytest.raises(WeightsError, match="no text tower"):
        methods.create("winclip", encoder=open_clip.from_config(tiny.CONFIG, visual, spec="blind"))


def test_text_features_may_be_given_instead_of_a_text_tower() -> None:
    visual = {name: tensor for name, tensor in tiny.tensors().items() if name.startswith("visual.")}
    blind = open_clip.from_config(tiny.CONFIG, visual, spec="blind")
    text = methods.create("winclip", encoder="tiny").text(CATEGORY)
    method = winclip.WinClip(winclip.WinClipConfig(), blind, text=lambda category: text)
    batch = from_tensor(toy_images(1, blind.size), CATEGORY)
    assert torch.equal(method.predict(batch).maps, methods.create("winclip", encoder="tiny").predict(batch).maps)


@pytest.mark.parametrize("scales", [(), (0, 2), (9,)])
def test_windows_that_do_not_fit_the_grid_are_refused(encoder: encoders.base.Encoder, scales: tuple[int, ...]) -> None:
    with pytest.raises(OptionError, match="expected window sides between 1 and 8"):
        methods.create("winclip", encoder=encoder, window_scales=scales)


def test_multi_crop_averages_the_whole_image_with_its_crops() -> None:
    plain, cropped = (methods.create("winclip", encoder="tiny", multi_crop=value) for value in (False, True))
    batch = from_tensor(toy_images(3, plain.encoder.size), CATEGORY)
    text, scale = plain.text(CATEGORY), 1 / plain.config.temperature
    crops = crop_abnormal(plain.encoder, batch.images, text, scale)
    one, other = plain.predict(batch), cropped.predict(batch)
    torch.testing.assert_close(other.scores, (one.scores + crops) / 2)
    assert torch.equal(one.maps, other.maps)
