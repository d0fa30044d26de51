"""`zsadbench train`, and what `zsadbench run` says and does about checkpoints."""

import json
import shlex
import subprocess
import sys

import pytest
from commands import zsadbench
from toy_trained import write_method
from toy_tree import write_tree

from zsadbench.training import checkpoints, loop
from zsadbench.training.request import TrainRequest

ENDING = "Checkpoint: "


@pytest.fixture(scope="module")
def toy_folder(tmp_path_factory):
    return write_method(tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def other_tree(tmp_path_factory):
    """Own images, of which those of mvtec_tree know nothing."""
    return write_tree(tmp_path_factory.mktemp("own") / "other", seed=1)


@pytest.fixture
def toy(toy_folder, forgotten_plugins):
    """The arguments that make the toy method known, in this process for one test."""
    return ["--plugins", toy_folder]


def test_train_writes_a_checkpoint_and_says_how_to_use_it(mvtec_tree, tmp_path, toy):
    out = tmp_path / "out"
    done = zsadbench(
        "train", "--method", "toy_trained", "--dataset", "mvtec", "--data-root", mvtec_tree, "--out", out,
        "--seed", 3, "--epochs", 2, "--limit", 6, "--set", "toy_trained.width=2", *toy,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    use = f"zsadbench run --methods toy_trained --checkpoint toy_trained={out}"
    assert done.stdout == "" and use in done.stderr
    assert "stage 1, epoch 2: loss " in done.stderr
    card = checkpoints.load(out)
    assert (card.seed, card.data["samples"], card.options["width"], len(card.epochs)) == (3, 12, 2, 4)


def test_quiet_prints_the_ending_alone(mvtec_tree, tmp_path, toy):
    done = zsadbench(
        "train", "--method", "toy_trained", "--dataset", "mvtec", "--data-root", mvtec_tree, "--out", tmp_path / "out",
        "--quiet", *toy,
    )  # fmt: skip
    assert done.returncode == 0 and done.stderr.startswith(ENDING) and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--method", "winclip", "--dataset", "mvtec"], "winclip has nothing to train"),
        (["--method", "april_gn", "--dataset", "mvtec"], "Did you mean 'april_gan'"),
        (["--method", "april_gan", "--dataset", "mvtek"], "Did you mean 'mvtec'"),
        (["--method", "april_gan.visa", "--dataset", "mvtec"], "april_gan.visa means trained on visa"),
        (["--method", "april_gan", "--dataset", "visa"], "no folder found under"),
        (["--method", "april_gan", "--dataset", "mvtec", "--set", "winclip.sigma=1"], "only april_gan is trained"),
        (["--method", "april_gan", "--dataset", "mvtec", "--precision", "fp8"], "--precision 'fp8'"),
    ],
)
def test_a_wrong_training_exits_with_2_and_a_sentence(mvtec_tree, tmp_path, arguments, words):
    done = zsadbench("train", *arguments, "--data-root", mvtec_tree, "--out", tmp_path / "out")
    assert done.returncode == 2 and words in done.stderr, done.stderr
    assert not (tmp_path / "out").exists()


def test_an_interrupted_training_exits_with_130_and_goes_on(mvtec_tree, tmp_path, toy, monkeypatch):
    arguments = ["train", "--method", "toy_trained", "--dataset", "mvtec", "--data-root", mvtec_tree, "--out", tmp_path]
    original, steps = loop._Loop.run_step, []

    def interrupted(self, batch, stage):
        steps.append(original(self, batch, stage))
        if len(steps) == 9:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop._Loop, "run_step", interrupted)
        cut = zsadbench(*arguments, *toy)
    assert cut.returncode == 130 and "Interrupted" in cut.stderr and "Traceback" not in cut.stderr
    done = zsadbench(*arguments, *toy)
    assert done.returncode == 0 and "going on after step 7" in done.stderr


def test_run_says_what_it_will_train_trains_it_and_finds_it_again(mvtec_tree, other_tree, tmp_path, toy):
    arguments = [
        "run", "--methods", "toy_trained", "--datasets", f"folder={other_tree}", "--data-root", mvtec_tree,
        "--out", tmp_path / "run", "--checkpoints", tmp_path / "checkpoints", *toy,
    ]  # fmt: skip
    forbidden = zsadbench(*arguments, "--no-train")
    assert forbidden.returncode == 0 and "2 needs checkpoint" in forbidden.stderr
    first = zsadbench(*arguments)
    assert first.returncode == 0, first.stderr
    assert (
        first.stderr.index("will first train it on mvtec") < first.stderr.index("epoch 1") and "2 done" in first.stderr
    )
    again = zsadbench(*arguments)
    assert "train" not in again.stderr and "2 skipped" in again.stderr


def test_help_of_train_imports_no_torch():
    code = (
        "import sys; sys.argv = ['zsadbench', 'train', '--help']\nfrom zsadbench.cli.main import main\n"
        "try: main()\nexcept SystemExit as end: assert not end.code\nassert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "--limit" in done.stdout, done.stderr


def test_the_printed_command_trains_what_the_run_lacks(mvtec_tree, other_tree, tmp_path, toy):
    """Whatever decides the training is in the command: a run with the same options then finds its checkpoint."""
    base = [
        "run", "--methods", "toy_trained", "--datasets", f"folder={other_tree}", "--data-root", mvtec_tree,
        "--checkpoints", tmp_path / "check points", "--set", "toy_trained.width=2", "--seed", 3, "--quiet", *toy,
    ]  # fmt: skip
    lacking = zsadbench(*base, "--precision", "bf16", "--no-train", "--out", tmp_path / "lacking")
    assert "2 needs checkpoint" in lacking.stderr
    record = json.loads((tmp_path / "lacking/folder.other/toy_trained.mvtec/bottle.json").read_text())
    command = shlex.split(record["error"].split("`")[1])
    assert command[:2] == ["zsadbench", "train"]
    for option, value in (("--precision", "bf16"), ("--seed", "3"), ("--plugins", str(toy[1]))):
        assert command[command.index(option) + 1] == value
    trained = zsadbench(*command[1:], "--quiet")
    assert trained.returncode == 0, trained.stderr
    done = zsadbench(*base, "--no-train", "--out", tmp_path / "done")
    assert "2 done" in done.stderr
    again = zsadbench(*base[:-4], "1", *base[-3:], "--no-train", "--out", tmp_path / "again")
    assert "2 done" in again.stderr and "runs with weights of the training seed 3" in again.stderr
    both = zsadbench(*base[:-4], "1", *base[-3:], "--checkpoints", tmp_path / "own", "--out", tmp_path / "own_run")
    (card,) = (tmp_path / "own").glob("*/card.json")
    assert "2 done" in both.stderr and json.loads(card.read_text())["seed"] == 1, "the seed of a run is its trainings'"


def test_the_printed_command_names_the_weights_of_the_methods_encoders_alone(tmp_path):
    weights = {"timm:a": tmp_path / "a.pth"}
    request = TrainRequest("april_gan.visa", "visa", tmp_path / "out", weights=weights, epochs=2, limit=5)
    for words in (f"--weights timm:a={tmp_path}/a.pth", "--epochs 2", "--limit 5"):
        assert words in request.command
    assert "--seed" not in request.command and "--precision" not in request.command, "what is the default"
