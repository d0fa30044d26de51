"""CSV, JSONL and the meta.json dialects of published code (docs/datasets/own.md#index-files)."""

from __future__ import annotations

import json

import pytest

from zsadbench.data import index_files
from zsadbench.errors import DataError


@pytest.fixture
def tree(tmp_path):
    for name in ("images/1.png", "images/10.png", "images/good.png", "masks/1.png", "masks/10.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def read(path, text, root=None):
    path.write_text(text, encoding="utf-8")
    return list(index_files.samples(index_files.read_index(path), root or path.parent, "tile"))


def meta_row(image, mask="", anomaly=0, **more):
    return {"img_path": image, "mask_path": mask, "cls_name": "tile", "specie_name": "", "anomaly": anomaly, **more}


def names(samples, root):
    return [
        (
            sample.image.relative_to(root).as_posix(),
            sample.mask and sample.mask.relative_to(root).as_posix(),
            sample.label,
        )
        for sample in samples
    ]


EXPECTED = [("images/1.png", "masks/1.png", 1), ("images/good.png", None, 0)]


@pytest.mark.parametrize(
    "text",
    [
        "image,mask,label,category\nimages/1.png,masks/1.png,1,tile\nimages/good.png,,0,tile\n",
        "object,split,label,image,mask\ntile,test,anomaly,images/1.png,masks/1.png\ntile,test,normal,images/good.png,\n",
        "\ufeffImage_Path, Label ,mask_path\nimages//1.png, Anomaly,masks\\1.png\n\nimages/../images/good.png,0.0,\n",
    ],
    ids=["plain", "VisA", "BOM, spaces, backslashes, default category"],
)
def test_csv_reads(tree, text):
    samples = read(tree / "index.csv", text)
    assert names(samples, tree) == EXPECTED
    assert {sample.category for sample in samples} == {"tile"} and {sample.split for sample in samples} == {"test"}


def test_split_and_defect_columns_are_used(tree):
    rows = ("images/1.png,1,test,crack", "images/10.png,1,Test,anomaly", "images/good.png,0,TRAIN,good")
    text = "\n".join(("image,label,split,defect", *rows))
    assert [(sample.split, sample.defect) for sample in read(tree / "i.csv", text)] == [
        ("test", "crack"),
        ("test", ""),
        ("train", ""),
    ]


def test_jsonl_reads_float_labels_and_absent_masks(tree):
    rows = [
        {"image_path": "images/1.png", "label": 1.0, "class_name": "tile", "mask_path": "masks/1.png"},
        {"image_path": "images/good.png", "label": 0.0, "class_name": "tile"},
    ]
    assert names(read(tree / "full-shot.jsonl", "\n".join(map(json.dumps, rows)) + "\n"), tree) == EXPECTED


@pytest.mark.parametrize("keys", [("train", "test"), ("Train", "Test")])
def test_meta_json_reads_capitalised_splits(tree, keys):
    content = {
        keys[0]: {"tile": [meta_row("images/10.png")]},
        keys[1]: {"tile": [meta_row("images/1.png", "masks/1.png", 1), meta_row("images//good.png")]},
        "validation": {"tile": [meta_row("nowhere.png")]},
    }
    samples = read(tree / "meta.json", json.dumps(content))
    assert names(samples, tree) == [("images/10.png", None, 0), *EXPECTED]
    assert [sample.split for sample in samples] == ["train", "test", "test"]


def test_absolute_paths_of_a_meta_json_are_rerooted_by_their_longest_suffix(tree):
    (tree / "1.png").touch()  # a shorter suffix that must not win
    author = "/home/author/data/CVC-ClinicDB"
    content = {
        "train": {},
        "test": {
            "tile": [
                meta_row(f"{author}/images/1.png", f"{author}/masks/1.png", 1),
                meta_row(f"{author}/images/good.png"),
            ]
        },
    }
    assert names(read(tree / "meta.json", json.dumps(content)), tree) == EXPECTED


def test_bayes_pfl_meta_lies_above_the_dataset_and_has_placeholders(tree):
    row = meta_row("BTAD/test/1.bmp", "BTAD/masks/1.png", 1, dataset_name="BTAD", specie_name="anomaly")
    for name in (row["img_path"], row["mask_path"]):
        (tree / name).parent.mkdir(parents=True)
        (tree / name).touch()
    content = {"train": {"tile": [meta_row("", dataset_name="")]}, "test": {"tile": [row]}}
    samples = read(tree / "meta_BTAD.json", json.dumps(content))
    assert names(samples, tree) == [("BTAD/test/1.bmp", "BTAD/masks/1.png", 1)]
    assert samples[0].defect == ""


def test_meta_whose_masks_were_never_made_has_no_masks(tree):
    content = {"train": {}, "test": {"tile": [meta_row("images/1.png", "no/1.png", 1), meta_row("images/good.png")]}}
    assert [sample.mask for sample in read(tree / "meta.json", json.dumps(content))] == [None, None]
    content["test"]["tile"].append(meta_row("images/10.png", "masks/10.png", 1))
    with pytest.raises(DataError, match=r"test tile row 1: mask no/1\.png does not exist"):
        read(tree / "meta.json", json.dumps(content))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,label\nimages/1.png,maybe\n", "line 2: the label is 'maybe'"),
        ("image,label\nimages/1.png\n", "line 2: the label is ''"),
        ("image,label\nimages/1.png,1\nimages/2.png,1\n", r"line 3: image images/2\.png does not exist"),
        ("image,label,mask\nimages/1.png,1,masks/9.png\n", r"line 2: mask masks/9\.png does not exist"),
        ("image,mask\nimages/1.png,\n", "line 1: there is no column 'label'"),
        ("picture,label\nimages/1.png,0\n", "line 1: there is no column 'image'"),
        ("image,label\n,1\n", "line 2: there is no image"),
        ("image,label,split\nimages/1.png,1,val\n", "line 2: the split is 'val'"),
        ("image,label\nimages/1.png,1,extra\n", "line 2: more values than columns"),
        ("image,label\nimages/1.png,1\n./images/1.png,0\n", r"line 3: image \./images/1\.png is also in .*line 2"),
        ("image,label,category\nimages/1.png,1,a/b\n", "line 2: the category is 'a/b'"),
        ("image,label\nimages/../../x.png,1\n", "line 2: .* lies outside"),
        ("image,label\n/etc/hostname,1\n", "line 2: /etc/hostname lies outside"),
        ("image,label,mask\nimages/1.png,1,../m.png\n", "line 2: .* lies outside"),
        ("image,label\n", "names no images"),
        ("", "line 1: there is no column 'image'"),
    ],
)
def test_bad_csv_rows_name_file_and_line(tree, text, message):
    with pytest.raises(DataError, match=message) as raised:
        read(tree / "index.csv", text)
    assert "index.csv" in str(raised.value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("i.jsonl", '{"image": "images/1.png", "label": 1}\n{"image"', "line 2: this is not JSON"),
        ("i.jsonl", '["images/1.png"]', "line 1: expected an object"),
        ("meta.json", "[]", "expected a meta.json"),
        ("meta.json", "{", "cannot be read"),
        ("meta.json", '{"test": {"tile": [3]}}', "test tile row 1: expected an object"),
        ("meta.json", '{"test": {"tile": 3}}', "test tile row 1: expected an object"),
        ("meta.json", '{"test": {"tile": [{"img_path": "../x.png", "anomaly": 0}]}}', "row 1: .* lies outside"),
        ("meta.json", '{"test": {"tile": [{"img_path": "/a/../x.png", "anomaly": 0}]}}', "row 1: .* lies outside"),
        (
            "meta.json",
            '{"test": {"tile": [{"img_path": "/a/x.png", "anomaly": 0}]}}',
            r"row 1: .*x\.png does not exist",
        ),
        ("i.txt", "", "is no index file"),
    ],
)
def test_bad_json_names_file_and_row(tree, name, text, message):
    with pytest.raises(DataError, match=message):
        read(tree / name, text)


def test_absolute_path_inside_the_root_is_fine(tree):
    text = f"image,label\n{tree / 'images/1.png'},1\n"
    assert [sample.image for sample in read(tree / "index.csv", text)] == [tree / "images/1.png"]


def test_root_is_the_first_candidate_that_holds_the_first_image(tree):
    index = index_files.Index((index_files.Row("images/1.png", "", 1, "", "", "test", "index.csv, line 2"),), False)
    assert index_files.find_root(index, (tree / "images", tree)) == tree
    with pytest.raises(DataError, match=r"line 2: image images/1\.png does not exist below .*images or .*masks"):
        index_files.find_root(index, (tree / "images", tree / "masks"))


def test_latin_1_file_is_an_error_not_a_crash(tree):
    (tree / "index.csv").write_bytes("image,label\nrißig.png,1\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"index\.csv cannot be read"):
        index_files.read_index(tree / "index.csv")
