"""`--map`: what folders are, by name, path and pattern."""

from pathlib import Path

import pytest

from pipelines.ingest.folder_maps import read_maps
from pipelines.ingest.import_plan import BadFolder
from pipelines.ingest.plan_import import plan_import
from tests.pipelines.ingest.test_plan_import import counts, draw


@pytest.mark.parametrize(
    ("maps", "expected"),
    [
        ({"*": "good", "1": "anomaly/dent"}, {"anomaly/dent": 1, "good": 2}),
        ({"1": "anomaly/dent", "*": "good"}, {"anomaly/dent": 1, "good": 2}),
        ({"0": "GOOD", "1": "Anomaly/Dent", "X Y": "ignore"}, {"anomaly/Dent": 1, "good": 1}),
        ({"[01]": "good", "x y": "anomaly/ dent /"}, {"anomaly/dent": 1, "good": 2}),
        ({".": "unlabelled"}, {"unlabelled": 3}),
        ({"*": "unlabelled", ".": "good"}, {"unlabelled": 3}),
    ],
)
def test_map_when_several_fit_then_names_go_before_patterns(tmp_path: Path, maps, expected):
    assert counts(plan_import(draw(tmp_path, "0/a.png", "1/b.png", "x y/c.png"), maps)) == expected


@pytest.mark.parametrize("name", ["Los [3]", "größe", "gro\u0308ße", "a=b", "50% & Co"])
def test_map_when_a_name_is_odd_then_it_is_taken_as_written(tmp_path: Path, name: str):
    draw(tmp_path, f"{name}/a.png", "other/b.png")
    written = name.replace("o\u0308", "ö")
    assert counts(plan_import(tmp_path, read_maps([f"{written}=good", "other=anomaly/x"]))) == {
        "anomaly/x": 1,
        "good": 1,
    }


def test_map_when_paths_are_absolute_or_the_root_lies_deeper_then_they_fit(tmp_path: Path):
    folder = draw(tmp_path / "data", "vendor/train/good/a.png", "vendor/test/x/b.png", "vendor/test/good/c.png")
    for path in ("vendor/test/x", "./vendor/test/x/", str(folder / "vendor/test/x"), "test/x"):
        assert counts(plan_import(folder, {path: "anomaly/dent"})) == {"anomaly/dent": 1, "good": 2}, path


@pytest.mark.parametrize(
    "maps",
    [
        {"0": "anomaly/a/b"},
        {"0": "anomaly/good"},
        {"0": "anomaly/ok"},
        {"0": "anomaly/..\\x"},
        {"0": "anomaly/a\nb"},
        {"0": "anomaly/" + "t" * 200},
        {"": "good"},
        {"../0": "good"},
        {"0/a.png": "good"},
        {"0": ""},
    ],
)
def test_map_when_it_makes_no_sense_then_refuses(tmp_path: Path, maps):
    with pytest.raises(BadFolder, match="--map"):
        plan_import(draw(tmp_path, "0/a.png"), maps)


def test_map_when_a_folder_is_ignored_then_its_annotations_are_too(tmp_path: Path):
    draw(tmp_path, "good/a.png", "bad/b.png")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "x.json").write_text("{")
    assert plan_import(tmp_path).problems
    assert counts(plan_import(tmp_path, {"old": "ignore"})) == {"anomaly/anomaly": 1, "good": 1}


@pytest.mark.parametrize(
    ("texts", "maps"),
    [
        (["a=good;b=anomaly/x"], {"a": "good", "b": "anomaly/x"}),
        ([" a = good ", ";;"], {"a": "good"}),
        (["a=b=good"], {"a=b": "good"}),
        (["a=anomaly/b=c"], {"a": "anomaly/b=c"}),
        (["a=good", "a=good"], {"a": "good"}),
    ],
)
def test_read_maps_when_texts_are_odd_then_reads_what_they_mean(texts, maps):
    assert read_maps(texts) == maps


@pytest.mark.parametrize("texts", [["good"], ["=good"], ["a=good;b"], ["a=good", "a=anomaly"]])
def test_read_maps_when_texts_make_no_sense_then_refuses(texts):
    with pytest.raises(BadFolder, match="--map"):
        read_maps(texts)
