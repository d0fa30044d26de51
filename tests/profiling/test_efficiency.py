"""What methods cost: the record, the measurement, the table and the command."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from commands import zsadbench
from toy_trained import write_method

from zsadbench import datasets
from zsadbench.data import synthetic
from zsadbench.errors import OptionError, RecordError, UnknownName, UsageError
from zsadbench.profiling import measure
from zsadbench.protocol import EvaluationProtocol
from zsadbench.records import efficiency
from zsadbench.records.efficiency import EfficiencyRecord, ProfileOptions, StageCost, Timing, Training
from zsadbench.records.results import Record
from zsadbench.running import plan
from zsadbench.running.request import Request
from zsadbench.support import plugins
from zsadbench.tables import efficiency as efficiency_table

QUICK = ProfileOptions(batches=(1, 2), warmup=0, repeat=1, threads=1, category_images=3, steps=1)
STAGES = (
    StageCost("text", epochs=1, batch_size=16, steps=3, first_seconds=6.0, later_seconds=6.0),
    StageCost("image", epochs=3, batch_size=10, steps=3, first_seconds=12.0, later_seconds=3.0),
)
DONE = EfficiencyRecord(
    "april_gan", "APRIL-GAN", "done", "GPU X", "bf16",
    clock="CUDA events", timed="All of it.", setting={"scope": "image", "shots": 0}, options={"layers": [6, 12]},
    encoder={"spec": "open_clip:ViT-L-14-336/openai", "size": 518, "activation": "gelu", "pos_embed": "bicubic"},
    changed={}, parameters=430_000_000, trained_parameters=3_000_000, flops=1e12, encoder_flops=8e11, peak_flops=5e14,
    timings=(Timing(1, 1, 10, 20.0, 19.0, 22.0, 2_000_000_000), Timing(8, 8, 10, 5.0, 4.0, 6.0, 5_000_000_000)),
    encoder_timings=(Timing(8, 8, 10, 4.0, 4.0, 4.0, None),), stopped="no larger batch was asked for",
    baseline_bytes=0, training=Training(STAGES, 160, 4_500_000_000),
)  # fmt: skip


PEAK = 1e12  # floating-point operations a second; the product that measures it has a test in test_profiling.py


def request(tmp_path, *names, **options):
    return Request(methods=names, datasets=(), out=tmp_path, **options)


@pytest.fixture
def trained(tmp_path, forgotten_plugins):
    """A folder with the trained toy method, known in this process for one test."""
    folder = write_method(tmp_path / "plugins")
    plugins.add_folder(folder)
    return folder


def test_a_record_is_read_as_it_was_written(tmp_path):
    path = efficiency.save(tmp_path, DONE)
    assert path == tmp_path / "efficiency" / "april_gan.json"
    assert efficiency.load(path) == DONE and efficiency.load_run(tmp_path) == [DONE]


@pytest.mark.parametrize("damage", ["", "[]", "{}", '{"format": 1}', '{"format": 0}'])
def test_a_damaged_record_is_named(tmp_path, damage):
    path = efficiency.save(tmp_path, DONE)
    path.write_text(damage)
    with pytest.raises(RecordError, match=r"april_gan\.json"):
        efficiency.load(path)


def test_a_run_without_records_says_what_makes_them(tmp_path):
    with pytest.raises(RecordError, match="zsadbench profile"):
        efficiency.load_run(tmp_path)


def test_throughput_and_the_fraction_of_the_peak_by_hand():
    assert DONE.best.batch == 8 and DONE.best.images_per_second == 200
    assert DONE.fraction_of_peak == pytest.approx(200 * 1e12 / 5e14)
    assert DONE.encoder_fraction == pytest.approx(250 * 8e11 / 5e14)


def test_minutes_per_epoch_are_the_mean_over_the_epochs_of_all_stages_by_hand():
    # 160 images: 10 steps of 6 s in one epoch; 16 steps of 12 s, or of 3 s, in three epochs.
    assert DONE.training.minutes_per_epoch == pytest.approx((1 * 1.0 + 3 * 3.2) / 4)
    assert DONE.training.later_minutes_per_epoch == pytest.approx((1 * 1.0 + 3 * 0.8) / 4)


def test_a_last_short_batch_takes_a_step():
    assert STAGES[1].minutes_per_epoch(161, 12.0) == pytest.approx(17 * 12 / 60)


def test_a_method_that_encodes_prompts_per_image_and_one_that_does_not(tmp_path):
    anchors = measure.measure("dual_anchor.demo", request(tmp_path, encoder="demo"), QUICK, PEAK)
    assert anchors.status == "done", anchors.error
    assert anchors.text_prompts == {"once": 0, "category": 0, "image": 2} and anchors.text_ms is None
    memory = measure.measure("patchcore", request(tmp_path, encoder="demo"), QUICK, PEAK)
    assert memory.status == "done", memory.error
    assert set(memory.text_prompts.values()) == {0} and memory.setting == {"scope": "image", "shots": 1}
    assert anchors.parameters - anchors.trained_parameters > memory.parameters > 0  # the text tower, where it is used
    assert anchors.flops > anchors.encoder_flops == memory.encoder_flops
    assert anchors.trained_parameters > 0 == memory.trained_parameters and not anchors.random_weights
    assert anchors.clock == "CPU time of one thread" and anchors.threads == 1 and anchors.environment["torch"]
    assert 0 < anchors.fraction_of_peak < 1 and [timing.batch for timing in anchors.timings] == [1, 2]
    assert json.loads(json.dumps(anchors.options)) == anchors.options


def test_methods_that_compare_images_get_several_and_are_told_per_image(tmp_path, toys):
    pair = measure.measure("good_pair", request(tmp_path), replace(QUICK, batches=(1, 4)), PEAK)
    assert [(timing.batch, timing.images) for timing in pair.timings] == [(1, 2), (4, 4)]
    whole = measure.measure("musc", request(tmp_path, encoder="tiny"), replace(QUICK, batches=(1,)), PEAK)
    assert whole.timings[0].images == 3 and whole.setting["scope"] == "category"
    assert whole.stopped == "no larger batch was asked for"


def test_what_fails_is_a_record_with_its_reason(tmp_path, toys):
    crash = measure.measure("bad_crash", request(tmp_path), QUICK, PEAK)
    assert crash.status == "failed" and "IndexError" in crash.error
    spec = "timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    missing = request(tmp_path, encoder=spec, weights={spec: tmp_path / "missing"})
    lacking = measure.measure("musc", missing, QUICK, PEAK)
    assert lacking.status == "failed" and "--random-weights" in lacking.error


def test_random_weights_are_marked(tmp_path):
    spec = "timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    asked = request(tmp_path, encoder=spec, changes={"patchcore": {"size": "32"}})
    record = measure.measure("patchcore", asked, replace(QUICK, batches=(1,), random_weights=True), PEAK)
    assert record.random_weights and record.encoder["size"] == 32, record.error
    text = efficiency_table.render([record], [])
    assert r"PatchCore (ViT)\*" in text and "random weights" in text


def test_training_runs_the_real_loop_at_the_recipes_batch_size(tmp_path, trained, monkeypatch):
    monkeypatch.setattr(synthetic, "write_folder", partial(synthetic.write_folder, size=(48, 32)))
    record = measure.measure("toy_trained", request(tmp_path), replace(QUICK, train=True), PEAK)
    assert record.status == "done", record.error
    first, second = record.training.stages
    assert (first.name, first.epochs, first.batch_size, first.steps) == ("first", 2, 4, 1)
    assert (second.name, second.epochs) == ("second", 1)
    assert first.first_seconds > 0 < second.later_seconds and record.training.peak_bytes > 0
    assert record.training.epoch_images == 2162


def test_wrong_names_and_options_are_told_before_anything_is_measured(tmp_path):
    for asked, error in (
        (request(tmp_path, "wincli"), UnknownName),
        (request(tmp_path, "winclip", changes={"winclip": {"size": "large"}}), OptionError),
        (request(tmp_path, "winclip", changes={"musc": {"size": "64"}}), UsageError),
    ):
        with pytest.raises(error):
            next(measure.profile(asked, QUICK))


def test_synthetic_pictures_are_a_readable_test_split(tmp_path):
    root = synthetic.write_folder(tmp_path / "pictures", 20, size=(40, 30))
    samples = datasets.create(f"folder={root}").samples(synthetic.CATEGORY)
    assert sorted(sample.label for sample in samples) == [0] * 10 + [1] * 10
    assert all(len(sample.masks) == sample.label for sample in samples)


def quality(**changes):
    fields = {
        "method": "april_gan", "dataset": "mvtec", "category": "bottle", "status": "done", "title": "APRIL-GAN",
        "image": {"auroc": 0.91}, "pixel": {"ap": 0.401}, "options": DONE.options, "encoder": DONE.encoder,
        "setting": {"scope": "image", "shots": 0, "trained_on": ["visa"]},
    }  # fmt: skip
    return Record(**{**fields, **changes})


def test_quality_stands_beside_cost_with_the_categories_that_it_lacks():
    text = efficiency_table.render([DONE], [quality()])
    assert "MVTec AD image AUROC" in text and "91.0 [1 of 15 categories]" in text and "40.1" in text


@pytest.mark.parametrize(
    "changes",
    [{"options": {"layers": [24]}}, {"encoder": {**DONE.encoder, "size": 336}}, {"method": "april_gan.mvtec"}],
)
def test_quality_of_other_options_or_another_encoder_does_not(changes):
    assert "91.0" not in efficiency_table.render([DONE], [quality(**changes)])


def test_two_devices_precisions_or_thread_counts_never_share_a_table():
    others = [replace(DONE, device="GPU Y"), replace(DONE, precision="fp32"), replace(DONE, threads=2)]
    text = efficiency_table.render([DONE, *others, DONE], [])
    assert text.count("### Efficiency on ") == 4


def test_the_table_prints_the_record_by_hand():
    lines = efficiency_table.render([DONE], []).splitlines()
    cells = [cell.strip() for cell in next(line for line in lines if line.startswith("| APRIL")).split("|")[1:-1]]
    assert cells == [
        "APRIL-GAN", "0-shot", "open_clip:ViT-L-14-336/openai, 518 px", "430.0", "3.000", "4.50", "2.65", "0.85",
        "2.00", "20.0 [19.0 to 22.0]", "200.0 at 8", "1000.0", "40.0", "40.0",
    ]  # fmt: skip


def test_published_costs_stand_in_brackets_with_their_source():
    record = replace(DONE, method="dual_anchor", title="Dual-Anchor", encoder={
        **DONE.encoder, "spec": "timm:vit_large_patch16_dinov3.lvd1689m", "size": 512,
    })  # fmt: skip
    text = efficiency_table.render([record], [], published=True)
    assert "4.50 (4.58‡)" in text and "2.65 (3.55‡)" in text and "20.0 [19.0 to 22.0] (148‡)" in text
    assert (
        "(table S1)" in text
        and "Dual-Anchor: built from written equations" in text
        and "(4.58" not in efficiency_table.render([record], [])
    )
    assert "(148" not in efficiency_table.render([replace(record, method="april_gan")], [], published=True)


def test_a_published_cost_does_not_stand_beside_changed_options():
    record = replace(DONE, method="musc", changed={"neighbourhoods": [1, 3, 5]})
    assert "955.3" not in efficiency_table.render([record], [], published=True)


def test_a_published_cost_of_another_input_size_does_not():
    record = replace(DONE, method="musc", encoder={**DONE.encoder, "size": 336})
    assert "955.3" not in efficiency_table.render([record], [], published=True)
    assert "(955.3)" in efficiency_table.render([replace(record, encoder=DONE.encoder)], [], published=True)


def test_latex_and_csv_hold_the_same_numbers():
    assert r"\caption{Efficiency on GPU X, bf16, CUDA events.}" in efficiency_table.render([DONE], [], "latex")
    header, line = efficiency_table.render([DONE], [], "csv").splitlines()
    values = dict(zip(header.split(","), line.replace(", ", " ").split(","), strict=False))
    assert values["method"] == "april_gan" and float(values["params M"]) == 430


def test_failures_alone_are_told_in_every_format_without_words_about_columns():
    failed = EfficiencyRecord("winclip", "WinCLIP", "failed", "GPU X", "bf16", error="No memory.")
    assert efficiency_table.render([failed], []) == "- winclip: No memory.\n"
    text = efficiency_table.render([failed], [], "latex")
    assert text.count(r"\begin") == text.count(r"\end") == 1 and "winclip: No memory." in text


def test_a_failed_method_is_told_below_the_table():
    failed = EfficiencyRecord("winclip", "WinCLIP", "failed", "GPU X", "bf16", error="No memory.")
    assert "- winclip: No memory." in efficiency_table.render([DONE, failed], [])


DYING = """
import os, signal
from dataclasses import dataclass
from zsadbench.methods import Method, MethodCard, register
from zsadbench.data.images import Preprocess

@dataclass(frozen=True)
class Config:
    level: float = 0.5

@register
class Dying(Method):
    card = MethodCard(title="Dying", reference="none", scope="image")
    presets = {"default": Config()}
    preprocess = Preprocess(size=32)

    def predict(self, batch):
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_the_command_goes_on_after_a_process_that_was_killed_and_table_prints_its_records(tmp_path, trained):
    (trained / "methods" / "dying.py").write_text(DYING)
    done = zsadbench(
        "profile", "--methods", "dying,toy_trained", "--out", tmp_path / "run", "--plugins", trained,
        "--repeat", 1, "--warmup", 0, "--batches", "1,2", "--steps", 1, "--threads", 1,
    )  # fmt: skip
    assert done.returncode == 1 and "memory ran out" in done.stderr, done.stderr
    assert "| Toy " in done.stdout and "- dying: The system ended its process" in done.stdout
    again = zsadbench("table", tmp_path / "run", "--efficiency")
    assert again.returncode == 0 and again.stdout == done.stdout


def test_a_dataset_stands_for_the_presets_and_the_encoder_of_a_run_on_it(tmp_path):
    options = ("--out", tmp_path, "--repeat", 1, "--warmup", 0, "--batches", "1", "--threads", 1)
    done = zsadbench("profile", "--methods", "april_gan,constant", "--dataset", "demo", *options)
    assert done.returncode == 0, done.stderr
    found = {record.method: record.encoder.get("spec") for record in efficiency.load_run(tmp_path)}
    assert found == {"april_gan.demo": "demo", "constant": None}


@pytest.mark.parametrize("batches", ["", "0", "2,1", "1,1", "one"])
def test_wrong_batch_sizes_exit_with_2(batches):
    done = zsadbench("profile", "--methods", "constant", "--batches", batches)
    assert done.returncode == 2 and "--batches" in done.stderr


def test_precision_and_device_are_those_of_the_request(tmp_path, toys):
    record = measure.measure("good_mean", request(tmp_path, protocol=EvaluationProtocol(precision="bf16")), QUICK, PEAK)
    assert (record.precision, record.status) == ("bf16", "done"), record.error


def shipped() -> list[str]:
    """Every method as `--methods all` runs it on the demo set, trained presets included."""
    return list(plan.resolve_methods(Request(["all"], ["demo"], Path("unused"), encoder="demo"))[0])


@pytest.mark.filterwarnings("ignore:dbscan")  # the demo's sentences nearly agree
@pytest.mark.parametrize("name", shipped())
def test_every_shipped_method_is_profiled_and_so_is_its_training(tmp_path, name):
    asked = request(tmp_path, encoder="demo")
    record = measure.measure(name, asked, replace(QUICK, batches=(1,), train=True), PEAK)
    assert record.status == "done", record.error
    trained = bool(record.options.get("trained_on"))
    assert (record.training is not None) is trained
    if record.training is not None:
        assert all(stage.first_seconds > 0 and stage.later_seconds > 0 for stage in record.training.stages)


def test_a_residual_network_is_profiled_beside_its_bare_pass(tmp_path):
    asked = request(tmp_path, changes={"acr": {"size": "64"}})
    record = measure.measure("acr", asked, replace(QUICK, batches=(1,), random_weights=True), PEAK)
    assert record.status == "done", record.error
    assert record.flops > 0 and record.encoder_flops > 0 and record.parameters > record.trained_parameters
