"""Atomic writes and digests of local files."""

import hashlib
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipelines.storage.files import file_digest, write_atomically


def test_write_when_a_mode_is_given_sets_it_and_leaves_nothing_beside_the_file(tmp_path):
    write_atomically(tmp_path / "secret", "x", mode=0o600, durable=True)

    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


def test_write_when_the_file_exists_replaces_text_by_bytes(tmp_path):
    write_atomically(tmp_path / "note", "größer")
    assert (tmp_path / "note").read_text(encoding="utf-8") == "größer"

    write_atomically(tmp_path / "note", b"\x00\xff")
    assert (tmp_path / "note").read_bytes() == b"\x00\xff"


def test_write_when_it_fails_keeps_the_path_and_leaves_nothing_beside_it(tmp_path):
    (tmp_path / "taken").mkdir()

    with pytest.raises(OSError, match="taken"):
        write_atomically(tmp_path / "taken", "x")

    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_write_when_threads_write_the_same_file_leaves_one_of_their_texts(tmp_path):
    texts = [str(number) * 10_000 for number in range(8)]

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda text: write_atomically(tmp_path / "shared", text), texts))

    assert (tmp_path / "shared").read_text() in texts
    assert len(list(tmp_path.iterdir())) == 1


def test_digest_when_taken_is_that_of_the_content(tmp_path):
    (tmp_path / "file").write_bytes(b"content")

    assert file_digest(tmp_path / "file") == hashlib.sha256(b"content").hexdigest()
