"""The speed benchmark, run whole on a tiny size: what it prints is what it measured."""

import json
from pathlib import Path

import pytest

from benchmarks import speed
from benchmarks.speed import figures, table

ROUND = {
    "ours": {"step": 0.2, "processor": 0.3, "streamed": 0.25, "waited": 0.005, "made": 0.05},
    "graph": {f"{name}_{count}": 0.01 for name in ("score", "bare", "int8_score") for count in (1, 16)},
}
TOLD = {"batch_size": 16, "precision": "float32"}


def test_speed_on_a_set_prints_a_table_and_writes_every_round(parts: Path, capfd):
    told = parts.with_suffix(".json")
    sizes = ["--input-size", "32", "--batch-size", "4", "--rounds", "2", "--steps", "2", "--threads", "1"]
    assert speed.main([str(parts), *sizes, "--json", str(told)]) == 0
    printed = capfd.readouterr().out
    found = json.loads(told.read_text(encoding="utf-8"))
    assert table(found["figures"]) in printed
    assert len(found["rounds"]) == 2
    for one in found["rounds"]:
        ours, graph = one["ours"], one["graph"]
        assert min(ours["step"], ours["processor"], ours["made"], *graph.values()) > 0
        assert 0 <= ours["waited"] < ours["streamed"]
        assert graph["int8_score_1"] < 100 * graph["score_1"]
    # Without PyTorch, which is no requirement, everything else is timed.
    assert ("peer" in found["rounds"][0]) == ("PyTorch is not installed" not in printed)


def test_figures_are_medians_and_their_ratios_those_of_the_rounds():
    rounds = [{**ROUND, "peer": {"step": seconds, "processor": 0.3}} for seconds in (0.1, 0.4, 0.8)]
    first = figures(TOLD, rounds)[0]
    assert first["value"] == pytest.approx(200)
    assert first["beside"] == pytest.approx(400)
    assert first["ratio"] == pytest.approx(0.5)


def test_figures_without_the_peer_leave_its_places_empty():
    found = figures(TOLD, [ROUND])
    assert (found[0]["beside"], found[0]["ratio"]) == (None, None)
    assert "| 200.0 | – | – |" in table(found)
    waited = next(one for one in found if one["what"].startswith("waiting"))
    assert waited["ratio"] == pytest.approx(0.02)


def test_speed_when_the_folder_is_no_set_says_so_in_a_line(tmp_path: Path, capfd):
    assert speed.main([str(tmp_path / "nothing")]) == 1
    assert capfd.readouterr().err == f"{tmp_path / 'nothing'}: there is no such folder\n"
