"""The plan of an import for a classifier: classes by folder and index.csv, splits, spellings, and the import itself."""

from collections import Counter
from pathlib import Path

import pytest

from pipelines.ingest.folder_maps import read_maps
from pipelines.ingest.import_folder import import_folder, main
from pipelines.ingest.import_plan import BadFolder, ImportPlan
from pipelines.ingest.plan_import import plan_import
from tests.pipelines.ingest.conftest import Line, image_file


def draw(folder: Path, *places: str, count: int = 8) -> Path:
    """Write `count` images into each place."""
    for place in places:
        (folder / place).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            seed = hash((place, number)) % 2**31
            (folder / place / f"{number}.png").write_bytes(image_file(seed))
    return folder


def plan(folder: Path, *maps: str, known=()) -> ImportPlan:
    return plan_import(folder, read_maps(maps), task="classification", known=known)


def found(made: ImportPlan) -> dict:
    return dict(Counter((image.label, image.split) for image in made.images))


def test_plan_when_folders_are_classes_takes_each_as_one(tmp_path):
    made = plan(draw(tmp_path, "amanita muscaria", "Boletus edulis/2026/site 4", "normal", "unlabeled"))
    assert made.problems == ()
    assert found(made) == {("amanita muscaria", None): 8, ("Boletus edulis", None): 8, ("normal", None): 8} | {
        (None, None): 8
    }
    made.check()


@pytest.mark.parametrize("form", ["{split}/{label}", "{label}/{split}", "data/{split}/images/{label}"])
def test_plan_when_there_are_splits_keeps_them(tmp_path, form):
    splits = {"train": "train", "val": "validation", "test": "test"}
    draw(tmp_path, *(form.format(split=split, label=label) for split in splits for label in ("a", "b")))
    made = plan(tmp_path)
    assert made.problems == ()
    assert found(made) == {(label, split): 8 for label in ("a", "b") for split in splits.values()}


def test_plan_when_the_folder_holds_one_of_its_own_name_looks_into_it(tmp_path):
    made = plan(draw(tmp_path / "caps", "caps/a", "caps/b"))
    assert {image.label for image in made.images} == {"a", "b"}
    made = plan(draw(tmp_path / "other", "set 3/train/a", "set 3/test/a", "set 3/train/b", "set 3/test/b"))
    assert {image.label for image in made.images} == {"a", "b"}


def test_plan_when_an_index_lies_above_the_only_folder_reads_it(tmp_path):
    draw(tmp_path, "images/train/x", "images/test/x")
    (tmp_path / "index.csv").write_text("file,label\nimages/train/x/0.png,a\n")
    assert found(plan(tmp_path)) == {("a", "train"): 1, ("x", "train"): 7, ("x", "test"): 8}


def test_plan_when_a_test_split_has_no_folders_leaves_it_unlabelled(tmp_path):
    made = plan(draw(tmp_path, "train/a", "train/b", "test"))
    assert made.problems == ()
    assert found(made)[None, "test"] == 8


@pytest.mark.parametrize("folder", ["good", "Anomaly", "damage"])
def test_plan_when_a_folder_cannot_be_a_class_says_so_and_takes_a_map(tmp_path, folder):
    draw(tmp_path, "a", "b", folder)
    (problem,) = plan(tmp_path).problems
    assert "no name of a class" in problem
    assert "CLASS" in problem
    assert plan(tmp_path, f"{folder}=sound").problems == ()


def test_plan_when_images_lie_beside_the_classes_asks(tmp_path):
    draw(tmp_path, "a", "b", ".")
    (problem,) = plan(tmp_path).problems
    assert "no folder of a class" in problem
    assert plan(tmp_path, ".=c", "a=a", "b=b").problems == ()
    assert {image.label for image in plan(tmp_path, ".=ignore", "a=a", "b=unlabelled", "b=unlabelled").images} == {
        "a",
        None,
    }


def test_plan_when_labels_differ_in_spelling_asks_with_the_words_to_type(tmp_path):
    draw(tmp_path, "train/Amanita muscaria", "test/Amanita muscaria", "train/amanita_muscaria", "train/b", "test/b")
    draw(tmp_path, "test/AMANITA-muscaria", count=2)
    (problem,) = plan(tmp_path).problems
    assert "'AMANITA-muscaria', 'amanita_muscaria' and 'Amanita muscaria'" in problem
    words = problem.partition('MAP="')[2].partition('"')[0]
    made = plan(tmp_path, words)
    assert made.problems == ()
    assert found(made)["Amanita muscaria", "train"] == 16
    assert found(made)["Amanita muscaria", "test"] == 10
    with pytest.raises(BadFolder, match="differ only in case"):
        plan(tmp_path).check()


def test_plan_when_a_spelling_differs_from_a_class_of_the_project_asks(tmp_path):
    draw(tmp_path, "boletus_edulis", "russula")
    (problem,) = plan(tmp_path, known=["boletus edulis"]).problems
    assert 'MAP="boletus_edulis=boletus edulis"' in problem
    assert plan(tmp_path, known=["boletus_edulis"]).problems == ()


def test_plan_when_spellings_of_an_index_differ_a_map_names_the_label(tmp_path):
    draw(tmp_path, "photos", count=20)
    rows = [f"photos/{number}.png,{'Fly agaric' if number < 12 else 'fly_agaric'}" for number in range(19)]
    (tmp_path / "index.csv").write_text("\n".join(["file,label", *rows, "photos/19.png,russula"]))
    (problem,) = plan(tmp_path).problems
    assert 'MAP="fly_agaric=Fly agaric"' in problem
    made = plan(tmp_path, "fly_agaric=Fly agaric")
    assert made.problems == ()
    assert found(made) == {("Fly agaric", None): 19, ("russula", None): 1}


def test_plan_when_an_index_labels_images_goes_before_their_folder(tmp_path):
    draw(tmp_path, "a", "b")
    (tmp_path / "index.csv").write_text("file,label,split\na/0.png,b,test\na/1.png,unlabelled,\n")
    made = plan(tmp_path)
    assert made.problems == ()
    assert found(made) == {("a", None): 6, ("b", None): 9, (None, None): 1}
    (tmp_path / "index.csv").write_text("file,label\na/0.png,good\n")
    assert "index.csv" in plan(tmp_path).problems[0]


def test_plan_when_there_is_one_class_only_says_so_unless_the_project_has_others(tmp_path):
    draw(tmp_path, "a", "unlabelled")
    (problem,) = plan(tmp_path).problems
    assert "'a' is the only class" in problem
    assert plan(tmp_path, known=["a", "b"]).problems == ()
    assert plan(tmp_path, known=["a"]).problems


def test_plan_when_test_has_a_class_that_training_does_not_names_it(tmp_path):
    draw(tmp_path, "train/a", "train/b", "test/a", "test/c")
    (problem,) = plan(tmp_path).problems
    assert "'c'" in problem
    assert "training" in problem
    assert plan(tmp_path, "test/c=ignore").problems == ()
    assert plan(tmp_path, known=["c"]).problems == ()


def test_plan_when_a_class_is_small_notes_it(tmp_path):
    draw(tmp_path, "a", "b")
    draw(tmp_path, "c", count=3)
    made = plan(tmp_path)
    assert made.problems == ()
    assert any("at least 8" in note and "'c' (3)" in note for note in made.notes)


def test_plan_when_a_class_is_called_like_a_split_asks_and_takes_a_map(tmp_path):
    draw(tmp_path, "bus", "train")
    assert "train/ holds images" in plan(tmp_path).problems[0]
    assert found(plan(tmp_path, "train=train")) == {("bus", None): 8, ("train", None): 8}


def test_plan_when_a_map_is_none_or_fits_nothing_says_so(tmp_path):
    draw(tmp_path, "a", "b")
    with pytest.raises(BadFolder, match="no folder 'c'"):
        plan(tmp_path, "c=a")
    with pytest.raises(BadFolder, match="no name of a class"):
        plan(tmp_path, "a=good")


def test_plan_when_the_folder_is_empty_says_what_to_give(tmp_path):
    with pytest.raises(BadFolder, match="a folder for each class"):
        plan(tmp_path).check()


def test_import_when_names_cannot_be_folders_arrive_as_they_are(make_line, database, tmp_path, capsys):
    line: Line = make_line(task="classification")
    draw(tmp_path, "train/amanita muscaria", "test/amanita muscaria", 'train/the "big" one?', "train/Röhrling.part")
    imported = import_folder(tmp_path, "line")
    assert imported.images == {"Röhrling.part": 8, "amanita muscaria": 16, 'the "big" one?': 8}
    summary = line.ingest()
    assert (summary["accepted"], summary["rejected"], summary["unlabelled"]) == (32, 0, 0)
    counts = Counter(row["label"] for row in line.labelled)
    assert counts == {"Röhrling.part": 8, "amanita muscaria": 16, 'the "big" one?': 8}
    assert Counter(row["subset"] for row in line.labelled)["test"] == 8
    assert line.keys("inbox") == []
    draw(tmp_path / "more", "Amanita_Muscaria")
    assert main([str(tmp_path / "more"), "line", "--plan"]) == 1
    assert "differ only in case" in capsys.readouterr().out
