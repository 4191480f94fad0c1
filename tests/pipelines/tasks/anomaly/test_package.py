"""The package: a complete one opens; a missing, altered or foreign file is refused in one line."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from pipelines.errors import BadPackage
from pipelines.registry.package import package_digest
from pipelines.storage.files import file_digest
from pipelines.tasks.anomaly.package import AnomalyPackage, read_card, write_card
from tests.pipelines.packages import make_package


@pytest.fixture(scope="module")
def package_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_package(tmp_path_factory.mktemp("package"), threshold=0.25, project="line_3", size=64)


@pytest.fixture
def folder(package_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(package_folder, tmp_path / "package"))


def change_card(folder: Path, **fields: object) -> None:
    card = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**card, **fields}))


def refuse(folder: Path, pattern: str) -> None:
    with pytest.raises(BadPackage, match=pattern) as caught:
        package = AnomalyPackage.open(folder)
        assert package.reference
        package.session()
    assert "\n" not in str(caught.value)


def test_open_when_complete_gives_card_graph_and_reference(folder):
    package = AnomalyPackage.open(folder)
    assert (package.card.project, package.card.threshold, package.card.input_size) == ("line_3", 0.25, 64)
    assert package.card.onnx_sha256 == file_digest(folder / "model.onnx")
    assert package.session().get_inputs()[0].name == "image"
    assert package.session() is package.session()
    assert package.reference["score"].shape == (24,)
    assert package.digest == package_digest(folder)


def test_open_when_the_weights_were_not_fetched_has_the_digest_of_the_whole(folder):
    whole = AnomalyPackage.open(folder).digest
    (folder / "model.keras").unlink()
    assert AnomalyPackage.open(folder).digest == whole


def test_digest_when_any_file_changes_is_another(folder):
    before = package_digest(folder)
    card = read_card(folder).model_dump(exclude={"files", "onnx_sha256"})
    assert write_card(folder, **card).threshold == 0.25
    assert package_digest(folder) == before
    write_card(folder, **{**card, "threshold": 0.26})
    assert package_digest(folder) != before


@pytest.mark.parametrize("name", ["model.json", "model.onnx", "reference.npz"])
def test_open_when_a_file_is_missing_names_it(folder, name):
    (folder / name).unlink()
    refuse(folder, rf"{name}: missing")


@pytest.mark.parametrize("name", ["model.onnx", "reference.npz", "model.keras"])
def test_open_when_a_file_was_altered_says_so(folder, name):
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    refuse(folder, rf"{name}: sha256 is .* model.json says .*; fetch the package again")


@pytest.mark.parametrize(
    ("fields", "pattern"),
    [
        ({"threshold": "high"}, "threshold: .*number"),
        ({"threshold": float("nan")}, "threshold: .*finite"),
        ({"format": 2}, "format: "),
        ({"resize": "crop"}, "resize: .*'fit', 'stretch', 'tile'"),
        ({"surprise": 1}, "surprise: "),
        ({"files": {"../model.onnx": "0" * 64}}, "files"),
        ({"files": {"model.keras": "0" * 64}}, "files does not name model.onnx"),
        ({"onnx_sha256": "0" * 64}, "onnx_sha256 and files"),
        ({"created_at": "2026-01-01T00:00:00"}, "created_at: .*timezone"),
    ],
)
def test_open_when_the_card_does_not_hold_names_the_field(folder, fields, pattern):
    change_card(folder, **fields)
    refuse(folder, pattern)


@pytest.mark.parametrize("detail", [{}, {"promise_kept_at": 0.01}, {"form": "of an older version"}])
def test_open_when_an_older_version_wrote_how_the_threshold_was_set_then_serves_without(folder, detail):
    card = {**read_card(folder).model_dump(exclude={"files", "onnx_sha256"}), "threshold_detail": detail}
    write_card(folder, **card)
    assert AnomalyPackage.open(folder).card.threshold_detail is None


def test_open_when_the_card_is_no_json_says_so(folder):
    (folder / "model.json").write_bytes(b"\x80")
    refuse(folder, r"model.json: file: Invalid JSON")


def test_session_when_the_graph_is_no_graph_says_so(folder):
    (folder / "model.onnx").write_bytes(b"not a graph")
    write_card(folder, **read_card(folder).model_dump(exclude={"files", "onnx_sha256"}))
    refuse(folder, "not a graph that ONNX Runtime can load")


@pytest.mark.parametrize("change", ["size", "name", "output"])
def test_session_when_the_graph_is_of_another_make_says_what_it_takes(folder, change):
    graph = onnx.load(folder / "model.onnx")
    if change == "size":
        change_card(folder, input_size=128)
    elif change == "name":
        graph.graph.input[0].name = "picture"
        graph.graph.node[0].input[0] = "picture"
    else:
        graph.graph.output.pop()
    onnx.save(graph, folder / "model.onnx")
    write_card(folder, **read_card(folder).model_dump(exclude={"files", "onnx_sha256"}))
    expected = {"size": r"not \[N, 128, 128, 3\]", "name": "takes `picture`", "output": "does not give embedding"}
    refuse(folder, expected[change])


def test_reference_when_it_holds_pickles_is_not_read(folder):
    np.savez(folder / "reference.npz", score=np.array([{"code": "runs"}], dtype=object))
    write_card(folder, **read_card(folder).model_dump(exclude={"files", "onnx_sha256"}))
    refuse(folder, "reference.npz: .*(allow_pickle|not a file|not readable|embedding)")


def test_reference_when_its_arrays_differ_in_length_says_their_shapes(folder):
    arrays = dict(np.load(folder / "reference.npz"))
    np.savez(folder / "reference.npz", **{**arrays, "sha256": arrays["sha256"][:3]})
    write_card(folder, **read_card(folder).model_dump(exclude={"files", "onnx_sha256"}))
    refuse(folder, r"do not fit together \(.*sha256 \[3\]")


def test_write_card_when_a_file_is_missing_writes_no_card(folder):
    card = read_card(folder).model_dump(exclude={"files", "onnx_sha256"})
    (folder / "model.json").unlink()
    (folder / "reference.npz").unlink()
    with pytest.raises(BadPackage, match="reference.npz: missing"):
        write_card(folder, **card)
    assert not (folder / "model.json").exists()
