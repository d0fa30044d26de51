"""Training recipes: schedules against torch's own."""

import pytest
import torch

from zsadbench.recipes import Cosine, MultiStep, Stage, TrainRecipe


def test_multi_step_is_torchs():
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    reference = torch.optim.lr_scheduler.MultiStepLR(optimiser, [2, 5, 6], gamma=0.5)
    schedule = MultiStep((2, 5, 6), 0.5)
    for step in range(9):
        assert 0.3 * schedule.factor(step, 9) == optimiser.param_groups[0]["lr"]
        optimiser.step()
        reference.step()


def test_cosine_without_warm_up_is_torchs():
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 12)
    for step in range(13):
        assert 0.3 * Cosine().factor(step, 12) == pytest.approx(optimiser.param_groups[0]["lr"])
        optimiser.step()
        reference.step()


def test_cosine_rises_linearly_from_zero_and_falls_to_zero_over_the_rest():
    schedule = Cosine(warm_up=0.2)
    assert [schedule.factor(step, 10) for step in (0, 1, 2, 6, 10)] == pytest.approx([0, 0.5, 1, 0.5, 0])
    assert [schedule.factor(step, 3) for step in (0, 3)] == pytest.approx([1, 0])  # fewer steps than a fifth needs


def test_a_parameter_has_the_rate_of_its_first_prefix_or_the_stages():
    stage = Stage(1, 0.1, rates=(("prompt_state", 0.2), ("prompt", 0.3)))
    assert [stage.rate(name) for name in ("prompt_state_normal", "prompt_context", "fuse.prompt")] == [0.2, 0.3, 0.1]


def test_a_stage_without_a_batch_size_takes_the_recipes():
    recipe = TrainRecipe((Stage(1, 1e-3), Stage(1, 1e-3, batch_size=2)), batch_size=16)
    assert [recipe.batch_size_of(stage) for stage in (0, 1)] == [16, 2]
