"""What a user gives is used, or it is an error with exit code 2 before anything is written or downloaded."""

import json

import pytest
from commands import zsadbench
from toy_trained import write_method
from toy_tree import write_tree

from zsadbench import methods
from zsadbench.encoders import checks

DINO = "timm:vit_small_patch14_dinov2.lvd142m"


@pytest.fixture(autouse=True)
def offline(monkeypatch, forgotten_plugins):
    """Fail when something is downloaded, and forget plugins after each test."""

    def download(*arguments, **options):
        raise AssertionError("a download before the check")

    monkeypatch.setattr("zsadbench.encoders.hub.download", download)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A data root with mvtec/ and visa/ in MVTec AD's layout, and a weights file that is none."""
    root = tmp_path_factory.mktemp("given")
    write_tree(root / "mvtec", categories=["bottle"])
    write_tree(root / "lines", categories=["left"])
    (root / "file.pth").write_bytes(b"weights")
    return root


def refused(root, out, *arguments):
    """Return what a command that is refused says."""
    done = zsadbench(*(str(argument).replace("ROOT", str(root)) for argument in arguments), "--out", out)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr and not out.exists()
    return done.stderr


ENCODERS = [
    (["--encoder", "open_clip:ViT-L-14-335/openai"], "Unknown open_clip model 'ViT-L-14-335'. Did you mean"),
    (["--encoder", "open_clip:ViT-L-14-336/opena"], "Unknown pretrained tag of ViT-L-14-336 'opena'"),
    (["--encoder", "timm:vit_small_patch14_dinov"], "Unknown timm model"),
    (["--encoder", "timm:vit_small_patch14_dinov2.lvd142"], "Unknown pretrained tag"),
    (["--encoder", "timm:swin_base_patch4_window7_224"], "is a SwinTransformer"),
    (["--encoder", "open_clip:RN50/openai"], "a ResNet as its vision tower"),
    (["--encoder", "demmo"], "Unknown encoder 'demmo'. Did you mean 'demo'"),
    (["--encoder", DINO], "has no text tower, but april_gan"),
    (["--set", "april_gan.encoder=open_clip:ViT-L-14-336/opena"], "Unknown pretrained tag"),
    (["--set", "april_gan.size=-8"], "do not tile an image of -8. Set the size to 14."),
    (["--set", "april_gan.size=0"], "do not tile an image of 0. Set the size to 14."),
    (["--encoder", DINO, "--set", "april_gan.activation=quickgelu"], "no text tower"),
]
WEIGHTS = [
    (
        ["--weights", f"{DINO}=ROOT/file.pth"],
        "no method here has that encoder; encoders in use: open",
    ),
    (["--weights", "open_clip:ViT-L-14-336/openai=ROOT/absent.pth"], "absent.pth: there is no such file"),
    (["--weights", f"{DINO}=ROOT/file.pth", "--weights", f"{DINO}=ROOT/b.pth"], f"--weights {DINO} is given twice"),
]
CHANGES = [(["--set", "april_gan.sigma=1", "--set", "april_gan.sigma=2"], "april_gan.sigma is given twice, as 1 ")]


@pytest.mark.parametrize(("arguments", "words"), [*ENCODERS, *WEIGHTS, *CHANGES])
def test_run_refuses_what_nothing_can_use(root, tmp_path, arguments, words):
    base = ["run", "--methods", "april_gan", "--datasets", "mvtec", "--data-root", root]
    assert words in refused(root, tmp_path / "out", *base, *arguments)


@pytest.mark.parametrize(("arguments", "words"), [ENCODERS[1], ENCODERS[7], ENCODERS[9], *WEIGHTS, *CHANGES])
def test_profile_refuses_what_nothing_can_use(root, tmp_path, arguments, words):
    assert words in refused(root, tmp_path / "out", "profile", "--methods", "april_gan", *arguments)


@pytest.mark.parametrize(("arguments", "words"), [ENCODERS[1], ENCODERS[7], ENCODERS[9], *WEIGHTS, *CHANGES])
def test_train_refuses_what_nothing_can_use(root, tmp_path, arguments, words):
    base = ["train", "--method", "april_gan", "--dataset", "mvtec", "--data-root", root]
    assert words in refused(root, tmp_path / "out", *base, *arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--weights", f"{DINO}=ROOT/file.pth"], f"--weights {DINO}: no method here has that encoder"),
        (["--encoder", DINO], "has no text tower, but clip_ad"),
        (["--categories", "bottl"], "Unknown category of mvtec 'bottl'. Did you mean 'bottle'"),
    ],
)
def test_study_refuses_what_none_of_its_rows_can_use(root, tmp_path, arguments, words):
    base = ["study", "clip_ad_table4", "--datasets", "mvtec", "--data-root", root]
    assert words in refused(root, tmp_path / "out", *base, *arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--methods", "constant,april_gan", "--checkpoint", "constant=ROOT/file.pth"],
            "--checkpoint constant: no",
        ),
        (["--methods", "clip_ad", "--checkpoint", "clip_ad=ROOT/file.pth"], "trained weights: none"),
        (["--methods", "april_gan", "--checkpoint", "april_gan=ROOT/absent.pth"], "absent.pth: there is no such file"),
        (
            [
                *("--methods", "april_gan.visa", "--checkpoint", "april_gan=ROOT/file.pth"),
                *("--checkpoint", "april_gan.visa=ROOT/file.pth"),
            ],
            "--checkpoint april_gan: no method of this run takes these weights",
        ),
        (["--methods", "constant", "--encoder", DINO], f"--encoder {DINO}: no method of this run uses it"),
        (["--methods", "constant", "--weights", "tiny=ROOT/file.pth"], "takes no weight file"),
    ],
)
def test_weights_and_encoders_that_no_method_takes_are_refused(root, tmp_path, arguments, words):
    assert words in refused(root, tmp_path / "out", "run", "--datasets", "mvtec", "--data-root", root, *arguments)


def test_a_category_that_some_datasets_have_is_fine_and_one_that_none_has_is_not(root, tmp_path):
    base = [
        *("run", "--methods", "constant", "--datasets", f"mvtec,folder={root}/lines", "--data-root", root),
        *("--quiet", "--categories"),
    ]
    words = refused(root, tmp_path / "out", *base, "bottle,lefd")
    assert "Unknown category of mvtec, folder.lines 'lefd'. Did you mean 'left'" in words
    done = zsadbench(*base, "bottle", "--out", tmp_path / "out")
    assert done.returncode == 0 and "1 cell to run" in done.stderr, done.stderr


def test_the_variable_may_name_weights_that_a_run_does_not_need(root, tmp_path):
    base = ["run", "--methods", "constant", "--datasets", "mvtec", "--data-root", root, "--quiet"]
    done = zsadbench(*base, "--out", tmp_path / "out", ZSADBENCH_WEIGHTS=f"{DINO}=/nowhere.pth; timm:a=/b.pth")
    assert done.returncode == 0, done.stderr
    done = zsadbench(*base, "--out", tmp_path / "out", ZSADBENCH_WEIGHTS="nonsense")
    assert done.returncode == 2 and "ZSADBENCH_WEIGHTS holds 'nonsense'" in done.stderr


def test_an_unfiltered_fiseclip_reads_no_text_and_may_have_any_encoder():
    chosen = [(name, *methods.configure(name, DINO)[::2]) for name in ("fiseclip.fi_unfiltered", "patchcore", "musc")]
    checks.check_methods(chosen, {})


def test_what_a_given_checkpoint_trains_on_is_looked_for_under_the_longest_name(root, tmp_path):
    folder = write_method(tmp_path / "plugins")
    base = ["run", "--methods", "toy_trained", "--datasets", "mvtec", "--data-root", root, "--plugins", folder]
    done = zsadbench(*base, "--checkpoint", f"toy_trained.visa={root}/file.pth", "--out", tmp_path / "out", "--quiet")
    assert done.returncode == 1 and "file.pth" in next((tmp_path / "out").rglob("bottle.json")).read_text()


def test_a_name_that_no_file_can_have_is_refused(root, tmp_path):
    images = sorted((root / "lines/left/test/good").iterdir())[:2]
    rows = [{"image": str(image), "label": label, "category": "ä" * 300} for label, image in enumerate(images)]
    (tmp_path / "index.jsonl").write_text("\n".join(map(json.dumps, rows)))
    said = refused(root, tmp_path / "out", "run", "--methods=constant", f"--datasets=folder={tmp_path}/index.jsonl")
    assert "has 600 bytes; expected at most 200" in said and len(said) < 600
