"""The result cache: files are named by what their results depend on, and written atomically."""

import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from benchmarks import result_cache

CORE = "processor\t: {}\nvendor_id\t: {}\ncpu MHz\t\t: 2596.{}\nmodel name\t: {}\n\n"


def test_path_changes_with_anything_that_the_figures_depend_on(store: Path):
    assert result_cache.path_of({"steps": 2, "seed": 0}, "ab") == result_cache.path_of({"seed": 0, "steps": 2}, "ab")
    others: list[tuple[Any, ...]] = [({"steps": 2}, "ab"), ({"steps": 2}, "abc"), ({"steps": None}, "ab"), ("ab",)]
    assert len({result_cache.path_of(*arguments) for arguments in others}) == len(others)
    assert result_cache.path_of("ab", prefix="speed-").name == f"speed-{result_cache.path_of('ab').name}"
    assert result_cache.path_of("ab").parent == store


def test_write_interrupted_leaves_the_file_as_it_was(store: Path):
    path = result_cache.path_of("ab")
    result_cache.write(path, {"rounds": [1]})
    # A kill between the two steps leaves half a partial file.
    half = path.with_suffix(".partial")
    half.write_text('{"rounds": [1, ', encoding="utf-8")
    assert result_cache.read(path, dict) == {"rounds": [1]}
    result_cache.write(path, {"rounds": [1, 2]})
    assert result_cache.read(path, dict) == {"rounds": [1, 2]}
    assert set(store.iterdir()) == {path, half}, "a write leaves nothing of its own behind"


def test_read_when_nothing_was_kept_says_nothing(store: Path, capfd: pytest.CaptureFixture[str]):
    assert result_cache.read(result_cache.path_of("ab"), dict) is None
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("content", [b"", b'{"rounds": [1, ', b"\xff\xfe", b"7", b'{"told": {}}'])
def test_read_when_the_file_is_broken_says_so_in_a_line(store: Path, content: bytes, capfd: pytest.CaptureFixture[str]):
    path = result_cache.path_of("ab")
    store.mkdir()
    path.write_bytes(content)
    assert result_cache.read(path, lambda kept: kept["rounds"]) is None
    assert capfd.readouterr().out == f"{path}: truncated, or not written by this benchmark; measured anew\n"


def test_code_changes_with_the_files_that_are_named():
    assert result_cache.code("benchmarks/result_cache.py") != result_cache.code(
        "benchmarks/result_cache.py", "benchmarks/speed.py"
    )
    with pytest.raises(FileNotFoundError, match="no_such"):
        result_cache.code("benchmarks/no_such*.py")
    assert result_cache.code("benchmarks/result_c*.py") == result_cache.code("benchmarks/result_cache.py")


def test_versions_tell_what_is_not_installed_too():
    assert result_cache.versions("numpy", "no-such-package") == {"numpy": version("numpy"), "no-such-package": None}


def test_machine_tells_the_model_and_what_may_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert result_cache.machine()["processors"] == len(os.sched_getaffinity(0))
    models = []
    for name, megahertz in (("EPYC", 1), ("EPYC", 2), ("Xeon", 1)):
        path = tmp_path / f"{name}{megahertz}"
        path.write_text("".join(CORE.format(core, "its maker", megahertz, name) for core in (0, 1)), encoding="utf-8")
        monkeypatch.setattr(result_cache, "PROCESSORS", path)
        models.append(result_cache.machine()["model"])
    assert models[0] == models[1] == ["vendor_id\t: its maker", "model name\t: EPYC"]
    assert models[2] != models[0]
    # Where there is no such file, the system's own name of the architecture.
    monkeypatch.setattr(result_cache, "PROCESSORS", tmp_path / "nothing")
    assert all(result_cache.machine()["model"])
