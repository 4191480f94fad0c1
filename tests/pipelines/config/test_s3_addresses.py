"""Which S3 keys and prefixes are accepted from people."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.config.project import Project
from pipelines.config.s3_addresses import LONGEST_KEY, key_problem, split_prefix

REFUSED = {
    "": "empty",
    "../../secrets.env": "segment '..'",
    "..": "segment '..'",
    "a/../b.png": "segment '..'",
    "a/./b.png": "segment '.'",
    "a/..": "segment '..'",
    "a\\..\\b.png": "segment '..'",
    "a/%2e%2E/b.png": "segment '..'",
    "a/%252e%252e/b.png": "segment '..'",
    "..%2f..%2fb.png": "segment '..'",
    "/etc/passwd": "slash",
    "a//b.png": "slash",
    "a///": "slash",
    "a/%2Fb.png": "slash",
    "a/": "folder",
    "a\x00.png": "control",
    "a\n.png": "control",
    "a\x7f.png": "control",
    "a\x85.png": "control",
    "a%00.png": "control",
    "a\ud800.png": "Unicode",
    "x" * (LONGEST_KEY + 1): "1,025 bytes",
    "ü" * (LONGEST_KEY // 2 + 1): "1,026 bytes",
}


@pytest.mark.parametrize("key", REFUSED)
def test_key_when_it_could_be_read_as_another_then_said_why(key: str):
    assert REFUSED[key] in str(key_problem(key))


@pytest.mark.parametrize(
    "key",
    ["a.png", "line/inbox/good/7.png", "Prüf 1+2&x.png", ".hidden/..a/b..png/...", "100%.png", "a?b#c.png"]
    + ["x" * LONGEST_KEY, "ü" * (LONGEST_KEY // 2)],
)
def test_key_when_plain_then_accepted(key: str):
    assert key_problem(key) is None


@given(st.text())
def test_key_when_any_text_then_judged_and_what_is_accepted_has_plain_segments(key: str):
    if key_problem(key) is None:
        assert not set(key.split("/")) & {"", ".", ".."}
        assert len(key.encode()) <= LONGEST_KEY


def test_prefix_when_read_then_bucket_and_prefix():
    assert split_prefix("s3://cameras/hall-3/") == ("cameras", "hall-3/")
    assert split_prefix("s3://cameras/") == ("cameras", "")


@pytest.mark.parametrize(
    "address",
    [
        "", "cameras/hall/", "http://cameras/hall/", "s3://", "s3://cameras", "s3:///hall/", "s3://Cameras/hall/",
        "s3://cameras/hall", "s3://cameras/../", "s3://cameras/a/../b/", "s3://cameras//", "s3://cameras/a//b/",
        "s3://cameras/a\x00b/", "s3://cameras/*/", "s3://ca/", "s3://cameras/" + "x" * 1100 + "/",
    ],
)  # fmt: skip
def test_prefix_when_wrong_then_refused_with_what_to_write(address: str):
    with pytest.raises(ValueError, match="s3://|wildcard"):
        split_prefix(address)


def project(**keys: Any) -> Project:
    return Project(name="line", bucket="own", **keys)


def test_project_when_asked_then_reads_its_own_folder_and_what_it_lists_alone():
    lines = project(read_from=["s3://own/shared/", "s3://cameras/hall-3/"])
    for bucket, key in (("own", "line/a.png"), ("own", "shared/b/a.png"), ("cameras", "hall-3/a.png")):
        assert lines.may_read(bucket, key)
    for bucket, key in (
        ("own", "other/a.png"), ("own", "line"), ("own", "line2/a.png"), ("own", "a.png"), ("own", "sharedx/a.png"),
        ("cameras", "line/a.png"), ("cameras", "hall-31/a.png"), ("another", "line/a.png"),
    ):  # fmt: skip
        assert not lines.may_read(bucket, key), (bucket, key)
    assert not project().may_read("own", "shared/a.png")
