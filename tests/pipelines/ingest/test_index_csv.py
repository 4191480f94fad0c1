"""index.csv: parsing of arbitrary content, error messages, and the metadata of each image."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.config.project import Project
from pipelines.ingest.index_csv import BadIndex, Index, describe, read_index, read_time

PROJECT = Project(name="line", timezone="Europe/Berlin")


def test_read_index_when_written_by_anyone_then_gives_rows_by_path():
    text = "\ufeffFile; Split ;group\r\n./a.png;train;g1\r\nsub\\b.png;test;\r\n;;\r\n"
    index = read_index(text.encode(), "good/x")
    assert index.rows == {
        "good/x/a.png": {"split": "train", "group": "g1"},
        "good/x/sub/b.png": {"split": "test", "group": ""},
    }
    assert read_index(b'path,note\n"a, b.png","one\ntwo"', "").rows == {"a, b.png": {"note": "one\ntwo"}}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no column 'file'"),
        (b"a,b\n1,2", "it has a, b"),
        (b"\xff\xfe\x00f", "UTF-8"),
        (b"PK\x03\x04\xff", "UTF-8"),
    ],
)
def test_read_index_when_it_cannot_be_used_then_says_what_to_do(data: bytes, message: str):
    with pytest.raises(BadIndex, match=message) as error:
        read_index(data, "")
    assert ": " in str(error.value)


@settings(max_examples=300)
@given(st.one_of(st.binary(max_size=300), st.text(max_size=300).map(lambda text: b"file,split\n" + text.encode())))
def test_read_index_when_bytes_are_any_then_gives_rows_or_bad_index(data: bytes):
    try:
        index = read_index(data, "good")
    except BadIndex:
        return
    for path in index.rows:
        describe(path, [index], PROJECT)


@settings(max_examples=200)
@given(st.text(max_size=30))
def test_read_time_when_text_is_any_then_gives_a_time_with_zone_or_value_error(text: str):
    try:
        moment = read_time(text, "Europe/Berlin")
    except ValueError:
        return
    assert moment.tzinfo is not None


def describe_row(row: dict[str, str], project: Project = PROJECT, path: str = "good/a.png"):
    return describe(path, [Index("good", {path: row})], project)


def test_describe_when_values_are_good_then_takes_them():
    metadata = describe_row(
        {"split": "Train", "group": "lot 7", "acquired_at": "2026-07-01 08:00:00", "subset": "test"}
    )
    assert (metadata.split, metadata.group, metadata.asked) == ("train", "lot 7", "test")
    assert metadata.acquired_at == "2026-07-01T08:00:00+02:00"
    assert metadata.notes == ()


def test_describe_when_values_are_wrong_then_leaves_them_out_and_says_so():
    metadata = describe_row({"split": "maybe", "acquired_at": "yesterday", "subset": "all"})
    assert (metadata.split, metadata.acquired_at, metadata.asked) == (None, None, None)
    assert len(metadata.notes) == 3


def test_describe_when_indexes_are_nested_then_the_deeper_wins():
    outer = Index("", {"good/a.png": {"split": "train", "group": "outer"}})
    inner = Index("good", {"good/a.png": {"group": "inner", "split": ""}})
    metadata = describe("good/a.png", [outer, inner], PROJECT)
    assert (metadata.split, metadata.group) == ("train", "inner")


@pytest.mark.parametrize(
    ("regex", "path", "group"),
    [
        (r"/crate-(\d+)", "good/crate-12/a.png", "12"),
        (r"(?P<x>\w)-(?P<group>\d+)", "good/a-7.png", "7"),
        (r"/crate-(\d+)", "good/a.png", None),
        (r"/crate-(\d*)", "good/crate-/a.png", None),
    ],
)
def test_describe_when_the_group_is_a_pattern_then_it_is_searched_in_the_path(regex, path, group):
    project = Project(name="line", group={"regex": regex})
    assert describe_row({}, project, path).group == group
    assert describe_row({"group": "said"}, project, path).group == "said"


def test_describe_when_the_group_is_a_column_then_it_is_taken_whatever_its_case():
    project = Project(name="line", group={"column": "Location"})
    assert describe_row({"location": "277500_315"}, project).group == "277500_315"
    assert describe_row({"location": ""}, project).group is None
