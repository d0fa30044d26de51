"""Every trained method learns: its loss falls on the demo family, its maps gain on the demo set, which is unseen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from zsadbench.protocol import EvaluationProtocol
from zsadbench.running.plan import make_plan
from zsadbench.running.request import Request
from zsadbench.testing import gain as training_gain
from zsadbench.training.checkpoints import WEIGHTS, shipped
from zsadbench.training.request import TrainRequest


@dataclass(frozen=True)
class Expected:
    """What a training of a few seconds must reach, with seed 0."""

    falls: tuple[float | None, ...]  # a stage: largest ratio of its last to its first losses; None: nothing is expected
    gain: float  # least ratio of the pixel AP to that of the untrained method
    limit: int | None = 8  # images a category; None: all
    beats_constant: bool = False  # `gain` is over a constant map


EXPECTED = {
    "aa_clip.demo": Expected((0.8, 0.7), 10, limit=6),
    # An untrained network measures how far a vector lies from the others too, so that it is no yardstick.
    "acr.demo": Expected((0.8,), 8, limit=None, beats_constant=True),
    "adaclip.demo": Expected((0.8,), 10, limit=4),
    "anomalyclip.demo": Expected((0.9,), 2),  # words alone find a part of the defects
    "april_gan.demo": Expected((0.8,), 10, limit=6),
    # Seed 0 draws maps that find some defects; the few steps of the image stage hardly move the loss.
    "bayes_pfl.demo": Expected((0.9, None), 1.5, limit=16),
    "clip_ad.sdp_plus_demo": Expected((0.8,), 5, limit=6),
    "dual_anchor.demo": Expected((0.85,), 1.5, limit=4),  # seed 0 draws maps that find some defects
}


def test_every_trained_method_is_expected_to_learn() -> None:
    assert training_gain.trained_on("demo.train") == sorted(EXPECTED), "a new trained method joins EXPECTED"


@pytest.mark.parametrize("name", EXPECTED)
def test_its_demo_weights_ship_and_fit(name: str, tmp_path: Path) -> None:
    """A run takes them, and trains nothing."""
    plan = make_plan(Request([name], ["demo"], tmp_path, encoder="demo", protocol=EvaluationProtocol(limit=2)))
    assert not plan.trainings
    assert {cell.planned.checkpoint for group in plan.groups for cell in group} == {(shipped() / name / WEIGHTS,)}


def test_another_seed_is_trained(tmp_path: Path) -> None:
    request = Request(
        ["april_gan"],
        ["demo"],
        tmp_path,
        encoder="demo",
        checkpoint_folder=tmp_path,
        protocol=EvaluationProtocol(seed=1),
    )
    assert [training.request.seed for training in make_plan(request).trainings] == [1]


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPECTED)
def test_training_on_the_demo_family_lowers_the_loss_and_raises_the_pixel_ap_on_the_demo_set(
    name: str, tmp_path: Path
) -> None:
    expected = EXPECTED[name]
    request = TrainRequest(name, "demo.train", tmp_path, encoder="demo", limit=expected.limit)
    outcome = training_gain.measure(request, "demo")
    for stage, fall in zip(outcome.stages, expected.falls, strict=True):
        assert fall is None or stage.last_loss < fall * stage.first_loss
    constant = Request(["constant"], ["demo"], tmp_path / "constant")
    before = training_gain.quality(constant) if expected.beats_constant else outcome.untrained
    assert outcome.trained.pixel_ap > expected.gain * before.pixel_ap
