"""Weight files that are missing, damaged, dangerous or of another model, and those that ship."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pickle
import random
import shlex
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from zsadbench import encoders
from zsadbench.encoders import demo, tiny
from zsadbench.encoders import weights as weight_files
from zsadbench.errors import UnknownName, UsageError, WeightsError
from zsadbench.support import files

SPEC = "open_clip:ViT-B-32/openai"
OPTIMISER = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}
TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b.c": torch.ones(4, dtype=torch.float16)}


def same(found):
    return found.keys() == TENSORS.keys() and all(torch.equal(found[name], TENSORS[name]) for name in TENSORS)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin"])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda tensors: tensors,
        lambda tensors: {"epoch": 3, "state_dict": tensors, "optimizer": {"lr": 0.1}},
        lambda tensors: {"model": tensors, "epoch": 3},
        lambda tensors: {"state_dict": {f"module.{name}": tensor for name, tensor in tensors.items()}},
        lambda tensors: {f"module.{name}": tensor for name, tensor in tensors.items()},
        lambda tensors: {"model": {"state_dict": tensors}, "optimizer": OPTIMISER},
        lambda tensors: {"model_state_dict": tensors, "optimizer_state_dict": OPTIMISER, "loss": torch.ones(1)},
        lambda tensors: {**tensors, "optimizer": OPTIMISER},
    ],
    ids=["plain", "state_dict", "model", "module", "bare module", "both", "tutorial", "beside"],
)
@pytest.mark.parametrize("read", [weight_files.read, weight_files.read_checkpoint])
def test_pytorch_checkpoints_are_unwrapped_alike_for_encoders_and_trained_methods(read, suffix, wrap, tmp_path):
    path = tmp_path / f"weights{suffix}"
    torch.save(wrap(TENSORS), path)
    assert same(read(path))


def test_parts_of_a_checkpoint_are_unwrapped_each_and_joined(tmp_path):
    for part in ("text", "image"):
        tensors = {f"module.{name}": tensor for name, tensor in TENSORS.items()}
        content = {"epoch": 5, f"{part}_adapter": tensors, f"{part}_optimizer": OPTIMISER, "note": "hello"}
        torch.save(content, tmp_path / f"{part}.pth")
    found = weight_files.read_checkpoint(tmp_path / "text.pth", tmp_path / "image.pth")
    assert found.keys() == {f"{part}_adapter.{name}" for part in ("text", "image") for name in TENSORS}
    with pytest.raises(
        WeightsError, match=r"text\.pth and .*text\.pth hold text_adapter\.a, text_adapter\.b\.c more than"
    ):
        weight_files.read_checkpoint(tmp_path / "text.pth", tmp_path / "text.pth")


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (np.float64(0.9), r"numpy\._core\.multiarray\.scalar"),
        (argparse.Namespace(lr=1), r"argparse\.Namespace"),
        (Path("weights"), r"pathlib\.\w*PosixPath"),
    ],
)
@pytest.mark.parametrize("read", [weight_files.read, weight_files.read_checkpoint])
def test_a_refused_pickle_names_the_object_that_it_holds_in_plain_text(read, value, name, tmp_path):
    torch.save({**TENSORS, "extra": value}, tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match=f"it holds .*{name}.*nothing was run.*torch.save") as caught:
        read(tmp_path / "weights.pth")
    assert "\x1b" not in str(caught.value) and "\n" not in str(caught.value)


def test_safetensors_are_read_and_digested(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file(TENSORS, path)
    assert same(weight_files.read(path))
    assert files.sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert encoders.identify(SPEC, {SPEC: path}) == files.sha256(path)


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return open, (str(self.target), "w")


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_a_pickle_that_runs_code_is_refused_and_runs_nothing(writer, tmp_path):
    path, target = tmp_path / "weights.pt", tmp_path / "executed"
    content = {"state_dict": {"a": torch.ones(2), "b": Malicious(target)}}
    if writer == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(WeightsError, match="nothing was run"):
        encoders.load(SPEC, weights={SPEC: path})
    assert not target.exists()
    torch.load(path, weights_only=False) if writer == "torch" else pickle.loads(path.read_bytes())
    assert target.exists()  # the file is dangerous indeed


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("kept", [0, 7, 200])
def test_a_truncated_file_is_refused(suffix, kept, tmp_path):
    path = tmp_path / f"weights{suffix}"
    save_file(TENSORS, path) if suffix == ".safetensors" else torch.save(TENSORS, path)
    path.write_bytes(path.read_bytes()[: min(kept, path.stat().st_size - 5)])
    with pytest.raises(WeightsError, match=r"weights\.(safetensors|pt) is no"):
        weight_files.read(path)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch.jit is old, and so are files made with it
def test_a_torchscript_archive_is_refused_as_such(tmp_path):
    path = tmp_path / "weights.pt"
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), path)
    with pytest.raises(WeightsError, match="TorchScript") as refused:
        weight_files.read(path)
    command = shlex.split(str(refused.value).partition("give that file: ")[2])
    subprocess.run([sys.executable, *command[1:]], check=True, capture_output=True)
    assert weight_files.read(tmp_path / "weights.tensors.pt").keys() == {"weight", "bias"}


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("new_format", [True, False])
def test_damaged_bytes_never_raise_anything_but_a_weights_error(new_format, tmp_path):
    path, rng = tmp_path / "weights.pt", random.Random(0)
    torch.save(TENSORS, path, _use_new_zipfile_serialization=new_format)
    whole, refused = path.read_bytes(), 0
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(3):
            damaged[rng.randrange(len(whole))] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            weight_files.read(path)
        except WeightsError:
            refused += 1
    assert refused > 50


@pytest.mark.parametrize("content", [[torch.ones(2)], {}, {"state_dict": {}}, {"a": torch.ones(1), "note": "hello"}])
def test_a_checkpoint_that_is_no_mapping_of_tensors_is_refused(content, tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(content, path)
    with pytest.raises(WeightsError):
        weight_files.read(path)


def test_a_local_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(WeightsError, match=r"absent\.pt"):
        encoders.load(SPEC, weights={SPEC: tmp_path / "absent.pt"})


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ("nonsense", "tiny"),
        ("open_clip:ViT-L-14-336", "open_clip:NAME/TAG"),
        ("timm:", "timm:NAME"),
        ("open_clip:ViT-L-14-335/openai", "ViT-L-14-336"),
        ("open_clip:ViT-L-14-336/opena", "openai"),
        ("timm:vit_small_patch14_dinov2.lvd142", "lvd142m"),
        ("timm:vit_small_patch14_dinov", "vit_small_patch14_dinov2"),
    ],
)
@pytest.mark.parametrize("call", [encoders.load, encoders.identify])
def test_an_unknown_name_offers_known_ones(spec, hint, call):
    with pytest.raises(UnknownName, match=hint):
        call(spec)


def test_a_resnet_of_open_clip_is_refused_before_any_download():
    with pytest.raises(UsageError, match="ResNet"):
        encoders.load("open_clip:RN50/openai")


@pytest.mark.parametrize(
    ("spec", "activation"),
    [
        ("open_clip:ViT-B-32/openai", "quickgelu"),
        ("open_clip:ViT-B-32/laion400m_e32", "quickgelu"),
        ("open_clip:ViT-B-32/laion2b_s34b_b79k", "gelu"),
        ("open_clip:ViT-B-32-quickgelu/laion400m_e32", "quickgelu"),
        ("open_clip:ViT-B-32-quickgelu/mine", "quickgelu"),
        ("open_clip:ViT-B-32/mine", "gelu"),
    ],
)
def test_the_default_activation_is_the_one_the_weights_were_trained_with(spec, activation, tmp_path, monkeypatch):
    path = tmp_path / "weights.pt"
    torch.save({"visual.proj": torch.ones(1)}, path)
    built = []
    monkeypatch.setattr("zsadbench.encoders.open_clip.build", lambda config, tensors, **rest: built.append(config))
    encoders.load(spec, weights={spec: path})
    assert ("quickgelu" if built[0]["quick_gelu"] else "gelu") == activation


def test_tiny_is_the_same_on_every_load_and_quick():
    first = encoders.load("tiny")
    start = time.process_time()
    second = encoders.load("tiny")
    assert time.process_time() - start < 1.5  # 0.1 s
    assert first.key == second.key and first.sha256 == encoders.identify("tiny") == tiny.sha256()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    request = encoders.features.FeatureRequest(tokens={3, 12}, cls=True)
    with torch.inference_mode():
        for name, tensor in first.encode(images, request).tensors.items():
            assert torch.equal(tensor, second.encode(images, request).tensors[name])
        rows = torch.nn.functional.normalize(first.text.encode(["a good coin", "a damaged coin"]), dim=-1)
    assert rows.shape == (2, 32) and (rows[0] @ rows[1]) < 0.999


def test_tiny_tokens_of_different_images_and_places_differ():
    encoder = encoders.load("tiny")
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        tokens = encoder.encode(images, encoders.features.FeatureRequest(tokens={12})).tokens(12)
    unit = torch.nn.functional.normalize(tokens.flatten(0, 1), dim=-1)
    similarity = unit @ unit.T
    assert similarity.fill_diagonal_(0).max() < 0.99


@pytest.fixture
def compact_demo(tmp_path, monkeypatch):
    """Make the demo encoder of the tiny one's tensors, in the compact format; return the kept token ids."""
    tensors, ids = tiny.tensors(), torch.tensor([0, 5, 320, 49406, 49407], dtype=torch.int32)
    tensors["token_embedding.weight"] = tensors["token_embedding.weight"][ids.long()]
    save_file(
        {name: tensor.half() for name, tensor in tensors.items()} | {"token_ids": ids}, tmp_path / "demo.safetensors"
    )
    card = tiny.CONFIG | {"size": 64, "mean": [0.1, 0.2, 0.3], "std": [1, 2, 3]}
    card["sha256"] = hashlib.sha256((tmp_path / "demo.safetensors").read_bytes()).hexdigest()
    (tmp_path / "demo.json").write_text(json.dumps(card))
    monkeypatch.setattr(demo, "WEIGHTS", tmp_path / "demo.safetensors")
    monkeypatch.setattr(demo, "CARD", tmp_path / "demo.json")
    return ids


def test_the_demo_encoder_expands_its_token_table(compact_demo):
    encoder = encoders.load("demo", size=48)
    table = encoder.text._clip.token_embedding.weight
    full = tiny.tensors()["token_embedding.weight"].half().float()
    kept = compact_demo.long()
    assert table.shape == full.shape and torch.equal(table[kept], full[kept])
    assert table.abs().sum(dim=1).nonzero().flatten().tolist() == kept.tolist()
    assert encoder.preprocess.mean == (0.1, 0.2, 0.3) and encoder.size == 48
    assert encoder.sha256 == encoders.identify("demo")


def test_demo_weights_that_were_changed_are_refused(compact_demo):
    content = bytearray(demo.WEIGHTS.read_bytes())
    content[-1] ^= 1
    demo.WEIGHTS.write_bytes(content)
    with pytest.raises(WeightsError, match="SHA-256"):
        encoders.load("demo")


@pytest.mark.skipif(not demo.WEIGHTS.is_file(), reason="the demo weights have not been added to the package yet")
def test_the_demo_encoder_that_ships_loads_with_both_towers():
    encoder = encoders.load("demo")
    assert encoder.sha256 == encoders.identify("demo") and encoder.text is not None and encoder.depth >= 12


@pytest.mark.parametrize("spec", ["demo", "tiny"])
def test_an_encoder_that_ships_takes_no_weight_file(spec, tmp_path):
    with pytest.raises(UsageError, match="takes no weight file"):
        encoders.load(spec, weights={spec: tmp_path})


def _cyclic(wrapper: str) -> dict:
    content = {"weight": torch.zeros(2, 3)}
    content[wrapper] = content
    return content


ODD = {  # tensors of a checkpoint, and words of the sentence about them
    "int8": (torch.ones(2, 3, dtype=torch.int8), "torch.int8"),
    "bool": (torch.ones(2, 3, dtype=torch.bool), "torch.bool"),
    "complex": (torch.ones(2, 3, dtype=torch.complex64), "torch.complex64"),
    "sparse": (torch.ones(2, 3).to_sparse(), "torch.sparse_coo"),
    "meta": (torch.ones(2, 3, device="meta"), "on meta"),
    "NaN": (torch.full((2, 3), float("nan")), "NaN, infinity or what is too large for float32 in weight"),
    "too large": (torch.full((2, 3), 1e300, dtype=torch.float64), "too large for float32"),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_tensor_is_refused_in_a_sentence(name, tmp_path):
    tensor, words = ODD[name]
    torch.save({"weight": tensor}, tmp_path / "odd.pt")
    module = torch.nn.Linear(3, 2, bias=False)
    for read in (weight_files.read, weight_files.read_checkpoint):
        with pytest.raises(WeightsError, match=rf"^The weights given for 'odd' hold .*{words}"):
            weight_files.load_into(module, read(tmp_path / "odd.pt"), "odd")


def test_whole_numbers_stay_where_they_belong_and_expanded_tensors_get_memory_of_their_own(tmp_path):
    module = torch.nn.BatchNorm1d(3)
    content = {**module.state_dict(), "weight": torch.full((1,), 2.0).expand(3), "num_batches_tracked": torch.tensor(7)}
    torch.save(content, tmp_path / "odd.pt")
    weight_files.load_into(module, weight_files.read(tmp_path / "odd.pt"), "odd")
    with torch.no_grad():
        module.weight[0] = 0
    assert module.weight.tolist() == [0, 2, 2] and module.num_batches_tracked == 7


@pytest.mark.parametrize("wrapper", ["me", "state_dict"])
def test_a_checkpoint_that_contains_itself_is_refused_in_a_sentence(wrapper, tmp_path):
    torch.save(_cyclic(wrapper), tmp_path / "odd.pt")
    with pytest.raises(WeightsError, match=r"odd\.pt holds mappings that contain themselves"):
        weight_files.read_checkpoint(tmp_path / "odd.pt")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_pipe_in_the_place_of_weights_is_no_file(suffix, tmp_path):
    pipe = tmp_path / f"pipe{suffix}"
    os.mkfifo(pipe)
    for read, error in ((weight_files.read, WeightsError), (files.sha256, UsageError)):
        with pytest.raises(error, match=r"pipe\.(pt|safetensors) .*no file but a folder, a pipe"):
            read(pipe)
