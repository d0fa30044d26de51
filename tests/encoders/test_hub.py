"""The default way to weights: a hub that speaks the protocol of the Hugging Face one, on this machine."""

import hashlib
import socket
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import huggingface_hub
import pytest
import torch
from safetensors.torch import save

from zsadbench import encoders
from zsadbench.encoders import hub, random, timm
from zsadbench.encoders.features import FeatureRequest
from zsadbench.errors import WeightsError

CLIP = "open_clip:ViT-B-32/openai"
CLIP_PAGE = "timm/vit_base_patch32_clip_224.openai"
SMALL = "timm:test_vit.r160_in1k"  # 0.4 million weights
SMALL_PAGE = "timm/test_vit.r160_in1k"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """A server that answers HEAD and GET of /PAGE/resolve/main/FILE, and what it was asked."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.cut: list[int] = []  # after how many bytes the next answers end
        self.wrong = False  # send other bytes than announced
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self):
                self.answer(body=False)

            def do_GET(self):
                self.answer(body=True)

            def answer(self, body: bool) -> None:
                outer.asked.append(f"{self.command} {self.path}")
                content = outer.files.get(self.path.removeprefix("/").replace("/resolve/main/", "/", 1))
                if self.path == "/":
                    content = b""
                if content is None:
                    self.send_response(404)
                    self.send_header("X-Error-Code", "EntryNotFound")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
                self.send_response(206 if start else 200)
                self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
                self.send_header("X-Linked-Size", str(len(content)))
                self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("Accept-Ranges", "bytes")
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
                self.send_header("Content-Length", str(len(content) - start))
                self.end_headers()
                if body:
                    sent = (content if not outer.wrong else bytes(len(content)))[start:]
                    self.wfile.write(sent[: outer.cut.pop(0)] if outer.cut else sent)

            def log_message(self, *_) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of the hub's client, and no memory of what answered before."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    hub._answer.cache_clear()
    yield tmp_path / "hub"
    hub._answer.cache_clear()


@pytest.fixture
def server(cache, monkeypatch) -> Iterator[Hub]:
    one = Hub()
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", one.address)
    template = "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", one.address + template)
    yield one
    one.server.shutdown()
    one.server.server_close()


@pytest.fixture(scope="module")
def small() -> bytes:
    """The weights of a small vision transformer, as safetensors."""
    return save(random.draw(timm.shapes(timm.config(SMALL.removeprefix("timm:")), SMALL)))


def test_an_encoder_is_loaded_by_its_name_and_once(server, small):
    server.files[f"{SMALL_PAGE}/model.safetensors"] = small
    encoder = encoders.load(SMALL)
    assert encoder.sha256 == hashlib.sha256(small).hexdigest() == encoders.identify(SMALL)
    found = encoder.encode(torch.zeros(1, 3, encoder.size, encoder.size), FeatureRequest(tokens=[1]))
    assert found.tokens(1).isfinite().all()
    assert server.asked.count(f"GET /{SMALL_PAGE}/resolve/main/model.safetensors") == 1, server.asked
    server.asked.clear()
    encoders.load(SMALL)
    assert server.asked == []  # not even whether there is another version


def test_open_clip_takes_the_file_that_runs_no_code_and_any_other_where_there_is_none(server):
    server.files |= {f"{CLIP_PAGE}/{name}": name.encode() for name in ("open_clip_pytorch_model.bin", "other")}
    assert encoders.identify(CLIP) == hashlib.sha256(b"open_clip_pytorch_model.bin").hexdigest()


def test_the_safe_file_comes_first(server):
    server.files |= {
        f"{CLIP_PAGE}/open_clip_{name}": name.encode() for name in ("pytorch_model.bin", "model.safetensors")
    }
    assert encoders.identify(CLIP) == hashlib.sha256(b"model.safetensors").hexdigest()


def test_a_download_that_is_cut_off_goes_on(server, small):
    server.files[f"{SMALL_PAGE}/model.safetensors"] = small
    server.cut = [len(small) // 2]
    assert encoders.identify(SMALL) == hashlib.sha256(small).hexdigest()


def test_a_file_that_arrives_wrong_is_removed_with_a_sentence_and_the_next_try_works(server, small):
    server.files[f"{SMALL_PAGE}/model.safetensors"] = small
    server.wrong = True
    with pytest.raises(WeightsError, match=r"arrived damaged, its digest is not the announced one; it was removed"):
        encoders.load(SMALL)
    server.wrong = False
    assert encoders.identify(SMALL) == hashlib.sha256(small).hexdigest()


def test_a_page_without_the_file_is_a_sentence(server):
    with pytest.raises(WeightsError, match=r"the hub has no open_clip_model\.safetensors or .* on the page timm/vit"):
        encoders.identify(CLIP)


@pytest.mark.parametrize("spec", [CLIP, SMALL])
def test_without_network_there_is_one_sentence_after_seconds(spec, cache, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    began = time.monotonic()
    for call in (encoders.load, encoders.identify):
        with pytest.raises(WeightsError) as caught:
            call(spec)
        for part in (
            f"{address} does not answer",
            "Get the file timm/",
            f"--weights {spec}=PATH",
            "zsadbench weights list",
        ):
            assert part in str(caught.value)
        assert len(str(caught.value)) < 700
    assert time.monotonic() - began < 5


def test_offline_means_that_nobody_is_asked(server, monkeypatch, small):
    server.files[f"{SMALL_PAGE}/model.safetensors"] = small
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match="HF_HUB_OFFLINE is set"):
        encoders.load(SMALL)
    assert server.asked == []
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    encoders.identify(SMALL)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert encoders.identify(SMALL) == hashlib.sha256(small).hexdigest()
