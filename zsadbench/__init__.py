"""zsadbench: one pipeline, exact metrics and paper-style tables for zero-shot anomaly detection methods.

    import zsadbench as z

    run = z.evaluate(["winclip", "musc"], "mvtec", root="DATA", out="runs/first")
    run.to_pandas()

Names are imported when they are first used, so that `import zsadbench` loads neither torch nor numpy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zsadbench import metrics as metrics
    from zsadbench.api.listing import describe as describe
    from zsadbench.api.listing import list_datasets as list_datasets
    from zsadbench.api.listing import list_methods as list_methods
    from zsadbench.api.listing import list_runs as list_runs
    from zsadbench.api.predictor import Predictions as Predictions
    from zsadbench.api.predictor import Predictor as Predictor
    from zsadbench.api.predictor import load as load
    from zsadbench.api.run import evaluate as evaluate
    from zsadbench.api.run import profile as profile
    from zsadbench.api.run import train as train
    from zsadbench.api.runs import Run as Run
    from zsadbench.api.runs import load_run as load_run
    from zsadbench.api.runs import load_runs as load_runs
    from zsadbench.data.images import Preprocess as Preprocess
    from zsadbench.encoders.features import FeatureRequest as FeatureRequest
    from zsadbench.methods import EncoderConfig as EncoderConfig
    from zsadbench.methods import Final as Final
    from zsadbench.methods import Method as Method
    from zsadbench.methods import MethodCard as MethodCard
    from zsadbench.methods import Prediction as Prediction
    from zsadbench.methods import TrainableMethod as TrainableMethod
    from zsadbench.methods import register as register
    from zsadbench.testing import check_method as check_method

__version__ = "0.2.0"

_HOMES = {  # name -> the module that it is imported from
    "evaluate": "api.run", "train": "api.run", "profile": "api.run",
    "Run": "api.runs", "load_run": "api.runs", "load_runs": "api.runs",
    "load": "api.predictor", "Predictor": "api.predictor", "Predictions": "api.predictor",
    "list_methods": "api.listing", "list_datasets": "api.listing", "describe": "api.listing",
    "list_runs": "api.listing",
    "Method": "methods", "TrainableMethod": "methods", "MethodCard": "methods", "EncoderConfig": "methods",
    "Prediction": "methods", "Final": "methods", "register": "methods",
    "FeatureRequest": "encoders.features", "Preprocess": "data.images", "check_method": "testing",
}  # fmt: skip
_MODULES = ("metrics",)

__all__ = ["__version__", *_HOMES, *_MODULES]  # built from the table above


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(import_module(f"zsadbench.{_HOMES[name]}"), name)
    elif name in _MODULES:
        value = import_module(f"zsadbench.{name}")
    else:
        raise AttributeError(f"module 'zsadbench' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
