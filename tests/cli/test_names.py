"""Names as users type them: a typo is answered before torch is imported, and any spelling means the registered name."""

import json
import subprocess
import sys

import pytest
from commands import zsadbench

import zsadbench as z
from zsadbench import datasets, methods
from zsadbench.encoders import names
from zsadbench.errors import UnknownName, UsageError
from zsadbench.records import results
from zsadbench.running import studies
from zsadbench.running.request import make_request, make_train_request
from zsadbench.support import option_names, plugins, spelling

TYPOS = {
    "run --methods winclp": "'winclip'",
    "run --methods april_gan.vise": "'visa'",
    "run --methods fiseclip[lamda_=1]": "'lambda_'",
    "run --datasets mvtek": "'mvtec'",
    "run --datasets demo.trian": "'train'",
    "run --categories pil": "'pill'",
    "run --encoder open_clp:ViT-B-16/openai": "open_clip:NAME/TAG",
    "run --encoder open_clip:ViT-B-61/openai": "'ViT-B-16'",
    "run --encoder open_clip:ViT-B-16/opnai": "'openai'",
    "run --encoder timm:vit_large_patch14_dinov2.lvd142": "'lvd142m'",
    "run --weights timm:resnet5=x.pth": "'resnet50'",
    "run --set winclip.temprature=1": "'temperature'",
    "run --set winclp.temperature=1": "'winclip'",
    "run --set winclip.encoder=timm:resnet5": "'resnet50'",
    "run --sweep fiseclip.lamda_=1,2": "'lambda_'",
    "run --checkpoint april_gn=x.pth": "'april_gan'",
    "run --precision fp61": "'fp16'",
    "run --mask-rule nearst": "'nearest'",
    "run --eval-size inptu": "input, native",
    "run --device cdua": "auto, cpu, cuda",
    "run --executor lokie:4": "loky:N",
    "study clip_ad_tabel4": "'clip_ad_table4'",
    "study clip_ad_table4 --datasets vias": "'visa'",
    "study clip_ad_table4 --encoder tinny": "'tiny'",
    "profile --methods winclpi": "'winclip'",
    "profile --methods winclip --dataset mvtek": "'mvtec'",
    "profile --methods winclip --set winclip.sigm=1": "'sigma'",
    "train --method april_gn --dataset demo.train --out x": "'april_gan'",
    "train --method april_gan --dataset demo.trian --out x": "'train'",
    "train --method april_gan --dataset demo.train --out x --set april_gan.sigm=1": "'sigma'",
    "show winclpi": "'winclip'",
    "show mvtek": "'mvtec'",
    "list metods": "'methods'",
    "data check mvtek": "'mvtec'",
    "data fetch mvtek": "'mvtec'",
    "table nowhere": "nowhere is not a run folder",
}
FRESH = """
import json, sys, time
sys.path.insert(0, sys.argv[1])
from commands import zsadbench
found = {}
for typo in json.loads(sys.stdin.read()):
    before = time.process_time()
    done = zsadbench(*typo.split())
    found[typo] = [done.returncode, done.stderr, "torch" in sys.modules, time.process_time() - before]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def answers(request: pytest.FixtureRequest) -> dict[str, list[object]]:
    """What one process that never imported torch answers to all typos."""
    tests = str(request.path.parents[1])
    command = [sys.executable, "-c", FRESH, tests]
    done = subprocess.run(command, input=json.dumps([*TYPOS]), capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("typo", TYPOS)
def test_a_typo_is_answered_before_torch_is_imported(answers: dict[str, list[object]], typo: str) -> None:
    code, told, torch, seconds = answers[typo]
    assert code in (1, 2) and TYPOS[typo] in told and "Traceback" not in told, told
    assert not torch and seconds < 1


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("WinCLIP", "winclip"),
        ("april-gan", "april_gan"),
        ("APRIL-GAN.VisA", "april_gan.visa"),
        ("PatchCore (ViT)", "patchcore"),
        ("Clip-AD.SDP-Plus", "clip_ad.sdp_plus"),
        ("FiSeCLIP[lambda_=1.05]", "fiseclip[lambda_=1.05]"),
    ],
)
def test_a_method_may_be_spelt_as_its_paper_does(typed: str, meant: str) -> None:
    assert methods.registered_name(typed) == meant
    assert methods.lookup(typed)[1:] == methods.lookup(meant)[1:]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("MVTec", "mvtec"),
        ("MVTec-AD=/Some/Folder", "mvtec=/Some/Folder"),
        ("mvtec_ad", "mvtec"),
        ("Demo.Train", "demo.train"),
        ("Real-IAD", "real_iad"),
        ("Folder.My-Parts=/Parts", "folder.My-Parts=/Parts"),
    ],
)
def test_a_dataset_may_be_spelt_as_its_paper_does_and_own_names_are_kept(typed: str, meant: str) -> None:
    assert datasets.registered_name(typed) == meant


def test_what_is_recorded_is_the_registered_name(tmp_path) -> None:
    done = zsadbench("run", "--methods", "Constant", "--datasets", "Demo", "--limit", 2, "--out", tmp_path, "-q")
    assert done.returncode == 0, done.stderr
    assert {(one.method, one.dataset) for one in results.load_run(tmp_path)} == {("constant", "demo")}
    assert zsadbench("show", "MVTec-AD").stdout == zsadbench("show", "mvtec").stdout
    assert z.describe("Win-CLIP")["name"] == "winclip"
    assert studies.find("CLIP-AD table4").name == "clip_ad_table4"


def test_options_and_checkpoints_may_be_given_under_any_spelling() -> None:
    request = make_request(out="x", changes={"WinCLIP.sigma": 1}, checkpoints={"April-GAN": "x.pth"})
    assert request.changes == {"winclip": {"sigma": 1}} and [*request.checkpoints] == ["april_gan"]
    with pytest.raises(UsageError, match=r"winclip\.sigma is given twice, as 1 and as 2"):
        make_request(out="x", changes={"WinCLIP.sigma": 1, "winclip.sigma": 2})
    training = make_train_request("April-GAN", "Demo.Train", out="x", changes={"sigma": 1})
    assert (training.method, training.dataset, training.changes) == ("april_gan", "demo.train", {"sigma": 1})


def test_a_spelling_of_two_names_is_an_error_and_an_exact_name_none() -> None:
    assert spelling.match("method", "my_clip", ["my_clip", "myclip"]) == "my_clip"
    with pytest.raises(UsageError, match="'My-CLIP' may be my_clip or myclip"):
        spelling.match("method", "My-CLIP", ["my_clip", "myclip"])
    with pytest.raises(UnknownName):
        spelling.match("method", "--", ["a"])


@pytest.mark.parametrize("name", plugins.names("zsadbench.methods"))
def test_the_source_of_a_method_tells_the_options_that_it_has(name: str) -> None:
    presets = methods.lookup(name)[0].presets.values()
    expected = {option for config in presets for option in vars(config)}
    assert option_names.declared(plugins.source_file("zsadbench.methods", name)) == expected


def test_every_name_that_the_encoders_libraries_list_is_known_without_importing_them() -> None:
    import open_clip
    import timm

    for model, tag in open_clip.list_pretrained():
        names.check(f"open_clip:{model}/{tag}", {})
    for name in timm.list_models() + timm.list_pretrained():
        names.check(f"timm:{name}", {})
    names.check("open_clip:ViT-B-16/my_own_tag", {"open_clip:ViT-B-16/my_own_tag": "mine.pth"})
