"""Storage against a real S3 endpoint."""

import urllib.request
from pathlib import Path

import pytest

from pipelines.errors import NotFound, StorageError
from pipelines.storage.s3 import Storage, read_uri, split_uri


def test_get_when_put_returns_the_bytes(bucket: str) -> None:
    storage = Storage(bucket)
    uri = storage.put("a/b.bin", b"\x00\xffimage", "image/png")
    assert uri == f"s3://{bucket}/a/b.bin"
    assert storage.get("a/b.bin") == read_uri(uri) == b"\x00\xffimage"
    assert storage.size("a/b.bin") == 7


def test_get_when_missing_raises_not_found_naming_the_address(bucket: str) -> None:
    with pytest.raises(NotFound, match=rf"s3://{bucket}/none is not there"):
        Storage(bucket).get("none")
    assert not Storage(bucket).exists("none")


def test_exists_when_the_server_is_down_raises(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match="AWS_ENDPOINT_URL") as caught:
        Storage(bucket).exists("a")
    assert caught.value.passing
    assert not isinstance(caught.value, NotFound)


def test_put_new_when_there_keeps_the_first(bucket: str) -> None:
    storage = Storage(bucket)
    assert storage.put_new("one", b"first")
    assert not storage.put_new("one", b"second")
    assert storage.get("one") == b"first"


def test_list_when_many_returns_all_in_order_after_the_start(bucket: str) -> None:
    storage = Storage(bucket)
    for number in range(12):
        storage.put(f"inbox/{number:02}", b"x")
    storage.put("other/1", b"x")
    assert [item.key for item in storage.list("inbox/", start_after="inbox/08")] == [
        f"inbox/{n:02}" for n in (9, 10, 11)
    ]
    assert len(list(storage.list("inbox/"))) == 12


def test_upload_and_download_when_large_keep_the_content(bucket: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(bytes(range(256)) * 150_000)  # over the multipart threshold
    storage = Storage(bucket)
    storage.upload(source, "big")
    target = storage.download("big", tmp_path / "deep" / "target")
    assert target.read_bytes() == source.read_bytes()
    assert [path.name for path in target.parent.iterdir()] == ["target"]


def test_download_when_missing_leaves_no_file(bucket: str, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        Storage(bucket).download("none", tmp_path / "target")
    assert list(tmp_path.glob("*")) == []


def test_copy_and_delete_when_done_move_the_object(bucket: str) -> None:
    storage = Storage(bucket)
    storage.put("from", b"content")
    storage.copy("from", "rejected/from")
    storage.delete("from")
    storage.delete("from")
    assert storage.get("rejected/from") == b"content"
    assert not storage.exists("from")


def test_ensure_bucket_when_there_does_nothing(bucket: str) -> None:
    Storage(bucket).put("kept", b"1")
    Storage(bucket).ensure_bucket()
    assert Storage(bucket).get("kept") == b"1"


@pytest.mark.parametrize("uri", ["", "bucket/key", "http://bucket/key", "s3://bucket", "s3:///key"])
def test_split_uri_when_not_an_address_says_how_to_write_one(uri: str) -> None:
    with pytest.raises(NotFound, match="write s3://bucket/key"):
        split_uri(uri)


def test_put_small_when_written_then_as_put_writes_it_and_what_fails_is_told(bucket: str):
    storage = Storage(bucket)
    for number in range(3):  # over the same connection
        storage.put_small(f"a b/ü+~{number}.png", b"image %d" % number, "image/png")
    assert [storage.get(f"a b/ü+~{number}.png") for number in range(3)] == [b"image 0", b"image 1", b"image 2"]
    with urllib.request.urlopen(storage.url("a b/ü+~1.png")) as answer:
        assert answer.headers["Content-Type"] == "image/png"
    with pytest.raises(NotFound, match="no-such-bucket"):
        Storage("no-such-bucket").put_small("key", b"data")
