"""What is no prediction: a sentence that names the field, whatever kind of thing it is."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from zsadbench.methods.constant import Constant, ConstantConfig

from zsadbench import Prediction
from zsadbench.errors import ContractError
from zsadbench.running import contract

PATHS = (Path("/data/wood/test/good/0.png"), Path("/data/wood/test/hole/1.png"))
SCORES, MAPS = torch.rand(2), torch.rand(2, 8, 8)


class Batch(SimpleNamespace):
    paths = PATHS

    def __len__(self):
        return len(PATHS)


@pytest.mark.parametrize(
    ("prediction", "words"),
    [
        (None, "predict returned NoneType; expected Prediction"),
        ((SCORES, MAPS), "predict returned tuple"),
        (Prediction(SCORES, MAPS[:, :0]), r"maps have shape \[2, 0, 8\]; expected \[2, h, w\]"),
        (Prediction(SCORES, MAPS[:, None]), r"maps have shape \[2, 1, 8, 8\]"),
        (Prediction(SCORES[:1], MAPS), r"scores have shape \[1\]; expected \[2\]"),
        (Prediction(SCORES, MAPS.numpy()), "maps have shape ndarray"),
        (Prediction(SCORES, MAPS.to(torch.int8)), "maps have dtype torch.int8"),
        (Prediction(SCORES, MAPS.to(torch.complex64)), "maps have dtype torch.complex64"),
        (Prediction(SCORES, MAPS.to_sparse()), "maps are a sparse_coo tensor"),
        (Prediction(SCORES, MAPS.to("meta")), "maps are a meta tensor"),
        (Prediction(SCORES, MAPS.index_fill(0, torch.tensor([1]), torch.inf)), "infinity for test/hole/1.png"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_prediction_is_told_in_a_sentence(prediction, words):
    method = Constant(ConstantConfig(), None)
    method.name = "constant"
    with pytest.raises(ContractError, match=words):
        contract.check_prediction(prediction, Batch(), method)


def test_extremes_of_float32_are_a_prediction():
    largest = torch.finfo(torch.float32).max
    method = Constant(ConstantConfig(), None)
    contract.check_prediction(Prediction(SCORES * 0 - largest, MAPS * 0 + largest), Batch(), method)
