"""Shared fixtures: a small data root, and plugins that misbehave on purpose."""

import os
import sys
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest
import torch
from hypothesis import settings
from toy_tree import write_tree

from zsadbench import datasets, methods
from zsadbench.data import contents
from zsadbench.support import plugins, traces

# The same examples on every run, so that a red test is a change of the code; `explore` looks for new ones.
settings.register_profile("default", derandomize=True, deadline=None)
settings.register_profile("explore", max_examples=1000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
torch.set_num_threads(1)  # tests run in parallel processes: threads on top would only wait for each other


@pytest.fixture(scope="session")
def mvtec_tree(tmp_path_factory) -> Path:
    """A data root that holds mvtec/ with two categories of 13 test images; treat it as read-only."""
    root = tmp_path_factory.mktemp("data")
    write_tree(root / "mvtec")
    return root


@contextmanager
def forgetting():
    """Forget at the end the plugin folders that were added meanwhile, and what was imported from them."""
    before = [(kind, list(kind.__path__)) for kind in (methods, datasets)]
    yield
    for kind, folders in before:
        kind.__path__ = folders
        for name, module in list(sys.modules.items()):
            file = str(getattr(module, "__file__", ""))
            if name.startswith(f"{kind.__name__}.") and not traces.is_below(file, map(Path, folders)):
                del sys.modules[name]


@pytest.fixture(scope="module", autouse=True)
def own_plugins():
    """The plugin folders of a file of tests are no other file's."""
    with forgetting():
        yield


@pytest.fixture
def forgotten_plugins():
    """The plugin folders of a test are no other test's."""
    with forgetting():
        yield


@pytest.fixture(scope="session", autouse=True)
def own_memory(tmp_path_factory):
    """Keep the digests of test files out of the user's cache."""
    place = tmp_path_factory.mktemp("contents")
    with mock.patch.object(contents, "folder", lambda: place):
        yield


BAD_METHODS = {
    "bad_nan": "torch.tensor([float('nan') if 'crack' in str(p) else 0.0 for p in batch.paths]), torch.zeros(n, 4, 4)",
    "bad_shape": "torch.zeros(n), torch.zeros(n, 4)",
    "bad_dtype": "torch.zeros(n), torch.zeros(n, 4, 4, dtype=torch.float64)",
    "bad_crash": "torch.zeros(n) + [][1], torch.zeros(n, 4, 4)",
    "good_mean": "batch.images.mean((1, 2, 3)), batch.images.mean(1)",
    "good_slow": "(__import__('time').sleep(0.05), batch.images.mean((1, 2, 3)))[1], batch.images.mean(1)",
    "good_pair": "(batch.images.mean((1, 2, 3)) - batch.images.mean()).abs(), batch.images.mean(1)",
}
TEMPLATE = """
from dataclasses import dataclass
import torch
from zsadbench.methods import Method, MethodCard, Prediction, register
from zsadbench.data.images import Preprocess

@dataclass(frozen=True)
class Config:
    level: float = 0.5

@register
class Toy(Method):
    card = MethodCard(title="{name}", reference="none", scope="{scope}")
    presets = {{"default": Config()}}
    preprocess = Preprocess(size=32)
    batch_images = {batch_images}

    def predict(self, batch):
        n = len(batch)
        return Prediction({expression})
"""


@pytest.fixture(scope="session")
def toy_plugins(tmp_path_factory) -> Path:
    """A --plugins folder with methods that break each rule of the contract, and two that are fine."""
    root = tmp_path_factory.mktemp("plugins")
    (root / "methods").mkdir()
    for name, expression in BAD_METHODS.items():
        pair = name == "good_pair"
        source = TEMPLATE.format(
            name=name, expression=expression, scope="batch" if pair else "image", batch_images=2 if pair else None
        )
        (root / "methods" / f"{name}.py").write_text(source)
    return root


@pytest.fixture
def toys(toy_plugins, forgotten_plugins) -> Path:
    """Make the toy methods available for one test, in this process."""
    plugins.add_folder(toy_plugins)
    return toy_plugins
