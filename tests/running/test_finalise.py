"""Image scores that are made of a whole category's predictions, although images are predicted a few at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import zsadbench as z
from zsadbench import methods
from zsadbench.data.images import apply
from zsadbench.datasets import Category
from zsadbench.errors import ContractError
from zsadbench.methods import Final
from zsadbench.protocol import EvaluationProtocol
from zsadbench.records import results
from zsadbench.records.results import Record
from zsadbench.running import contract, runner
from zsadbench.running.loading import from_tensor
from zsadbench.running.plan import make_plan
from zsadbench.running.progress import Silent
from zsadbench.running.request import Request
from zsadbench.support import plugins
from zsadbench.testing import check_method

CATEGORY = Category("x", "x", "toy")
SOURCE = """
from dataclasses import dataclass
import torch
from zsadbench.data.images import Preprocess
from zsadbench.methods import Final, Method, MethodCard, Prediction, register

@dataclass(frozen=True)
class Config:
    pass

@register
class Toy(Method):
    card = MethodCard(title="{name}", reference="none", scope="image", image_scope="{image_scope}")
    presets = {{"default": Config()}}
    preprocess = Preprocess(size=32)
    seen = []

    def predict(self, batch):
        self.seen.append(len(batch))
        maps = batch.images.mean(dim=1) + 1
        return Prediction({evidence}, maps)

    def finalise(self, scores):
        {body}
"""
PAIR = "torch.stack([maps.amax((1, 2)), maps.mean((1, 2))], dim=1)"
SCALED = "peaks = scores[:, 0]; return Final((peaks - peaks.min()) / (peaks.max() - peaks.min()), start=5.0, span=2.0)"
TOYS = {  # name -> image scope, what predict returns as scores, what finalise does
    "fin_good": ("category", PAIR, SCALED),
    "fin_lies": (
        "image",
        PAIR,
        "return Final(scores[:, 0] - scores[:, 0].min())",
    ),  # says that a score depends on its image alone
    "fin_order": ("category", PAIR, "return Final(scores[:, 0].cumsum(0))"),
    "fin_short": ("category", PAIR, "return Final(scores[1:, 0])"),
    "fin_nan": ("category", PAIR, "return Final(scores[:, 0] * float('nan'))"),
    "fin_span": ("category", PAIR, "return Final(scores[:, 0], span=0.0)"),
    "fin_raises": ("category", PAIR, "raise RuntimeError('broken scale')"),
    "fin_wide": ("image", PAIR, "return Final(scores)"),
}


@pytest.fixture
def toys(tmp_path: Path, forgotten_plugins: None) -> None:
    (tmp_path / "toys" / "methods").mkdir(parents=True)
    for name, (image_scope, evidence, body) in TOYS.items():
        source = SOURCE.format(name=name, image_scope=image_scope, evidence=evidence, body=body)
        (tmp_path / "toys" / "methods" / f"{name}.py").write_text(source)
    plugins.add_folder(tmp_path / "toys")


def run(out: Path, *names: str) -> dict[str, Record]:
    request = Request(names, ["demo"], out, categories=["pill"], protocol=EvaluationProtocol(limit=6, batch_size=2))
    runner.run(make_plan(request), request, Silent())
    return {record.method: record for record in results.load_run(out)}


def test_a_run_predicts_few_images_at_a_time_and_scales_the_scores_of_the_category(tmp_path: Path, toys: None) -> None:
    record = run(tmp_path / "run", "fin_good")["fin_good"]
    method = methods.create("fin_good")
    assert type(method).seen == [2, 2, 2]
    scores = np.array([score.score for score in results.load_scores(tmp_path / "run", record)])
    assert (scores.min(), scores.max()) == (0, 1) and len(scores) == 6
    assert (record.setting["scope"], record.setting["image_scope"]) == ("image", "category")


def test_what_finalise_does_wrong_fails_its_cell_and_says_where(tmp_path: Path, toys: None) -> None:
    found = run(tmp_path / "run", "fin_short", "fin_nan", "fin_span", "fin_raises", "fin_wide", "fin_good")
    reasons = {name: record.error for name, record in found.items() if record.status == "failed"}
    assert "scores have shape [5]; expected [6]. (finalise at" in reasons["fin_short"]
    assert "scores hold NaN or infinity" in reasons["fin_nan"]
    assert "span 0; expected finite numbers, and a span above 0" in reasons["fin_span"]
    assert "broken scale" in reasons["fin_raises"]
    assert "scores have shape [2, 2]; expected [2]. (finalise at" in reasons["fin_wide"]
    assert found["fin_good"].status == "done"


def test_a_method_without_finalise_returns_one_score_an_image() -> None:
    method, batch = methods.create("constant"), from_tensor(torch.zeros(2, 3, 8, 8), CATEGORY)
    prediction = methods.Prediction(torch.zeros(2, 2), torch.zeros(2, 4, 4))
    with pytest.raises(ContractError, match=r"scores have shape \[2, 2\]; expected \[2\]"):
        contract.check_prediction(prediction, batch, method)


def test_check_method_holds_both_scopes_to_what_they_promise(toys: None) -> None:
    check_method("fin_good")
    with pytest.raises(AssertionError, match=r'scope "image", but image \d scores differently alone'):
        check_method("fin_lies")
    with pytest.raises(AssertionError, match='image scope "category", but results depend on the order'):
        check_method("fin_order")


def test_predict_scales_over_all_images_that_are_given_and_maps_by_one_line(toys: None) -> None:
    photos = [np.full((32, 32, 3), value, np.uint8) for value in (0, 100, 250)]
    result = z.load("fin_good").predict(photos, batch_size=1)
    assert result.scores.tolist() == pytest.approx([0, 0.4, 1], abs=1e-6)
    method = methods.create("fin_good")
    (raw,) = method.predict(from_tensor(apply(method.preprocess, photos[2])[None], CATEGORY)).maps
    np.testing.assert_allclose(result.maps[2], (raw - 5) / 2, rtol=1e-5)


def test_maps_are_left_alone_unless_there_is_a_line() -> None:
    maps = torch.tensor([[[-0.0, 1e-30, 3.0]]])
    assert torch.equal(Final(torch.zeros(1)).scaled(maps), maps)


@pytest.mark.parametrize(
    ("usual", "inductive"),
    [
        ("clip_ad", "clip_ad.sdp_inductive"),
        ("clip_ad.sdp_plus_visa", "clip_ad.sdp_plus_inductive_visa"),
        ("clip_ad.sdp_plus_mvtec", "clip_ad.sdp_plus_inductive_mvtec"),
        ("clip_surgery", "clip_surgery.baseline_inductive"),
        ("aa_clip", "aa_clip.inductive_visa"),
        ("aa_clip.mvtec", "aa_clip.inductive_mvtec"),
        ("bayes_pfl", "bayes_pfl.inductive_visa"),
        ("bayes_pfl.mvtec", "bayes_pfl.inductive_mvtec"),
    ],
)
def test_inductive_presets_differ_in_the_scaling_alone_and_share_weights(usual: str, inductive: str) -> None:
    kind = methods.lookup(usual)[0]
    changed = methods.changed(usual, methods.lookup(inductive)[2])
    assert changed.keys() in ({"image_score"}, {"score"})
    assert kind.card.scope == "image" and kind.card.image_scope == "category"
    free = getattr(kind, "free_options", changed.keys())
    assert changed.keys() <= free, "one checkpoint serves both"
