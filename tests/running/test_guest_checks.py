"""What isolation asks of methods in a run, `check_method` asks of them too, and a training of `loss`."""

import re
from pathlib import Path

import misbehaving
import pytest
from misbehaving import CHANGES, GOOD, HARMLESS

from zsadbench import methods
from zsadbench.support import plugins
from zsadbench.support.calls import Harm
from zsadbench.support.shared_state import Settings
from zsadbench.testing import check_method
from zsadbench.training import checkpoints, loop
from zsadbench.training.request import TrainRequest

CHOSEN = ["in_place", "dtype", "weights_row", "hook", "init_half", "init_dtype", "remember_weights"]


@pytest.fixture(scope="module", autouse=True)
def catalogue(tmp_path_factory):
    plugins.add_folder(misbehaving.write(tmp_path_factory.mktemp("catalogue") / "catalogue0"))


@pytest.mark.parametrize("name", CHOSEN)
def test_check_method_says_what_a_method_changes_and_where(name):
    before = Settings()
    with pytest.raises(AssertionError, match=rf"(?s)^method {name} changed .*methods/{name}\.py") as told:
        check_method(name)
    assert CHANGES[name].words.split(" at ")[0] in str(told.value)
    assert not before.changed()


@pytest.mark.parametrize("name", ["calm_all", "prints", "images"])
def test_check_method_has_nothing_against_what_harms_nobody(name):
    assert name in GOOD | HARMLESS
    check_method(name)


TRAINED = """
from dataclasses import dataclass
import torch
from torch import nn
from zsadbench.encoders.features import FeatureRequest
from zsadbench.methods import EncoderConfig, MethodCard, Stage, TrainableMethod, TrainRecipe, register

@dataclass(frozen=True)
class Config(EncoderConfig):
    encoder: str = "tiny"
    trained_on: str = "mvtec"
    recipe: TrainRecipe = TrainRecipe((Stage(2, 0.05, "all", ("weight",)),), batch_size=1)

@register
class Toy(TrainableMethod):
    card = MethodCard(title="Toy", reference="none", scope="image")
    presets = {{"mvtec": Config()}}

    def new_module(self):
        return nn.Linear(1, 1, bias=False)

    def draw(self, module, generator):
        {draw}
        module.weight.fill_(1)

    def loss(self, batch, labels, masks, stage=""):
        tokens = batch.features(self.encoder, FeatureRequest(tokens=[1])).tokens(1)
        terms = {{"sum": (tokens.std() * self.trained.weight.sum() - 1) ** 2}}
        {loss}
        return terms

    def predict(self, batch):
        raise NotImplementedError
"""
HARMS = {  # what a trained method does, and words of the sentence
    "weights": ("[p.data.mul_(2) for p in self.encoder.module.parameters()]", "the encoder's weights (image."),
    "dtype": ("torch.set_default_dtype(torch.float64)", "torch's default dtype"),
    "hook": ("self.encoder.module.ln_post.register_forward_hook(print)", "the encoder's hooks (image.ln_post)"),
    "mode": ("self.encoder.module.train()", "the encoder's parts (image"),
}


def train(folder: Path, name: str, root: Path, **code: str) -> Path:
    """Train a method with some code in `draw` or `loss`; returns the checkpoint's folder."""
    (folder / name / "methods").mkdir(parents=True)
    (folder / name / "methods" / f"{name}.py").write_text(TRAINED.format(**{"draw": "", "loss": ""} | code))
    plugins.add_folder(folder / name)
    loop.train(TrainRequest(name, "mvtec", folder / name / "out", root, limit=2), loop.SilentTraining())
    return folder / name / "out"


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("place", ["draw", "loss"])
def test_a_training_holds_a_method_to_the_same(harm, place, mvtec_tree, tmp_path):
    (code, words), name, before = HARMS[harm], f"{place}_{harm}", Settings()
    with pytest.raises(Harm, match=rf"method {name} changed {re.escape(words)}.* (at|in) .*methods/{name}\.py"):
        train(tmp_path, name, mvtec_tree, **{place: code})
    assert not before.changed()
    assert not (tmp_path / name / "out" / checkpoints.CARD).exists()


def test_features_that_a_training_keeps_are_not_those_that_loss_gets(mvtec_tree, tmp_path):
    found = [
        train(tmp_path, name, mvtec_tree, loss=code) for name, code in (("reads", ""), ("zeroes", "tokens.zero_()"))
    ]
    assert len({(out / checkpoints.WEIGHTS).read_bytes() for out in found}) == 1


def test_check_method_still_wants_the_same_result_twice():
    assert methods.lookup("noisy")
    with pytest.raises(AssertionError, match="noisy is not deterministic"):
        check_method("noisy")
