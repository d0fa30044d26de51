"""Every method keeps the contract, with the tiny and the demo encoder; a new one is tested here by being there."""

import pytest
import torch

from zsadbench import methods
from zsadbench.errors import WeightsError
from zsadbench.testing import check_method

NAMES = [
    listing.name if preset == listing.presets[0] else f"{listing.name}.{preset}"
    for listing in methods.available()
    for preset in listing.presets
]
DEFAULTS = [listing.name for listing in methods.available()]


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_keeps_the_contract_with_the_tiny_encoder(name):
    check_method(name, "tiny")


@pytest.mark.parametrize("name", DEFAULTS)
def test_every_method_keeps_the_contract_with_the_demo_encoder(name):
    check_method(name, "demo")


def test_every_card_is_complete_and_every_title_unique():
    listings = methods.available()
    assert all(listing.card is not None for listing in listings), [listing.problem for listing in listings]
    titles = [listing.card.title for listing in listings]
    assert len(titles) == len(set(titles))
    for listing in listings:
        assert listing.card.reference and listing.presets


@pytest.mark.parametrize("name", DEFAULTS)
def test_options_are_frozen_and_documented_by_their_class(name):
    _, _, config = methods.configure(name)
    assert type(config).__doc__
    assert type(config).__dataclass_params__.frozen


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("name", DEFAULTS)
def test_every_method_predicts_on_the_gpu_what_it_predicts_on_the_cpu(name):
    from zsadbench.datasets import Category
    from zsadbench.running.loading import from_tensor
    from zsadbench.testing import toy_images

    predictions = []
    for device in ("cpu", "cuda"):
        method = methods.create(name, encoder="tiny", device=device)
        if isinstance(method, methods.TrainableMethod):
            method.initialise(seed=0)
        batch = from_tensor(toy_images(4, method.preprocess.size).to(device), Category("nut", "nut", "toy"))
        if method.shots:
            method.remember(from_tensor(toy_images(1, method.preprocess.size, seed=1).to(device), batch.category))
        with torch.inference_mode():
            predictions.append([tensor.cpu() for tensor in method.predict(batch)])
    for cpu, gpu in zip(*predictions, strict=True):
        assert torch.allclose(cpu, gpu, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", DEFAULTS)
def test_missing_weights_are_a_sentence_and_not_a_crash(name, monkeypatch, tmp_path):
    _, _, config = methods.configure(name)
    if not getattr(config, "encoder", ""):
        pytest.skip("this method has no encoder")
    missing = tmp_path / "nowhere.safetensors"
    with pytest.raises(WeightsError, match=r"nowhere\.safetensors"):
        methods.create(name, weights={config.encoder: missing})
