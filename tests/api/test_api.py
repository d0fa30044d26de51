"""The Python front door: light to import, the same results as the command line, examples that run."""

from __future__ import annotations

import doctest
import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import zsadbench as z
from zsadbench.errors import DataError, RecordError, UnknownName, UsageError, ZsadError

EXAMPLES = (
    *("api.run", "api.runs", "api.predictor", "api.listing", "metrics.pixels", "metrics.measure"),
    *("method_base", "encoders.features", "data.images", "testing"),
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_importing_it_is_light() -> None:
    code = (
        "import sys, time; start = time.process_time(); import zsadbench; seconds = time.process_time() - start\n"
        "heavy = {'torch', 'numpy', 'pandas', 'PIL', 'cv2', 'typer', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy\nassert seconds < 0.2, seconds"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_name_is_there_and_dir_lists_it() -> None:
    for name in z.__all__:
        assert getattr(z, name) is not None
    assert set(z.__all__) <= set(dir(z))
    with pytest.raises(AttributeError, match="no attribute 'evalute'"):
        _ = z.evalute


def test_every_public_docstring_has_an_example() -> None:
    public = [z.metrics.image_metrics, z.metrics.pixel_metrics, z.Predictor.predict, z.Predictor.stream]
    public += [z.Run.to_pandas, z.Run.scores, z.Run.table, z.Run.figure]
    public += [getattr(z, name) for name in z.__all__ if callable(getattr(z, name))]
    # The first three have them at their functions, the others at `Method` and in a guide.
    without = {z.Run, z.Predictor, z.Predictions, z.TrainableMethod, z.register}
    assert not [one.__name__ for one in public if ">>> " not in (one.__doc__ or "") and one not in without]


@pytest.mark.filterwarnings("ignore:dbscan")
@pytest.mark.parametrize("module", EXAMPLES)
def test_examples_in_docstrings_run(module: str) -> None:
    failed, tried = doctest.testmod(importlib.import_module(f"zsadbench.{module}"))
    assert tried and not failed


def test_a_run_in_python_equals_one_on_the_command_line(tmp_path: Path) -> None:
    run = z.evaluate(["constant", "winclip"], "demo", out="python", limit=2, categories="pill,wood")
    command = ["run", "--methods", "constant,winclip", "--datasets", "demo", "--out", "typed", "--limit", "2"]
    subprocess.run(
        [sys.executable, "-m", "zsadbench", *command, "--categories", "pill,wood"], check=True, capture_output=True
    )
    assert run.records == z.load_run("typed").records and len(run.records) == 4
    assert [record.status for record in run.failed] == []
    table = z.load_run("typed").table()
    assert run._repr_markdown_() == table and "WinCLIP" in table
    frame = run.to_pandas("category")
    assert {"winclip", "constant"} == set(frame["method"]) and frame["value"].between(0, 100).all()
    assert len(run.scores("winclip", "demo", "pill")) == 2
    with pytest.raises(UnknownName, match="demo/winclip/gear"):
        run.scores("winclip", "demo", "gear")


def test_runs_are_found_by_a_pattern_and_an_empty_one_is_told() -> None:
    for seed in (0, 1):
        z.evaluate("constant", "demo", out=f"runs/seed{seed}", limit=2, seed=seed)
    both = z.load_runs("runs/seed*")
    assert len(both.folders) == 2 and "± 0.0" in both.table(seeds=True)
    frame = both.to_pandas(seeds=True)
    assert set(frame["n_seeds"]) == {2} and frame["std"].notna().all()
    with pytest.raises(RecordError, match="matches no run folder"):
        z.load_runs("nowhere/*")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: z.evaluate("winclp", "demo"), "Did you mean 'winclip'"),
        (lambda: z.evaluate("winclip", "demo", mask_rule="x"), "Unknown --mask-rule 'x'"),
        (lambda: z.evaluate("winclip", "demo", limit=0), "--limit 0: expected a number above 0"),
        (lambda: z.evaluate("winclip", "demo", eval_size="big"), "expected an integer or one of input, native"),
        (lambda: z.evaluate("winclip", "demo", nonsense=1), "nonsense"),
        (lambda: z.evaluate("", "demo"), "methods is empty"),
        (lambda: z.evaluate("constant", "demo", options={"temperature": 1}), "METHOD.FIELD=VALUE"),
        (lambda: z.load("winclip", encoder="demo", device="tpu"), "expected auto, cpu, cuda"),
        (lambda: z.load("constant", checkpoint="x.pth"), "no trained weights"),
        (lambda: z.load("april_gan", encoder="demo", checkpoint="x.pth"), "x.pth does not exist"),
        (lambda: z.evaluate("constant", "demo", limit="two"), "got 'two', expected none or an integer"),
        (lambda: z.profile("constant", batch=1), "option of profile 'batch'. Did you mean 'batches'"),
        (lambda: z.load_run(), "got no folder"),
        (lambda: z.describe("mvtek"), "Did you mean 'mvtec'"),
        (lambda: z.Run(()).figure("ranks", metrics="ap"), "Did you mean 'metric'"),
        (lambda: z.load("constant").predict(3), "got a int for images"),
        (lambda: z.load("constant").predict([[1, 2]]), "image 0 is a list; expected a path"),
        (lambda: z.load("constant").predict("."), "is a folder"),
        (lambda: z.load("constant").predict(np.zeros((0, 4, 3), np.uint8)), "image 0 has no pixels"),
        (lambda: z.load("constant").predict(np.zeros((4, 4, 3), np.uint8), batch_size=0), "batch_size is 0"),
        (lambda: z.metrics.image_metrics(["a"], [0]), "expected real numbers"),
        (lambda: z.metrics.pixel_metrics([np.zeros((2, 2), np.float32)], []), "1 anomaly maps, 0 masks"),
        (lambda: z.load("april_gan", encoder="demo").predict(np.zeros((9, 9, 3), np.uint8)), "needs trained weights"),
    ],
)
def test_what_is_wrong_is_a_sentence(call: object, words: str) -> None:
    with pytest.raises(ZsadError, match=words):
        call()


def photos(folder: Path) -> list[object]:
    rng = np.random.default_rng(0)
    folder.mkdir()
    Image.fromarray(rng.integers(0, 255, (50, 80, 3), np.uint8)).save(folder / "a b ü.png")
    grey = rng.integers(0, 255, (64, 40), np.uint8)
    return [folder / "a b ü.png", Image.fromarray(grey), rng.integers(0, 255, (33, 33, 4), np.uint8)]


@pytest.mark.parametrize(("name", "normal"), [("winclip", 0), ("fiseclip", 0), ("musc", 0), ("patchcore", 1)])
def test_methods_of_every_scope_predict_images_of_any_size(tmp_path: Path, name: str, normal: int) -> None:
    images = photos(tmp_path / "photos")
    predictor = z.load(name, encoder="demo")
    result = predictor.predict(images, noun="metal plate", normal=images[:normal])
    assert result.names == [str(images[0]), "image 1", "image 2"]
    assert result.scores.shape == (3,) and result.scores.dtype == np.float32 and np.isfinite(result.scores).all()
    assert [one.shape for one in result.maps] == [(50, 80), (64, 40), (33, 33)]
    again = predictor.predict(images, noun="metal plate", normal=images[:normal])
    assert np.array_equal(result.scores, again.scores)


def test_sixteen_bits_alpha_and_modes_mean_the_same_as_files_arrays_and_pil_images(tmp_path: Path) -> None:
    deep = np.random.default_rng(0).integers(0, 65535, (30, 50), np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    paletted = Image.fromarray((deep >> 8).astype(np.uint8)).convert("P")
    paletted.save(tmp_path / "p.png")
    winclip = z.load("winclip", encoder="demo")
    with Image.open(tmp_path / "deep.png") as opened:
        scores = winclip.predict([tmp_path / "deep.png", opened, deep, (deep >> 8).astype(np.uint8)]).scores
    assert len(set(scores.tolist())) == 1
    files, images = (winclip.predict(one).scores for one in (tmp_path / "p.png", paletted))
    assert files == images
    with pytest.raises(DataError, match="image 0 holds floating-point pixels"):
        winclip.predict(Image.fromarray(deep.astype(np.float32)))


def test_a_run_whose_records_must_not_share_a_table_says_so_in_a_notebook() -> None:
    for size in ("input", "64"):
        z.evaluate("constant", "demo", out=f"runs/{size}", limit=2, categories="wood", eval_size=size)
    shown = z.load_runs("runs/*")._repr_markdown_()
    assert shown.startswith("Run(") and "eval_size" in shown


def test_names_are_found_in_any_case_and_data_sets_are_described() -> None:
    assert z.list_methods("*WinCLIP*") == ["winclip"] and z.list_datasets("MVTec") == ["mvtec"]
    assert z.describe("mvtec")["card"]["title"] == "MVTec AD"


def test_predictions_equal_those_of_a_run(tmp_path: Path) -> None:
    run = z.evaluate("winclip", "demo", out="runs/all", limit=4, categories="wood")
    scores = run.scores("winclip", "demo", "wood")
    from zsadbench import datasets

    root = datasets.create("demo").root
    category = next(one for one in datasets.create("demo").categories() if one.name == "wood")
    result = z.load("winclip", encoder="demo").predict([root / one for one in scores["sample"]], noun=category.noun)
    assert np.allclose(result.scores, scores["score"], atol=1e-6)


def test_a_trained_method_predicts_with_its_checkpoint(tmp_path: Path) -> None:
    from zsadbench.training.checkpoints import shipped

    predictor = z.load("april_gan.demo", encoder="demo", checkpoint=shipped() / "april_gan.demo")
    assert np.isfinite(predictor.predict(photos(tmp_path / "photos")).scores).all()


def test_images_and_references_that_do_not_fit_are_named(tmp_path: Path) -> None:
    winclip = z.load("winclip", encoder="demo")
    with pytest.raises(DataError, match=r"image 0 is an array of shape .* float64"):
        winclip.predict(np.zeros((8, 8, 3)))
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"broken\.png"):
        winclip.predict(tmp_path / "broken.png")
    with pytest.raises(UsageError, match="no use for normal images"):
        winclip.predict(np.zeros((8, 8, 3), np.uint8), normal=[np.zeros((8, 8, 3), np.uint8)])
    with pytest.raises(UsageError, match="takes 1 normal images, got 0"):
        z.load("patchcore", encoder="demo").predict(np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(UsageError, match="no images"):
        winclip.predict([])
