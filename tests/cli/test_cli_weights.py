"""`zsadbench weights list`, and folders of weight files."""

import hashlib
import json

import pytest
from commands import zsadbench

from zsadbench import encoders
from zsadbench.running.request import make_request

CLIP = "open_clip:ViT-B-32/openai"


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setattr("zsadbench.encoders.hub.cached", lambda place: None)
    monkeypatch.setattr("zsadbench.encoders.hub.download", lambda place: pytest.fail("a download by listing"))


def test_what_is_needed_is_listed_and_a_folder_of_it_is_taken(tmp_path):
    asked = ["weights", "list", "--methods", "musc,winclip", "--datasets", "mvtec,visa", "--encoder", CLIP]
    (row,) = json.loads(zsadbench(*asked, "--json").stdout)
    assert (row["encoder"], row["methods"][:2], row["sha256"]) == (CLIP, ["musc", "winclip"], "")
    assert "timm/vit_base_patch32_clip_224.openai/open_clip_model.safetensors" in row["from"]
    (tmp_path / row["file"]).write_bytes(b"weights")
    (tmp_path / "timm--test_vit.r160_in1k.safetensors").write_bytes(b"others, of which a run takes what it needs")
    (row,) = json.loads(zsadbench(*asked, "--json", "--weights", tmp_path).stdout)
    assert row["sha256"] == hashlib.sha256(b"weights").hexdigest()
    shown = zsadbench(*asked, "--weights", tmp_path)
    assert row["sha256"] in shown.stdout and row["file"] in shown.stdout
    request = make_request(out=tmp_path, weights=tmp_path)
    assert request.weights[CLIP] == tmp_path / row["file"]


def test_names_of_files_stand_for_their_encoders(tmp_path):
    for spec in (CLIP, "timm:vit_large_patch14_dinov2.lvd142m", "open_clip:ViT-L-14-336/openai"):
        path = tmp_path / f"{encoders.file_stem(spec)}.pt"
        path.write_bytes(b"")
        assert encoders.in_folder(tmp_path)[spec] == path


def test_a_folder_without_weights_is_a_sentence(tmp_path):
    done = zsadbench("weights", "list", "--methods", "musc", "--weights", tmp_path)
    assert done.returncode == 2 and "called as `zsadbench weights list` prints" in done.stderr
