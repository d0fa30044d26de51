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


def test_windows_paths_of_a_meta_json_are_found_by_suffix_too(tree, monkeypatch):
    author = "C:\\Users\\me\\data\\CVC-ClinicDB"
    rows = [meta_row(f"{author}\\images\\1.png", f"{author}\\masks\\1.png", 1), meta_row("D:/x/images/good.png")]
    monkeypatch.chdir(tree)  # where C:/Users could be taken for a relative path
    assert names(read(tree / "meta.json", json.dumps({"train": {}, "test": {"tile": rows}})), tree) == EXPECTED


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
        ("image;label\nimages/1.png;1\n", "line 1: its columns are separated by semicolons; expected commas"),
        ("image\tlabel\nimages/1.png\t1\n", "line 1: its columns are separated by tabs"),
        ("image,label,crop\nimages/1.png,1,0-0-4\n", "line 2: the crop is '0-0-4'; expected top-left-bottom-right"),
        ("image,label,crop\nimages/1.png,1,4-0-4-9\n", "line 2: the crop is '4-0-4-9'"),
        ("image,label,mask_rule\nimages/1.png,1,gt1\n", "line 2: the mask_rule is 'gt1'; expected one of gt0, gt127"),
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
    index = index_files.Index(
        (index_files.IndexRow("images/1.png", (), 1, "", "", "test", "index.csv, line 2"),), False
    )
    assert index_files.find_root(index, (tree / "images", tree)) == tree
    with pytest.raises(DataError, match=r"line 2: image images/1\.png does not exist below .*images or .*masks"):
        index_files.find_root(index, (tree / "images", tree / "masks"))


def test_latin_1_file_is_an_error_not_a_crash(tree):
    (tree / "index.csv").write_bytes("image,label\nrißig.png,1\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"index\.csv cannot be read"):
        index_files.read_index(tree / "index.csv")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le"])
def test_utf_16_is_called_so(tree, encoding):
    (tree / "index.csv").write_bytes("image,label\nimages/1.png,1\n".encode(encoding))
    with pytest.raises(DataError, match=r"index\.csv is UTF-16 text; expected UTF-8"):
        index_files.read_index(tree / "index.csv")


def test_parts_of_an_image_and_lists_of_masks_are_read(tree):
    rows = [
        {"image": "images/1.png", "label": 1, "mask": ["masks/1.png", "masks/10.png"], "crop": [0, 0, 4, 9]},
        {"image": "images/1.png", "label": 0, "mask": None, "crop": "4-0-8-9"},
    ]
    first, second = read(tree / "i.jsonl", "\n".join(map(json.dumps, rows)))
    assert first.masks == (tree / "masks/1.png", tree / "masks/10.png") and first.crop == (0, 0, 4, 9)
    assert second.masks == () and second.crop == (4, 0, 8, 9)
    with pytest.raises(DataError, match=r"line 3: image images/1\.png is also in .*line 2"):
        read(tree / "i.jsonl", "\n".join(map(json.dumps, [rows[0], rows[1], rows[1]])))


def test_mask_rule_holds_for_the_whole_set(tree):
    text = "image,label,mask_rule\nimages/1.png,1,gt0\nimages/good.png,0,{}\n"
    read(tree / "i.csv", text.format("gt0"))
    assert index_files.read_index(tree / "i.csv").mask_rule == "gt0"
    read(tree / "i.csv", text.format(""))
    with pytest.raises(DataError, match=r"line 3: the mask_rule is None, but gt0 in .*line 2"):
        index_files.read_index(tree / "i.csv").mask_rule  # noqa: B018


@pytest.mark.parametrize("known", [True, False])
def test_absolute_paths_that_lie_elsewhere_are_told_about_the_data_root(tree, tmp_path_factory, known):
    lists, top = tmp_path_factory.mktemp("a") / "b/lists", tree if known else "/home/author/tiles"
    lists.mkdir(parents=True)
    (lists / "index.csv").write_text(f"image,mask,label\n{top}/images/1.png,{top}/masks/1.png,1\n")
    index = index_files.read_index(lists / "index.csv")
    expected = f"--data-root {tree}$" if known else "of another machine; expected paths relative to the index file"
    with pytest.raises(DataError, match=f"line 2: .*images/1.png lies outside .*lists.*{expected}"):
        index_files.find_root(index, index_files.roots(lists / "index.csv"))
    if known:
        assert index_files.find_root(index, index_files.roots(lists / "index.csv", tree)) == tree


def test_split_file_in_a_folder_of_its_own_has_paths_from_the_folder_above(tree):
    (tree / "split_csv").mkdir()
    (tree / "split_csv/1cls.csv").write_text(
        "object,split,label,image,mask\ntile,test,anomaly,images/1.png,masks/1.png\n"
    )
    path = tree / "split_csv/1cls.csv"
    assert index_files.find_root(index_files.read_index(path), index_files.roots(path)) == tree
