"""Measuring time, memory and floating-point operations."""

import sys
import time

import pytest
import torch
from torch.nn import functional

from zsadbench import encoders
from zsadbench.encoders.features import FeatureRequest
from zsadbench.support import meters


def test_spread_of_ten_measurements_by_hand():
    assert meters.spread([0.9, 0.1, 0.5, 0.2, 0.7, 0.3, 0.8, 0.4, 0.6, 1.0]) == pytest.approx((0.55, 0.19, 0.91))


def test_spread_of_one_measurement_is_that_measurement():
    assert meters.spread([2.0]) == (2.0, 2.0, 2.0)


def test_warm_up_runs_are_not_measured():
    waits = iter([0.2, 0.01, 0.01])
    spread = meters.Stopwatch("cpu").repeat(lambda: time.sleep(next(waits)), warmup=1, repeats=2)
    assert 0.01 <= spread.p10 <= spread.median <= spread.p90 < 0.2


def test_one_thread_is_measured_by_its_own_work():
    watch = meters.Stopwatch("cpu", threads=1)
    assert watch.clock == "CPU time of one thread"
    assert watch(lambda: time.sleep(0.1)) < 0.05


def test_a_multiply_add_counts_as_two_and_attention_as_its_two_products():
    left, right = torch.ones(3, 5), torch.ones(5, 7)
    assert meters.count_flops(lambda: left @ right) == 2 * 3 * 5 * 7
    heads = torch.ones(1, 2, 11, 4)  # heads, tokens, width of a head
    attention = meters.count_flops(lambda: functional.scaled_dot_product_attention(heads, heads, heads))
    assert attention == 2 * (2 * 2 * 11 * 11 * 4)


def test_operations_of_an_encoder_and_its_text_tower_by_hand():
    encoder = encoders.load("tiny")  # 12 blocks; image: width 64, 64 patches of 8 px; text: width 32
    width, patches, tokens = 64, 64, 65

    def block(tokens, width):
        linear = 2 * tokens * width * (3 * width + width + 2 * 2 * width)  # qkv, out, and an MLP of ratio 2
        return linear + 2 * (2 * tokens * tokens * width)

    images = torch.zeros(1, 3, 64, 64)
    with torch.inference_mode():
        counted = meters.count_flops(lambda: encoder.encode(images, FeatureRequest(tokens={12})))
        assert counted == 12 * block(tokens, width) + 2 * patches * (3 * 8 * 8) * width
        ids = encoder.text.tokenize(["a nut"])
        length = int(ids.argmax()) + 1
        counted = meters.count_flops(lambda: encoder.text.encode(["a nut"]))
    assert counted == 12 * block(length, 32) + 2 * 32 * 32


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can forget a process's peak of memory")
def test_a_peak_is_forgotten_and_rises_again():
    held = torch.ones(64 * 2**20 // 4)
    before = meters.peak_memory("cpu")
    del held
    meters.reset_peak("cpu")
    after = meters.peak_memory("cpu")
    if after == before:
        pytest.skip("this system does not let a process reset its peak")
    assert before - after > 48 * 2**20
    again = torch.ones(64 * 2**20 // 4)
    assert meters.peak_memory("cpu") - after > 48 * 2**20
    del again


def test_a_matrix_product_is_faster_than_a_million_operations_a_second_and_has_a_device():
    watch = meters.Stopwatch("cpu", threads=1)
    assert 1e6 < meters.peak_flops("cpu", torch.float32, watch, repeats=1) < 1e16
    assert meters.processor("cpu")


@pytest.mark.parametrize(
    ("device", "parameters", "told", "expected"),
    [("cpu", 10**6, None, 1), ("cpu", 10**9, None, 2), ("cuda", 10**6, None, 2), ("cpu", 10**6, "2", 2)],
)
def test_small_encoders_run_with_one_thread_unless_told_otherwise(monkeypatch, device, parameters, told, expected):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if told:
        monkeypatch.setenv("OMP_NUM_THREADS", told)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with meters.few_threads(device, parameters):
            assert torch.get_num_threads() == expected
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
