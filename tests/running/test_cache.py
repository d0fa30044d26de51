"""A cache that outlives the run: records are the same bytes with and without it, and nothing wrong gets into it."""

import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from misbehaving import ALL, GOOD
from PIL import Image
from toy_tree import write_tree

from zsadbench.data import images, pictures
from zsadbench.encoders.text import TextEncoder
from zsadbench.encoders.transformer import TransformerEncoder
from zsadbench.protocol import EvaluationProtocol
from zsadbench.running import executors, runner
from zsadbench.running.plan import make_plan
from zsadbench.running.progress import Silent
from zsadbench.running.request import Request
from zsadbench.support import plugins, source, store
from zsadbench.training import checkpoints, loop
from zsadbench.training.request import TrainRequest

GUESTS = ("weights_late", "patched", "in_place", "dtype", "remember_weights")
METHODS = ("kept_calm", "patchcore", "kept_calm_all", "constant")  # one image; references; a whole category; no encoder


@pytest.fixture(scope="module", autouse=True)
def catalogue(tmp_path_factory):
    """Methods under names of their own: what another file of tests has imported stays imported."""
    folder = tmp_path_factory.mktemp("kept")
    (folder / "methods").mkdir()
    for name in (*GOOD, *GUESTS):
        (folder / "methods" / f"kept_{name}.py").write_text((ALL | GOOD)[name].source(f"kept_{name}"))
    plugins.add_folder(folder)
    return folder


class Counted:
    """How many images were encoded and decoded."""

    def __init__(self, patch):
        self.encoded = self.decoded = 0
        encode, decode = TransformerEncoder.encode, images._pixels

        def counted_encode(encoder, batch, request):
            self.encoded += len(batch)
            return encode(encoder, batch, request)

        def counted_decode(*args):
            self.decoded += 1
            return decode(*args)

        patch.setattr(TransformerEncoder, "encode", counted_encode)
        patch.setattr(images, "_pixels", counted_decode)


@pytest.fixture
def counted(monkeypatch) -> Counted:
    return Counted(monkeypatch)


def request(root: Path, out: Path, cache: Path | None, names=METHODS, **options) -> Request:
    protocol = EvaluationProtocol(**{"batch_size": 2, "limit": 6} | options.pop("protocol", {}))
    options = {"categories": ("bottle",), "encoder": "tiny"} | options
    return Request(
        methods=names, datasets=["mvtec"], data_root=root, out=out, cache=cache, protocol=protocol, **options
    )


def run(*args, **options) -> dict[str, bytes]:
    """Run, and return all files of records."""
    asked = request(*args, **options)
    runner.run(make_plan(asked), asked, Silent())
    return {path.relative_to(asked.out).as_posix(): path.read_bytes() for path in sorted(asked.out.glob("*/*/*.*"))}


@pytest.fixture(scope="module")
def bare(mvtec_tree, tmp_path_factory) -> dict[str, bytes]:
    """A run without a cache."""
    return run(mvtec_tree, tmp_path_factory.mktemp("bare"), None)


@pytest.fixture(scope="module")
def filled(mvtec_tree, tmp_path_factory) -> tuple[dict[str, bytes], Path]:
    """The first run with a cache, and the cache."""
    cache = tmp_path_factory.mktemp("cache")
    return run(mvtec_tree, tmp_path_factory.mktemp("cold"), cache), cache


def test_records_are_the_same_bytes_without_a_cache_with_a_cold_and_with_a_warm_one(
    mvtec_tree, tmp_path, bare, filled, counted
):
    first, cache = filled
    assert len(bare) == len(METHODS) * 3
    assert first == bare
    assert run(mvtec_tree, tmp_path, cache) == bare
    assert (counted.encoded, counted.decoded) == (0, 0)


def test_one_method_finds_what_several_have_left_and_the_other_way_round(mvtec_tree, tmp_path, bare, filled, counted):
    alone = run(mvtec_tree, tmp_path / "a", filled[1], ["kept_calm_all"])
    assert alone.items() <= bare.items()
    assert counted.encoded == 0
    cache = tmp_path / "cache"
    run(mvtec_tree, tmp_path / "b", cache, ["kept_calm_all"])
    assert run(mvtec_tree, tmp_path / "c", cache) == bare


def test_images_are_known_by_what_they_hold(mvtec_tree, tmp_path, bare, filled, counted):
    shutil.copytree(mvtec_tree, tmp_path / "copy")
    assert run(tmp_path / "copy", tmp_path / "a", filled[1]) == bare
    assert counted.encoded == 0
    for path in (tmp_path / "copy").rglob("bottle/test/*/*.png"):
        Image.fromarray(255 - np.array(Image.open(path))).save(path)
    other = run(tmp_path / "copy", tmp_path / "b", filled[1])
    assert counted.encoded > 0
    assert other == run(tmp_path / "copy", tmp_path / "c", None)


@pytest.mark.parametrize(
    "options",
    [
        {"protocol": {"batch_size": 3}}, {"protocol": {"precision": "bf16"}}, {"encoder": "demo"},
        {"protocol": {"seed": 1}}, {"changes": {"kept_calm_all": {"size": 96}}},
    ],
)  # fmt: skip
def test_whatever_may_change_a_bit_of_a_pass_is_another_entry(mvtec_tree, tmp_path, filled, counted, options):
    with_cache = run(mvtec_tree, tmp_path / "a", filled[1], ["kept_calm_all"], **options)
    assert counted.encoded > 0
    assert with_cache == run(mvtec_tree, tmp_path / "b", None, ["kept_calm_all"], **options)


def test_other_threads_or_other_code_is_another_entry(mvtec_tree, tmp_path, filled, counted, monkeypatch):
    threads = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # or else a small encoder gets one thread
    try:
        torch.set_num_threads(threads + 1)
        run(mvtec_tree, tmp_path / "a", filled[1], ["kept_calm_all"])
    finally:
        torch.set_num_threads(threads)
    assert counted.encoded == 6
    monkeypatch.setattr(source, "of_harness", lambda parts: "0" * 64)
    run(mvtec_tree, tmp_path / "b", filled[1], ["kept_calm_all"])
    assert counted.encoded == 12


@pytest.mark.parametrize("which", ["features", "images", "facts of images"])
def test_damaged_entries_are_made_anew(mvtec_tree, tmp_path, bare, filled, which):
    cache = shutil.copytree(filled[1], tmp_path / "cache")
    shelves = [about.parent for about in cache.rglob(store.ABOUT) if f'"kind": "{which}"' in about.read_text()]
    entries = [path for shelf in shelves for path in shelf.iterdir() if path.name != store.ABOUT]
    for path in entries:
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    options = {"changes": {"patchcore": {"size": 96}}} if which == "images" else {}  # features lack: images are read
    expected = run(mvtec_tree, tmp_path / "expected", None, ["patchcore"], **options) if options else bare
    names = ["patchcore"] if options else METHODS
    with pytest.warns(UserWarning, match="was damaged. It is made anew"):
        assert run(mvtec_tree, tmp_path / "out", cache, names, **options) == expected
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert run(mvtec_tree, tmp_path / "again", cache, names, **options) == expected


def test_what_a_method_changed_never_gets_into_the_cache(mvtec_tree, tmp_path, bare):
    guests = [f"kept_{name}" for name in GUESTS]
    run(mvtec_tree, tmp_path / "a", tmp_path / "cache", ["kept_calm", *guests, "kept_calm_all"])
    found = run(mvtec_tree, tmp_path / "b", tmp_path / "cache", ["kept_calm", "kept_calm_all"])
    assert found and found.items() <= bare.items()


HIDDEN = """
from zsadbench.methods import register
import torch
from zsadbench.methods import EncoderConfig, Method, MethodCard, Prediction
from zsadbench.encoders.features import FeatureRequest
from dataclasses import dataclass

@dataclass(frozen=True)
class Config(EncoderConfig):
    encoder: str = "tiny"

@register
class Hidden(Method):
    card = MethodCard(title="hidden", reference="none", scope="image")
    presets = {"default": Config()}

    def predict(self, batch):
        block = self.encoder.blocks[0]
        before = torch.get_float32_matmul_precision()
        CHANGE
        tokens = batch.features(self.encoder, FeatureRequest(tokens=[1, 2], cls=True)).tokens(2)
        RESTORE
        return Prediction(tokens.std(dim=-1).amax(1), tokens.std(dim=-1).reshape(len(batch), 8, 8))
"""


@pytest.mark.parametrize(
    ("change", "restore"),
    [
        ("block.mlp = lambda x: x * 0", "del block.mlp"),
        ("torch.set_float32_matmul_precision('medium')", "torch.set_float32_matmul_precision(before)"),
    ],
)
def test_nor_does_what_it_changed_for_the_time_of_a_pass(mvtec_tree, tmp_path, catalogue, change, restore):
    """What is set back before anybody looks is not told from what was never touched, but must not outlive the run."""
    path = catalogue / "methods" / "hidden.py"
    path.write_text(HIDDEN.replace("CHANGE", change).replace("RESTORE", restore))
    try:
        run(mvtec_tree, tmp_path / "a", tmp_path / "cache", ["hidden"])
    finally:
        path.unlink()
    assert not [one for one in store.contents(tmp_path / "cache") if one.about["kind"] == "features"]


def test_a_file_that_changes_after_it_was_looked_at_is_not_kept_under_its_old_digest(mvtec_tree, tmp_path):
    root = shutil.copytree(mvtec_tree, tmp_path / "data")
    asked = request(root, tmp_path / "a", tmp_path / "cache", ["kept_calm_all"])
    plan = make_plan(asked)
    originals = {path: path.read_bytes() for path in root.rglob("bottle/test/*/*.png")}
    for path in originals:
        path.write_bytes((root / "mvtec/bottle/train/good/000.png").read_bytes())
    runner.run(plan, asked, Silent())
    for path, content in originals.items():
        path.write_bytes(content)
    assert store.contents(tmp_path / "cache") == []
    assert run(root, tmp_path / "b", tmp_path / "cache", ["kept_calm_all"]) == run(
        root, tmp_path / "c", None, ["kept_calm_all"]
    )


def test_what_is_odd_about_files_is_in_the_record_though_nothing_was_decoded(tmp_path, counted):
    root = write_tree(tmp_path / "own", ["part"], good=2, bad=2)
    for path in (root / "part" / "test").rglob("*.png"):
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.open(path).save(path, exif=exif)

    def own(name: str, cache: Path | None) -> dict[str, bytes]:
        asked = replace(
            request(tmp_path, tmp_path / name, cache, ["kept_calm_all"], categories=()),
            datasets=[f"folder.mine={root}"],
        )
        runner.run(make_plan(asked), asked, Silent())
        return {path.name: path.read_bytes() for path in asked.out.glob("*/*/*.*")}

    expected = own("bare", None)
    assert any(b'"turned"' in content for content in expected.values())
    assert own("cold", tmp_path / "cache") == expected
    counted.decoded = 0
    assert own("warm", tmp_path / "cache") == expected
    assert counted.decoded == 0


def test_a_full_cache_is_a_note_and_changes_no_number(mvtec_tree, tmp_path, bare):
    with pytest.warns(UserWarning, match="Raise --cache-limit"):
        assert run(mvtec_tree, tmp_path / "a", tmp_path / "cache", cache_limit=300_000) == bare
    assert sum(one.size for one in store.contents(tmp_path / "cache")) <= 300_000


def test_workers_share_the_cache(mvtec_tree, tmp_path, bare, filled, counted):
    asked = request(mvtec_tree, tmp_path, filled[1])
    for group in make_plan(asked).groups:
        executors._work(executors.pack(group, asked), [], False)
    assert {path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in tmp_path.glob("*/*/*.*")} == bare
    assert counted.encoded == 0


def test_a_worker_loads_an_encoder_anew_that_a_method_has_changed(mvtec_tree, tmp_path):
    asked = request(mvtec_tree, tmp_path, None, ["kept_calm"])
    (group,) = make_plan(asked).groups
    choice = group[0].planned.encoder_choice
    encoder = executors._keep_encoder(choice, asked)
    assert executors._keep_encoder(choice, asked) is encoder
    encoder.module.class_embedding.data.mul_(2)
    assert executors._keep_encoder(choice, asked) is not encoder


TRAINED = """
from dataclasses import dataclass
from torch import nn, zeros
from zsadbench.encoders.features import FeatureRequest
from zsadbench.methods import EncoderConfig, MethodCard, Stage, TrainableMethod, TrainRecipe, register

@dataclass(frozen=True)
class Config(EncoderConfig):
    encoder: str = "tiny"
    trained_on: str = "mvtec"
    recipe: TrainRecipe = TrainRecipe((Stage(2, 0.05, "first", ("weight",)),), batch_size=4)

@register
class Toy(TrainableMethod):
    card = MethodCard(title="Toy", reference="none", scope="image")
    presets = {"mvtec": Config()}

    def new_module(self):
        return nn.Linear(64, 1, bias=False)

    def draw(self, module, generator):
        module.weight.copy_(zeros(1, 64))

    def loss(self, batch, labels, masks, stage=""):
        tokens = batch.features(self.encoder, FeatureRequest(tokens=[2])).tokens(2)
        return {"mse": (self.trained(tokens).mean((1, 2)) - labels).square().mean()}

    def predict(self, batch):
        raise NotImplementedError
"""


def test_a_training_ends_in_the_same_weights_and_the_next_one_encodes_nothing(mvtec_tree, tmp_path, catalogue, counted):
    (catalogue / "methods" / "toy_linear.py").write_text(TRAINED)

    def train(name: str, cache: Path | None) -> bytes:
        asked = TrainRequest("toy_linear", "mvtec", tmp_path / name, data_root=mvtec_tree, limit=4, cache=cache)
        loop.train(asked, loop.SilentTraining())
        return (tmp_path / name / checkpoints.WEIGHTS).read_bytes()

    expected = train("bare", None)
    assert train("cold", tmp_path / "cache") == expected
    counted.encoded = counted.decoded = 0
    assert train("warm", tmp_path / "cache") == expected
    assert counted.encoded == 0
    assert counted.decoded <= 4  # of the first batch, before it is known what the method will ask for


def test_nothing_is_kept_of_files_that_cannot_be_told_apart(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(path)
    reader = pictures.Pictures({path: ""}, store.Store(tmp_path / "cache"))
    assert reader.read(path, None, False).pixels.shape == (4, 4, 3)
    assert reader.glance(path, None, False) is None
    assert store.contents(tmp_path / "cache") == []


def test_sentences_are_encoded_once_for_all_runs(mvtec_tree, tmp_path, monkeypatch):
    encoded, encode = [], TextEncoder._encode
    monkeypatch.setattr(TextEncoder, "_encode", lambda *args: encoded.append(args[1]) or encode(*args))
    expected = run(mvtec_tree, tmp_path / "bare", None, ["clip_ad"])
    assert run(mvtec_tree, tmp_path / "cold", tmp_path / "cache", ["clip_ad"]) == expected
    assert len(encoded) > 1
    encoded.clear()
    assert run(mvtec_tree, tmp_path / "warm", tmp_path / "cache", ["clip_ad"]) == expected
    assert not encoded
