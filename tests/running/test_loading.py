"""Batches as views of chunks: decoded once, encoded once, bounded in memory."""

from pathlib import Path

import pytest
import torch

from zsadbench.datasets import Category
from zsadbench.encoders.features import FeatureRequest, Features
from zsadbench.errors import RecordError
from zsadbench.running.loading import ChunkStore, batch_of, from_tensor
from zsadbench.support.spill import Spill

CATEGORY = Category("bottle", "bottle", "toy")


class CountingEncoder:
    """Features that are simple functions of the pixels, and a count of the passes."""

    key = "counting"

    def __init__(self):
        self.passes = []

    def encode(self, images, request):
        self.passes.append((len(images), request))
        values = images.flatten(1).mean(1)
        return Features({key: torch.stack([values, values + i], 1) for i, key in enumerate(sorted(request.keys()))})


def make_store(count=10, size=4, **options):
    decoded = []

    def read(path: Path):
        decoded.append(path)
        return torch.full((3, 2, 2), float(path.stem))

    store = ChunkStore([Path(f"{i}.png") for i in range(count)], size, read, **options)
    return store, decoded


def pixel_values(batch):
    return batch.images[:, 0, 0, 0].tolist()


def test_a_batch_shows_its_images_in_order_and_counts_them():
    store, _ = make_store()
    batch = batch_of(store, CATEGORY, 3, 9)
    assert len(batch) == 6
    assert pixel_values(batch) == [3, 4, 5, 6, 7, 8]
    assert [path.stem for path in batch.paths] == list("345678")


def test_positions_past_the_end_wrap_to_the_start_of_the_order():
    store, _ = make_store(count=5, size=4)
    assert pixel_values(batch_of(store, CATEGORY, 4, 7)) == [4, 0, 1]
    store, _ = make_store(count=1, size=4)
    assert pixel_values(batch_of(store, CATEGORY, 0, 3)) == [0, 0, 0], "a single image refers to itself"


@pytest.mark.parametrize("size", [1, 3, 4, 7, 100, None])
def test_splitting_keeps_every_image_once_and_in_order(size):
    store, _ = make_store()
    parts = list(batch_of(store, CATEGORY, 1, 10).split(size))
    assert [value for part in parts for value in pixel_values(part)] == list(range(1, 10))
    assert all(len(part) == (size or 4) for part in parts[:-1])


def test_methods_of_a_run_share_one_decode_and_one_pass_a_chunk():
    store, decoded = make_store()
    encoder = CountingEncoder()
    store.expected["counting"] = FeatureRequest(tokens={1, 2}, cls=True)
    for start in range(0, 10, 4):
        batch = batch_of(store, CATEGORY, start, min(start + 4, 10))
        batch.features(encoder, FeatureRequest(tokens={1}))
        batch.features(encoder, FeatureRequest(cls=True))
        for part in batch.split(2):
            part.features(encoder, FeatureRequest(tokens={2}))
    assert [count for count, _ in encoder.passes] == [4, 4, 2]
    assert len(decoded) == 10


def test_a_part_of_a_chunk_gets_the_rows_of_the_whole_chunks_pass():
    store, _ = make_store()
    encoder = CountingEncoder()
    features = batch_of(store, CATEGORY, 2, 6).features(encoder, FeatureRequest(cls=True))
    assert features.cls[:, 0].tolist() == [2, 3, 4, 5]
    assert [count for count, _ in encoder.passes] == [4, 4]
    assert set(features.tensors) == FeatureRequest(cls=True).keys()


def test_without_a_spill_only_recent_chunks_stay_in_memory():
    store, decoded = make_store(count=20, size=4)
    for start in range(0, 20, 4):
        batch_of(store, CATEGORY, start, start + 4).images  # noqa: B018  # decoding is the effect
    assert len(decoded) == 20
    batch_of(store, CATEGORY, 0, 4).images  # noqa: B018
    assert len(decoded) == 24, "an old chunk is decoded again rather than kept"


def test_features_beyond_the_budget_are_parked_on_disk_and_come_back_unchanged(tmp_path):
    spill = Spill(tmp_path)
    store, decoded = make_store(count=20, size=4, spill=spill, budget=100)
    encoder = CountingEncoder()
    request = FeatureRequest(tokens={1}, cls=True)
    whole = batch_of(store, CATEGORY, 0, 20)
    first = [batch.features(encoder, request).cls.clone() for batch in whole.split(4)]
    again = [batch.features(encoder, request).cls for batch in whole.split(4)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert len(encoder.passes) == 5 and len(decoded) == 20, "nothing is computed twice"
    assert list(tmp_path.iterdir()) == [], "the file has no name, so nothing is left after a kill"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int64, torch.bool, torch.bfloat16])
@pytest.mark.parametrize("shape", [(3, 4), (1,), (0, 5), ()])
def test_a_parked_tensor_comes_back_as_it_was(tmp_path, dtype, shape):
    tensor = (torch.rand(shape) * 3).to(dtype)
    spill = Spill(tmp_path)
    spill.write(torch.ones(3))
    parked = spill.write(tensor)
    spill.write(torch.ones(5))
    assert torch.equal(spill.read(parked), tensor) and spill.read(parked).dtype == dtype


def test_a_batch_from_a_tensor_behaves_like_any_other():
    images = torch.rand(5, 3, 4, 4)
    batch = from_tensor(images, CATEGORY)
    assert torch.equal(batch.images, images)
    assert [len(part) for part in batch.split(2)] == [2, 2, 1]


def test_a_full_disk_is_a_sentence_that_names_the_folder(tmp_path):
    class FullFile:
        def seek(self, position):
            return position

        def write(self, data):
            raise OSError(28, "No space left on device")

    spill = Spill(tmp_path)
    spill._file = FullFile()
    with pytest.raises(RecordError, match="takes no temporary results: No space left on device"):
        spill.write(torch.ones(3))
