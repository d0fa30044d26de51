"""What trackers are told of a run, and that none of them costs a number."""

import sys
from pathlib import Path

import pytest
from commands import zsadbench

import zsadbench as z
from zsadbench.errors import PluginError
from zsadbench.trackers import Tracker, Trackers
from zsadbench.training.checkpoints import Epoch
from zsadbench.training.loop import SilentTraining

DEMO = {"limit": 2, "categories": ["wood"]}


class Diary(Tracker):
    """Notes what it is told, and spoils what it is given."""

    def __init__(self):
        self.told = []

    def start(self, facts):
        self.told.append(("start", facts.methods, facts.datasets, facts.cells, facts.done, facts.seeds))

    def cell(self, recorded):
        record = recorded.record
        self.told.append((record.method, record.category, record.status, recorded.seed))
        record.image.clear()

    def epoch(self, training, epoch):
        self.told.append((training, epoch.epoch, epoch.loss))

    def end(self, numbers, complete):
        means = {(one.method, one.value) for one in numbers if (one.level, one.metric) == ("image", "auroc")}
        self.told.append(("end", means, complete))


def test_a_tracker_is_told_of_the_run_in_its_order(tmp_path):
    diary = Diary()
    run = z.evaluate("constant", "demo", out=tmp_path, trackers=[diary], **DEMO)
    assert diary.told == [
        ("start", ("constant",), ("demo",), 1, 0, (0,)),
        ("constant", "wood", "done", 0),
        ("end", {("constant", 50.0)}, True),
    ]
    assert run.records[0].image["auroc"] == 0.5, "it had a copy"


def test_several_seeds_are_one_run(tmp_path):
    diary = Diary()
    z.evaluate("constant", "demo", out=tmp_path, trackers=[diary], seeds=[3, 4], **DEMO)
    kinds = [line[0] for line in diary.told]
    assert kinds == ["start", "constant", "constant", "end"] and diary.told[0][-1] == (3, 4)
    assert [line[-1] for line in diary.told[1:3]] == [3, 4]


@pytest.mark.parametrize("moment", ["start", "cell", "end"])
@pytest.mark.parametrize("error", [ValueError("no server"), SystemExit(3)])
def test_a_tracker_that_raises_is_a_note_and_costs_nothing(tmp_path, moment, error):
    class Broken(Tracker):
        pass

    def raises(*_):
        raise error

    setattr(Broken, moment, raises)
    diary = Diary()
    with pytest.warns(UserWarning, match=r"tracker Broken \(1\): .*told nothing more") as notes:
        run = z.evaluate("constant", "demo", out=tmp_path, trackers=[Broken(), diary], limit=2)
    assert len([note for note in notes if "tracker" in str(note.message)]) == 1, "and it is said once"
    assert [record.status for record in run.records] == ["done"] * 4
    assert len(diary.told) == 6, "others go on"


def test_an_interrupted_run_is_not_complete(tmp_path, monkeypatch):
    from zsadbench.running import seeds

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(seeds, "run", interrupted)
    diary = Diary()
    with pytest.raises(KeyboardInterrupt):
        z.evaluate("constant", "demo", out=tmp_path, trackers=[diary], **DEMO)
    assert diary.told[-1] == ("end", set(), False)


def test_epochs_of_trainings_are_told():
    diary = Diary()
    training = Trackers([diary]).training(SilentTraining())
    training.begin("april_gan on demo", 4, 0)
    training.step(0.5)
    training.finish_epoch(Epoch(0, 1, 0.25, {"focal": 0.25}, 1.0, None))
    assert diary.told == [("april_gan on demo", 1, 0.25)]


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package of somebody else that brings two trackers."""
    package, facts = tmp_path / "their_trackers", tmp_path / "their_trackers-1.0.dist-info"
    package.mkdir()
    facts.mkdir()
    (package / "__init__.py").touch()
    source = "import sys\nfrom zsadbench.trackers import Tracker, register\n\n@register\nclass One(Tracker):\n"
    says = "    def cell(self, recorded):\n        print('their', recorded.record.category, file=sys.stderr)\n"
    (package / "their_log.py").write_text(source + says)
    (package / "their_bad.py").write_text(f"{source}    def __init__(self):\n        raise OSError('no licence')\n")
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: their-trackers\nVersion: 1.0\n")
    names = "".join(f"{name} = their_trackers.{name}\n" for name in ("their_log", "their_bad"))
    (facts / "entry_points.txt").write_text(f"[zsadbench.trackers]\n{names}")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in [name for name in sys.modules if name.startswith("their_trackers")]:
        del sys.modules[name]


def test_an_installed_package_brings_trackers(installed, tmp_path):
    done = zsadbench("run", "--methods", "constant", "--limit", 2, "--out", tmp_path / "out", "--tracker", "their_log")
    assert done.returncode == 0 and "their wood" in done.stderr
    with pytest.raises(PluginError, match=r"their_bad cannot be made: .*no licence"):
        Trackers(["their_bad"])


def test_a_tracker_that_is_not_there_is_told_before_anything_is_written(tmp_path, monkeypatch):
    out = tmp_path / "out"
    wrong = zsadbench("run", "--methods", "constant", "--out", out, "--tracker", "tensorbord")
    assert wrong.returncode == 2 and "Did you mean 'tensorboard'?" in wrong.stderr
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.delitem(sys.modules, "zsadbench.trackers.mlflow", raising=False)
    missing = zsadbench("run", "--methods", "constant", "--out", out, "--tracker", "mlflow")
    assert missing.returncode != 0 and "pip install mlflow" in missing.stderr
    assert not out.exists()


def test_tensorboard_reads_what_was_written(tmp_path):
    pytest.importorskip("tensorboard", reason="the extra `tensorboard` is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    z.evaluate("constant,april_gan", "demo", out=tmp_path, trackers=["tensorboard"], limit=2, train=False,
               checkpoint_folder=tmp_path / "none", encoder="tiny")  # fmt: skip
    events = EventAccumulator(str(tmp_path / "tensorboard" / "constant")).Reload()
    assert events.Scalars("demo/wood/image_auroc")[0].value == 50.0
    assert events.Scalars("demo/mean/image_auroc")[0].value == 50.0
    lacking = EventAccumulator(str(tmp_path / "tensorboard" / "april_gan.demo")).Reload()
    assert "demo/wood/needs_checkpoint/text_summary" in lacking.Tags()["tensors"]
    assert "facts/text_summary" in EventAccumulator(str(tmp_path / "tensorboard" / "run")).Reload().Tags()["tensors"]
    assert len(z.load_run(tmp_path).records) == 8, "its files are no records"


def test_mlflow_reads_what_was_sent(tmp_path, monkeypatch):
    pytest.importorskip("mlflow", reason="the extra `mlflow` is not installed")
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    z.evaluate("constant,april_gan", "demo", out=tmp_path / "out", trackers=["mlflow"], limit=2, train=False,
               checkpoint_folder=tmp_path / "none", encoder="tiny")  # fmt: skip
    client = MlflowClient()
    runs = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    found = {run.info.run_name: run for run in runs}
    assert set(found) == {"constant", "april_gan.demo"}
    done, lacking = found["constant"], found["april_gan.demo"]
    assert done.data.metrics["demo/wood/image_auroc"] == done.data.metrics["demo/mean/image_auroc"] == 50.0
    assert done.data.params["protocol.limit"] == "2" and done.info.status == "FINISHED"
    assert "needs trained weights" in lacking.data.tags["demo/wood/needs_checkpoint"]
    assert Path(done.data.tags["zsadbench.out"]) == tmp_path / "out"
