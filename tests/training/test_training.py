"""The training loop: stages, determinism, resume after every kind of end, and everything that can go wrong."""

import math
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toy_trained import write_method
from toy_tree import write_tree

from zsadbench import datasets
from zsadbench.encoders.transformer import TransformerEncoder
from zsadbench.errors import DataError, RecordError, UnknownName, UsageError, WeightsError
from zsadbench.recipes import Cosine
from zsadbench.support import files, plugins
from zsadbench.training import checkpoints
from zsadbench.training import loop as training
from zsadbench.training.request import TrainRequest

METHOD = "toy_trained.mvtec"
STEPS = 2 * 7 + 13  # 26 images in batches of 4, in two epochs, and in batches of 2, in one


class Watch:
    """A Progress that remembers, and raises at one step."""

    def __init__(self, stop_at=None, error=KeyboardInterrupt):
        self.losses, self.epochs, self.begun, self.stop_at, self.error = [], [], None, stop_at, error

    def begin(self, label, steps, done):
        self.begun = steps, done

    def step(self, loss):
        self.losses.append(loss)
        if len(self.losses) == self.stop_at:
            raise self.error

    def finish_epoch(self, epoch):
        self.epochs.append(epoch)


@pytest.fixture(scope="module")
def toy_folder(tmp_path_factory):
    return write_method(tmp_path_factory.mktemp("trained"))


@pytest.fixture(autouse=True)
def toy(toy_folder, forgotten_plugins):
    plugins.add_folder(toy_folder)


def train(root, out, watch=None, method=METHOD, save_every=2, memory_budget=training.MEMORY_BUDGET, **options):
    request = TrainRequest(method, "mvtec", out, data_root=root, **options)
    watch = watch or Watch()
    training.train(request, watch, save_every=save_every, memory_budget=memory_budget)
    return watch


def weights(out: Path) -> bytes:
    return (out / checkpoints.WEIGHTS).read_bytes()


def test_a_training_runs_its_stages_and_writes_weights_with_a_card(mvtec_tree, tmp_path):
    watch = train(mvtec_tree, tmp_path)
    card = checkpoints.load(tmp_path)
    assert watch.begun == (STEPS, 0) and len(watch.losses) == STEPS
    assert (card.method, card.trained_on, card.seed) == (METHOD, ["mvtec"], 0)
    assert card.data["samples"] == 26 and card.data["anomalous"] == 16 and card.data["split"] == "test"
    dataset = datasets.create("mvtec", mvtec_tree)
    samples = [sample for name in ("bottle", "grid") for sample in dataset.samples(name)]
    assert card.data["sha256"] == dataset.samples_sha256(samples)
    assert [(epoch["stage"], epoch["epoch"]) for epoch in card.epochs] == [(0, 0), (0, 1), (1, 0)]
    assert set(card.epochs[0]["terms"]) == {"dice"} and set(card.epochs[2]["terms"]) == {"dice", "focal"}
    assert card.options["recipe"]["stages"][1]["optimiser"] == "adamw"
    assert card.seconds == pytest.approx(sum(epoch["seconds"] for epoch in card.epochs)) and card.seconds > 0
    assert card.peak_bytes > 2**20 and card.environment["torch"] == torch.__version__
    assert str(mvtec_tree) not in (tmp_path / checkpoints.CARD).read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == [checkpoints.CARD, checkpoints.WEIGHTS]


def test_the_epoch_loss_is_the_mean_over_images_and_not_over_batches(mvtec_tree, tmp_path):
    watch = train(mvtec_tree, tmp_path)
    expected = (4 * sum(watch.losses[:6]) + 2 * watch.losses[6]) / 26  # the last batch has two images
    assert watch.epochs[0].loss == pytest.approx(expected, rel=1e-12)


def test_a_stage_moves_its_own_parameters_alone(mvtec_tree, tmp_path):
    only_scale, whole = tmp_path / "first", tmp_path / "whole"
    train(mvtec_tree, whole)
    with pytest.raises(KeyboardInterrupt):
        train(mvtec_tree, only_scale, Watch(stop_at=2 * 7 + 1))  # one step into the second stage
    state = torch.load(only_scale / training.STATE, weights_only=True)
    final = load_file(whole / checkpoints.WEIGHTS)
    assert state["position"]["stage"] == 0 and state["trained"]["shift"] == 0
    assert torch.equal(state["trained"]["scale"], final["scale"]) and final["shift"] != 0


def test_learning_rates_follow_the_stages_schedule_also_after_a_resume(mvtec_tree, tmp_path, monkeypatch):
    rates, original = [], training._Loop.run_step

    def told(loop, batch, stage):
        rates.append(loop.optimiser.param_groups[0]["lr"])
        original(loop, batch, stage)

    monkeypatch.setattr(training._Loop, "run_step", told)
    cosine = [0.1 * (1 + math.cos(math.pi * i / 11)) / 2 for i in range(11)]  # of "shift", after two steps of warm-up
    expected = [0.05] * 3 + [0.025] * 6 + [0.0125] * 5 + [0.0, 0.05, *cosine]
    train(mvtec_tree, tmp_path / "whole")
    assert rates == pytest.approx(expected)
    for stop_at in (3, 11, 19):
        with pytest.raises(KeyboardInterrupt):
            train(mvtec_tree, tmp_path / f"cut{stop_at}", Watch(stop_at=stop_at))
        rates.clear()
        resumed = train(mvtec_tree, tmp_path / f"cut{stop_at}")
        assert resumed.begun[1] > 0 and rates == pytest.approx(expected[resumed.begun[1] :])


def test_learning_rates_follow_prefix_and_schedule(mvtec_tree, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(mvtec_tree, tmp_path, Watch(stop_at=2 * 7 + 8))  # saved after six of the second stage's 13 steps
    (group,) = torch.load(tmp_path / training.STATE, weights_only=True)["optimiser"]["param_groups"]
    assert group["initial_lr"] == 0.1 and group["lr"] == pytest.approx(0.1 * Cosine(warm_up=0.2).factor(6, 13))


def test_weights_depend_on_the_seed_alone(mvtec_tree, tmp_path):
    state = torch.get_rng_state()
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(mvtec_tree, tmp_path / name, seed=seed)
    assert weights(tmp_path / "a") == weights(tmp_path / "b") != weights(tmp_path / "c")
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("stop_at", range(1, STEPS + 1, 3))
def test_a_training_interrupted_at_any_step_and_resumed_ends_in_the_same_bytes(mvtec_tree, tmp_path, stop_at):
    train(mvtec_tree, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(mvtec_tree, tmp_path / "cut", Watch(stop_at=stop_at))
    assert not (tmp_path / "cut" / checkpoints.CARD).exists()
    resumed = train(mvtec_tree, tmp_path / "cut")
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    assert resumed.begun[1] >= stop_at - 2, "at most two steps are lost"
    whole, cut = (checkpoints.load(tmp_path / name).epochs for name in ("whole", "cut"))
    assert [epoch["loss"] for epoch in cut] == [epoch["loss"] for epoch in whole]


KILLED = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from zsadbench.support import plugins
from zsadbench.training import loop
from zsadbench.training.request import TrainRequest

class Tell:
    def begin(self, *arguments): pass
    def step(self, loss): print("step", flush=True)
    def finish_epoch(self, epoch): pass

plugins.add_folder(Path(sys.argv[1]))
request = TrainRequest(sys.argv[2], "mvtec", Path(sys.argv[4]), Path(sys.argv[3]), encoder="tiny")
loop.train(request, Tell(), save_every=2)
"""


def test_a_training_killed_at_a_random_step_and_resumed_ends_in_the_same_weights(mvtec_tree, tmp_path, toy_folder):
    step = random.Random().randint(3, 3 * 4 - 1)  # april_gan.mvtec: 26 images in batches of 8, three epochs, mosaics
    arguments = [toy_folder, "april_gan.mvtec", mvtec_tree, tmp_path / "killed"]
    process = subprocess.Popen([sys.executable, "-c", KILLED, *map(str, arguments)], stdout=subprocess.PIPE, text=True)
    for _ in range(step):
        assert process.stdout.readline() == "step\n"
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert (tmp_path / "killed" / training.STATE).exists()
    resumed = train(mvtec_tree, tmp_path / "killed", method="april_gan.mvtec", encoder="tiny")
    train(mvtec_tree, tmp_path / "whole", method="april_gan.mvtec", encoder="tiny")
    assert resumed.begun[1] > 0 and weights(tmp_path / "killed") == weights(tmp_path / "whole"), f"killed after {step}"


def test_a_finished_training_is_not_repeated_and_another_one_never_replaces_it(mvtec_tree, tmp_path):
    train(mvtec_tree, tmp_path)
    before = weights(tmp_path)
    assert train(mvtec_tree, tmp_path).begun is None
    with pytest.raises(UsageError, match=r"finished checkpoint of toy_trained.mvtec with another seed"):
        train(mvtec_tree, tmp_path, seed=1)
    assert weights(tmp_path) == before


def test_an_unfinished_training_of_another_kind_is_refused(mvtec_tree, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(mvtec_tree, tmp_path, Watch(stop_at=5))
    with pytest.raises(UsageError, match="unfinished training with other options"):
        train(mvtec_tree, tmp_path, epochs=1)


def test_a_damaged_state_is_a_sentence(mvtec_tree, tmp_path):
    (tmp_path / training.STATE).write_bytes(b"not a state")
    with pytest.raises(WeightsError, match=r"training\.pt is no state of a training"):
        train(mvtec_tree, tmp_path)


def test_a_loss_that_is_no_number_stops_with_the_step_and_the_files_of_its_batch(mvtec_tree, tmp_path):
    watch = Watch()
    with pytest.raises(training.Diverged, match=r"dice inf\) in stage 1, epoch 1, step \d of 7, on .*bottle.*000\.png"):
        train(mvtec_tree, tmp_path, watch, changes={"explode": "bottle/test/good/000"})
    assert len(watch.losses) < 7 and not (tmp_path / checkpoints.CARD).exists()


def test_a_corrupt_image_is_named(tmp_path):
    write_tree(tmp_path / "data/mvtec")
    (tmp_path / "data/mvtec/grid/test/good/001.png").write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"grid/test/good/001\.png"):
        train(tmp_path / "data", tmp_path / "out")


def test_training_on_no_masks_or_on_one_class_is_refused_before_anything_is_written(mvtec_tree, tmp_path, monkeypatch):
    mvtec = plugins.load("zsadbench.datasets", "mvtec").MVTec
    card = replace(mvtec.cards["default"], pixel_level=False)
    with monkeypatch.context() as patch:
        patch.setattr(mvtec, "cards", {"default": card})
        with pytest.raises(DataError, match=r"mvtec has no masks, but toy_trained\.mvtec is trained on them"):
            train(mvtec_tree, tmp_path / "out")
    write_tree(tmp_path / "data/mvtec", bad=0)
    with pytest.raises(DataError, match="10 test images, 0 of them anomalous"):
        train(tmp_path / "data", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_preset_that_means_another_dataset_is_refused_and_a_bare_name_takes_its_recipe_along(mvtec_tree, tmp_path):
    with pytest.raises(UsageError, match=r"toy_trained\.visa means trained on visa, got --dataset mvtec"):
        train(mvtec_tree, tmp_path, method="toy_trained.visa")
    with pytest.raises(UsageError, match="constant has nothing to train"):
        train(mvtec_tree, tmp_path, method="constant")
    with pytest.raises(UnknownName):
        train(mvtec_tree, tmp_path, method="toy_traned")
    train(mvtec_tree, tmp_path, method="toy_trained", epochs=1)
    card = checkpoints.load(tmp_path)
    assert card.method == METHOD and [stage["epochs"] for stage in card.options["recipe"]["stages"]] == [1, 1]


def test_limit_trains_on_fewer_images_of_both_labels(mvtec_tree, tmp_path):
    train(mvtec_tree, tmp_path, limit=4)
    data = checkpoints.load(tmp_path).data
    assert (data["samples"], data["limit"]) == (8, 4) and 0 < data["anomalous"] < 8


def test_a_full_disk_stops_with_a_sentence_and_keeps_the_last_state(mvtec_tree, tmp_path, monkeypatch):
    original, saved = files.write_atomically, []

    def full(path, write):
        if len(saved) == 3:
            raise RecordError(f"{path} could not be written: No space left on device.")
        saved.append(path)
        original(path, write)

    monkeypatch.setattr(files, "write_atomically", full)
    with pytest.raises(RecordError):
        train(mvtec_tree, tmp_path / "cut")
    assert torch.load(tmp_path / "cut" / training.STATE, weights_only=True)["position"]["step"] == 6


# A recipe without mosaics on an encoder whose passes are counted.
PLAIN = {"method": "april_gan.visa", "encoder": "tiny", "epochs": 2, "changes": {"trained_on": "mvtec"}}


@pytest.fixture
def passes(monkeypatch):
    counted, original = [], TransformerEncoder.encode
    monkeypatch.setattr(
        TransformerEncoder,
        "encode",
        lambda self, images, request: counted.append(len(images)) or original(self, images, request),
    )
    return counted


@pytest.mark.parametrize("budget", [2**30, 0, 10**6], ids=["memory", "disk", "both"])
def test_kept_features_give_exactly_the_losses_and_weights_of_features_computed_anew(
    mvtec_tree, tmp_path, passes, budget
):
    anew = train(mvtec_tree, tmp_path / "anew", memory_budget=None, **PLAIN)
    assert sum(passes) == 2 * 26
    passes.clear()
    kept = train(mvtec_tree, tmp_path / "kept", memory_budget=budget, **PLAIN)
    assert sum(passes) == 26, "every image is encoded once"
    assert kept.losses == anew.losses and weights(tmp_path / "kept") == weights(tmp_path / "anew")


def test_a_disk_without_room_keeps_no_features(mvtec_tree, tmp_path, passes, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 0}))
    train(mvtec_tree, tmp_path, memory_budget=0, **PLAIN)
    assert sum(passes) == 2 * 26


def test_mosaics_are_encoded_anew_and_single_images_once(mvtec_tree, tmp_path, passes):
    train(mvtec_tree, tmp_path, method="april_gan.mvtec", encoder="tiny")
    assert 26 < sum(passes) < 3 * 26
