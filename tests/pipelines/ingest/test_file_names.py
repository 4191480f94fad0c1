"""Names of files that ingest and import leave where they are."""

import pytest

from pipelines.ingest.file_names import left_alone, reserved


@pytest.mark.parametrize(
    "path",
    ["good/.DS_Store", "good/.ds_store", "Thumbs.db", "good/THUMBS.DB", "good/Desktop.ini", "good/._7.png"]
    + ["__MACOSX/good/7.png", ".Spotlight-V100/Store-V2/7.png", "$RECYCLE.BIN/7.png", "good/@eaDir/7.png/thumb.jpg"]
    + ["good/7.png:Zone.Identifier", "good/.gitkeep", "good/.keep"],
)
def test_left_alone_when_it_is_the_systems_says_so(path: str):
    assert left_alone(path) == "system"


@pytest.mark.parametrize(
    "path",
    ["good/.7.png.Xk3b2Q", "good/.hidden.png", "good/7.png.part", "good/7.png.PART", "good/7.filepart", "7.png.tmp"]
    + ["good/7.png.crdownload", "good/7.png.partial", "good/7.png.!ut", "good/~$index.csv", "good/.~lock.index.csv#"]
    + ["good/index.csv.swp", ".index.csv.swp", "good/index.csv~", ".rsync-partial/7.png", "good/7.png.download/7.png"],
)
def test_left_alone_when_a_copy_is_not_finished_says_so(path: str):
    assert left_alone(path) == "unfinished"


@pytest.mark.parametrize(
    "path",
    ["good/7.png", "good/tmp/7.png", "anomaly/part/7.png", "good/part-7.png", "good/lot.tmp/7.png", "good/a..png"]
    + ["good/index.csv", "anomaly/recycled/7.png", "good/../x.png", "good/7", "good/notes.txt"],
)
def test_left_alone_when_it_is_an_ordinary_file_is_none(path: str):
    assert left_alone(path) is None


def test_reserved_when_an_unfinished_copy_lies_beside_names_the_file():
    assert reserved(["good/a.png", "good/a.png.part", "good/b.png", "c.png.aria2"]) == {"good/a.png"}
