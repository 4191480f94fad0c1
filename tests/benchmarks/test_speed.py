"""The speed benchmark, run completely on a tiny size: it prints what it measured, and times no round twice."""

import contextlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest

from benchmarks import result_cache, speed
from benchmarks.speed import arithmetic, figures, sentence, table
from benchmarks.timed import ExportedGraph, Figures, NotTimed, Turn
from tests.benchmarks.conftest import write_set

ROUND = {
    "ours": {"step": 0.2, "processor": 0.3, "streamed": 0.25, "waited": 0.005, "made": 0.05, "process": 10**9},
    "product": {"rate": 1e12},
    "graph": {f"{name}_{count}": 0.01 for name in ("score", "bare", "int8_score") for count in (1, 16)},
}
FACTS = {"batch_size": 16, "precision": "float32", "operations": 10**9, "graph": True}
SIZES = ["--input-size", "32", "--batch-size", "4", "--steps", "2", "--threads", "1"]
OTHER = {"float32": "mixed_bfloat16", "mixed_bfloat16": "float32"}
Lines = Callable[[], list[str]]
Interrupt = Callable[[int], None]


class Run(NamedTuple):
    """A complete run: the set, the cache file, the printed output and the JSON that it wrote."""

    parts: Path
    file: Path
    printed: str
    written: dict[str, Any]


class Interrupted(Turn):
    """A process that interrupts the run after `rounds` timings, or at its start for 0."""

    rounds: ClassVar[int]
    left: int

    def __init__(self, kind: Any, job: dict[str, Any]) -> None:
        if not self.rounds:
            raise KeyboardInterrupt
        self.left = self.rounds
        super().__init__(kind, job)

    def round(self) -> Figures:
        """Return the figures of a round, unless the run is to be interrupted."""
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        return super().round()


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Time two rounds, once for all tests."""
    folder = tmp_path_factory.mktemp("speed")
    parts, printed = write_set(folder / "parts"), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(result_cache, "FOLDER", folder / "kept")
        written = measured(parts, 2)
    (file,) = (folder / "kept").iterdir()
    return Run(parts, file, printed.getvalue(), written)


@pytest.fixture
def again(complete: Run, store: Path) -> Run:
    """Return the complete run with a copy of its rounds, for a test to change."""
    store.mkdir()
    return complete._replace(file=Path(shutil.copy(complete.file, store)))


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Interrupt:
    """Return a function that makes runs stop once a process has been timed so many times."""

    def beyond(rounds: int) -> None:
        monkeypatch.setattr(Interrupted, "rounds", rounds, raising=False)
        monkeypatch.setattr(speed, "Turn", Interrupted)

    return beyond


def measured(parts: Path, rounds: int, *arguments: str) -> dict[str, Any]:
    """Run the benchmark, and return the JSON that it wrote."""
    path = parts.with_suffix(".json")
    assert speed.main([str(parts), *SIZES, "--rounds", str(rounds), "--json", str(path), *arguments]) == 0
    return json.loads(path.read_text(encoding="utf-8"))


def test_speed_on_a_set_prints_a_table_and_writes_every_round(complete: Run):
    written = complete.written
    assert table(written["figures"]) in complete.printed
    assert len(written["rounds"]) == 2
    for measured_round in written["rounds"]:
        ours, graph = measured_round["ours"], measured_round["graph"]
        assert min(ours["step"], ours["processor"], ours["made"], *graph.values()) > 0
        assert 0 <= ours["waited"] < ours["streamed"]
        assert graph["int8_score_1"] < 100 * graph["score_1"]
    used = written["arithmetic"]
    assert used["operations"] > 1e7
    assert 0 < used["rate"] < used["highest"]
    assert sentence(used) in complete.printed
    # Without PyTorch, which is no requirement, everything else is timed.
    assert ("peer" in written["rounds"][0]) == ("PyTorch is not installed" not in complete.printed)


def test_speed_once_measured_prints_the_same_table_and_starts_nothing(
    again: Run, interrupt: Interrupt, lines: Lines, monkeypatch: pytest.MonkeyPatch
):
    interrupt(0)
    assert measured(again.parts, 2) == again.written
    printed = [*table(again.written["figures"]).splitlines(), "", sentence(again.written["arithmetic"])]
    assert lines() == ["2 of 2 rounds: measured before", "", *printed]
    # Of more rounds than are asked for, the first.
    assert measured(again.parts, 1)["rounds"] == again.written["rounds"][:1]
    for other in (["--batch-size", "5"], ["--steps", "3"], ["--compile"], ["--anew"]):
        with pytest.raises(KeyboardInterrupt):
            measured(again.parts, 2, *other)
    monkeypatch.setattr(speed, "CODE", (*speed.CODE, "README.md"))
    with pytest.raises(KeyboardInterrupt):
        measured(again.parts, 2)


def test_speed_interrupted_times_the_missing_rounds_only(again: Run, interrupt: Interrupt, lines: Lines):
    # A first round with a PyTorch that is not there any more: nothing goes on from that, and round 2 is interrupted.
    left = json.loads(again.file.read_text(encoding="utf-8"))
    left["told"]["torch"] = "another"
    result_cache.write(again.file, {**left, "rounds": left["rounds"][:1]})
    interrupt(1)
    with pytest.raises(KeyboardInterrupt):
        measured(again.parts, 2)
    changed = f"{again.file}: something was timed there that cannot be now, or the reverse; measured anew"
    assert lines().count(changed) == 1
    left = json.loads(again.file.read_text(encoding="utf-8"))
    assert len(left["rounds"]) == 1
    assert left["rounds"][0] not in again.written["rounds"]

    # Had the other precision been the faster one as the run began, it would go on in that.
    left["told"]["precision"] = OTHER[left["told"]["precision"]]
    result_cache.write(again.file, left)
    resumed = measured(again.parts, 2)
    printed = lines()
    assert [line.partition(":")[0] for line in printed if "round" in line] == ["1 of 2 rounds", "round 2 of 2"]
    assert resumed["precision"] == left["told"]["precision"]
    assert (len(resumed["rounds"]), resumed["rounds"][0]) == (2, left["rounds"][0])
    assert json.loads(again.file.read_text(encoding="utf-8"))["rounds"] == resumed["rounds"]
    assert [path.name for path in again.file.parent.iterdir()] == [again.file.name]


@pytest.mark.parametrize(
    "breaks",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[]",
        lambda text: text.replace("graph", "figure"),
    ],
    ids=["truncated", "empty", "a list", "other figures"],
)
def test_speed_when_the_file_is_broken_says_so_in_a_line_and_starts_anew(
    again: Run, interrupt: Interrupt, lines: Lines, breaks: Callable[[str], str]
):
    again.file.write_text(breaks(again.file.read_text(encoding="utf-8")), encoding="utf-8")
    interrupt(0)
    with pytest.raises(KeyboardInterrupt):
        measured(again.parts, 2)
    assert lines() == [f"{again.file}: truncated, or not written by this benchmark; measured anew"]


def test_figures_are_medians_and_their_ratios_those_of_the_rounds():
    rounds = [{**ROUND, "peer": {"step": seconds, "processor": 0.3}} for seconds in (0.1, 0.4, 0.8)]
    first = figures(FACTS, rounds)[0]
    assert first["value"] == pytest.approx(200)
    assert first["beside"] == pytest.approx(400)
    assert first["ratio"] == pytest.approx(0.5)


def test_figures_without_the_peer_leave_its_places_empty():
    rows = figures(FACTS, [ROUND])
    assert (rows[0]["beside"], rows[0]["ratio"]) == (None, None)
    assert "| 200.0 | – | – |" in table(rows)
    waited = next(row for row in rows if row["what"].startswith("waiting"))
    assert waited["ratio"] == pytest.approx(0.02)


def test_arithmetic_tells_the_share_of_the_highest_rate_and_whose_memory_it_is():
    rounds = [
        {**ROUND, "ours": {**ROUND["ours"], "streamed": seconds, "process": used}}
        for seconds, used in ((0.1, 3e9), (0.2, 4e9), (0.8, 4e9))
    ]
    used = arithmetic(FACTS, rounds)
    assert used["rate"] == pytest.approx(16 * 1e9 / 0.2)
    assert used["share"] == pytest.approx(0.08)
    assert sentence(used) == (
        "A training step does 1.00 GFLOP for an image, 0.08 TFLOP/s: 8% of the 1 TFLOP/s that the fastest product of"
        " matrices in float32 reaches here. It used 4.00 GB of the process's memory at most."
    )
    on_gpu = [{**ROUND, "ours": {**ROUND["ours"], "device": 5e9}}]
    assert "It used 5.00 GB of the device's memory" in sentence(arithmetic(FACTS, on_gpu))


def test_speed_without_tensorflow_times_training_alone(again: Run, lines: Lines, monkeypatch: pytest.MonkeyPatch):
    class Without(Turn):
        def __init__(self, kind: Any, job: dict[str, Any]) -> None:
            if kind is ExportedGraph:
                raise NotTimed("no TensorFlow")
            super().__init__(kind, job)

    monkeypatch.setattr(speed, "Turn", Without)
    written = measured(again.parts, 1, "--anew")
    assert "graph" not in written["rounds"][0]
    printed = "\n".join(lines())
    assert "no TensorFlow\n" in printed
    assert "making a batch" in printed
    assert "score()" not in printed


def test_speed_when_the_folder_is_no_set_says_so_in_a_line(tmp_path: Path, capfd):
    assert speed.main([str(tmp_path / "nothing")]) == 1
    assert capfd.readouterr().err == f"{tmp_path / 'nothing'}: there is no such folder\n"
