"""Several settings of one method in one run: names, folders, sharing, and what else stands beside them."""

import json
from collections import Counter

import pytest
import toy_trained
from commands import zsadbench

import zsadbench as z
from zsadbench.analysis import comparable
from zsadbench.encoders.transformer import TransformerEncoder
from zsadbench.errors import UsageError
from zsadbench.methods import changed, configure, lookup
from zsadbench.records import results
from zsadbench.running.plan import make_plan
from zsadbench.running.request import make_request
from zsadbench.support import plugins, variants

LAMBDAS = ["0.95", 1, "1.0", 1.1]  # 1 and 1.0 are one; 1.1 is the method's own


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep of three variants on the demo set, and a method beside them."""
    out = tmp_path_factory.mktemp("swept")
    return z.evaluate("fiseclip,constant", "demo", out=out, sweep={"fiseclip.lambda_": LAMBDAS}, limit=2)


def planned(tmp_path, methods="fiseclip", **asked):
    plan = make_plan(make_request(methods=methods, datasets="demo", out=tmp_path, protocol={"limit": 2}, **asked))
    return plan, list(dict.fromkeys(cell.planned.name for group in plan.groups for cell in group))


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("fiseclip[lambda_=1]", "fiseclip[lambda_=1.0]"),
        ("fiseclip.full[ mu=.5 , lambda_=1e0]", "fiseclip[lambda_=1.0,mu=0.5]"),
        ("fiseclip.fi[neighbourhoods=(1, 3),mu=1]", "fiseclip.fi[neighbourhoods=1,3,mu=1.0]"),
        ("winclip[encoder=open_clip:ViT-B-16/openai]", "winclip[encoder=open_clip:ViT-B-16/openai]"),
    ],
)
def test_equal_variants_have_one_name_and_a_folder_of_it(name, full):
    assert lookup(name)[1] == full == lookup(full)[1] == variants.from_folder(variants.to_folder(full))
    assert not set('/\\:*?"<>|') & set(variants.to_folder(full))


@pytest.mark.parametrize("name", ["fiseclip[", "fiseclip[1.05]", "fiseclip[lambda_=1", "fiseclip[mu=1,mu=2]"])
def test_a_name_that_is_no_variant_is_told(name):
    with pytest.raises(UsageError, match=r"expected METHOD\[OPTION=VALUE\]|given twice"):
        lookup(name)


def test_options_of_a_variant_are_checked_as_set_checks_them():
    with pytest.raises(UsageError, match="lamda"):
        lookup("fiseclip[lamda=1]")
    with pytest.raises(UsageError, match="expected a number"):
        lookup("fiseclip[lambda_=much]")


def test_another_encoder_in_a_variant_brings_its_own_size_as_the_option_does():
    assert configure("fiseclip[encoder=demo]")[2] == configure("fiseclip", "demo")[2]
    assert configure("fiseclip[encoder=demo,size=64]", "tiny")[2].size == 64


def test_several_sweeps_multiply_over_every_preset_that_runs(tmp_path):
    sweep = {"fiseclip.lambda_": "0.9,1.0", "fiseclip.neighbourhoods": r"[1,3],5\,7"}
    _, names = planned(tmp_path, "fiseclip,fiseclip.fi,winclip", sweep=sweep)
    options = [f"[neighbourhoods={sides},lambda_={value}]" for value in (0.9, 1.0) for sides in ("1,3", "5,7")]
    assert sorted(names) == sorted(
        ["winclip", *(f"fiseclip{o}" for o in options), *(f"fiseclip.fi{o}" for o in options)]
    )


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"sweep": {"winclip.temperature": "1,2"}}, "--sweep winclip: no such method"),
        ({"sweep": {"fiseclip.lambda_": ""}}, "no values"),
        ({"sweep": {"lambda_": "1"}}, "--sweep lambda_=.*got no method"),
        ({"sweep": {"fiseclip.lambda_": "1"}, "changes": {"fiseclip.lambda_": 2}}, "with --set too"),
        ({"sweep": {"fiseclip.lambda_": "1"}, "methods": "fiseclip[lambda_=2]"}, r"set in fiseclip\[lambda_=2.0\] too"),
        ({"sweep": {"fiseclip.recipe": ["x"]}}, "recipe"),
        ({"methods": [f"fiseclip[neighbourhoods={','.join(['1'] * 100)}]"]}, "too long"),
    ],
)
def test_a_sweep_that_cannot_be_run_is_told_before_anything_is_written(tmp_path, asked, told):
    with pytest.raises(UsageError, match=told):
        planned(tmp_path / "out", **asked)
    assert not (tmp_path / "out").exists()


def test_each_variant_has_records_of_its_own_and_its_options(swept):
    found = {record.method: record for record in swept.records}
    assert set(found) == {"constant", *(f"fiseclip[lambda_={value}]" for value in (0.95, 1.0, 1.1))}
    assert found["fiseclip[lambda_=0.95]"].options["lambda_"] == 0.95
    assert found["fiseclip[lambda_=0.95]"].changed["lambda_"] == 1.1
    assert len(swept.scores("fiseclip[lambda_=1.0]", "demo", "gear")) == 2
    numbers = swept.to_pandas().query("metric == 'ap' and level == 'pixel'")
    assert set(numbers["method"]) == set(found)


def test_a_table_names_variants_and_says_which_is_the_methods_own(swept):
    table = swept.table("csv")
    assert '"fiseclip[lambda_=0.95]"' in table or "fiseclip[lambda_=0.95]" in table
    assert "Variants with the preset's own values: FiSeCLIP [lambda\\_=1.1]." in swept.table()


def test_a_sweep_is_resumed_and_a_variant_that_is_named_is_the_same_cell(swept, tmp_path):
    plan, names = planned(swept.folders[0], sweep={"fiseclip.lambda_": "1.0,1.2"})
    assert (names, len(plan.done)) == (["fiseclip[lambda_=1.2]"], 4)
    plan, names = planned(swept.folders[0], "fiseclip[lambda_=1]")
    assert (names, len(plan.done)) == ([], 4)


def test_variants_share_decoding_and_encoder_passes_and_change_no_number(swept, tmp_path, monkeypatch):
    passes = Counter()
    encode = TransformerEncoder.encode
    monkeypatch.setattr(
        TransformerEncoder,
        "encode",
        lambda self, images, *rest: passes.update([len(images)]) or encode(self, images, *rest),
    )
    alone = z.evaluate("fiseclip[lambda_=0.95]", "demo", out=tmp_path / "one", limit=2)
    one = passes.total()
    z.evaluate("fiseclip", "demo", out=tmp_path / "all", sweep={"fiseclip.lambda_": LAMBDAS}, limit=2)
    assert one > 0 and passes.total() == 2 * one
    for record in alone.records:
        assert (
            results.path_of(tmp_path / "one", record).read_bytes()
            == results.path_of(swept.folders[0], record).read_bytes()
        )


def test_published_numbers_stand_beside_the_printed_configuration_alone(swept):
    record = next(one for one in swept.records if one.method == "fiseclip[lambda_=0.95]")
    assert any("lambda_ 0.95 instead of 1.1" in text for text in comparable._options(record))
    assert changed("fiseclip[lambda_=1.1]", configure("fiseclip[lambda_=1.1]")[2]) == {}


def test_variants_share_a_training_unless_their_option_changes_it(tmp_path, mvtec_tree):
    plugins.add_folder(toy_trained.write_method(tmp_path / "plugins"))

    def trainings(**sweep):
        asked = {f"toy_trained.{option}": values for option, values in sweep.items()}
        places = {"data_root": mvtec_tree, "out": tmp_path / "out", "checkpoint_folder": tmp_path / "checkpoints"}
        request = make_request(methods="toy_trained.mvtec", datasets="mvtec", sweep=asked, allow_leak=True, **places)
        return make_plan(request).trainings

    shared, apart = trainings(sigma="1,2"), trainings(width="1,2")
    assert [list(one.names) for one in shared] == [["toy_trained.mvtec[sigma=1.0]", "toy_trained.mvtec[sigma=2.0]"]]
    assert [list(one.names) for one in apart] == [["toy_trained.mvtec[width=1]"], ["toy_trained.mvtec[width=2]"]]
    assert apart[0].request.out == shared[0].request.out, "width 1 is the preset's"


def test_the_command_line_sweeps(tmp_path):
    done = zsadbench(
        *("run", "--methods", "fiseclip", "--sweep", "fiseclip.lambda_=1,1.05", "--sweep", r"fiseclip.mu=.5"),
        *("--limit", 2, "--categories", "gear", "--out", tmp_path, "--quiet", "--json"),
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["done"] == 2
    assert {path.parent.name for path in tmp_path.glob("demo/*/gear.json")} == {
        "fiseclip[lambda_=1.0,mu=0.5]",
        "fiseclip[lambda_=1.05,mu=0.5]",
    }
