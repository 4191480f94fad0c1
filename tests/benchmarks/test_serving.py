"""The benchmarks of serving, run completely but briefly: they print what they measured."""

import os
import re

import pytest

from benchmarks import memory, serving

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _own_environment():
    """Restore the environment, which the benchmarks change for the processes they start."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def test_serving_prints_a_row_of_each_contender_and_the_ratios(capsys):
    assert serving.main(["--rounds", "1", "--seconds", "1", "--without", "mlflow", "keras"]) == 0
    printed = capsys.readouterr().out
    rows = re.findall(r"^\| (bare loop|serving, \d+) \|" + r" ([\d.]+) \|" * 5 + "$", printed, re.MULTILINE)
    assert [row[0] for row in rows] == ["bare loop", "serving, 1", "serving, 8", "serving, 32"]
    for _, p50, p95, p99, rate, _ in rows:
        assert 0 < float(p50) <= float(p95) <= float(p99)
        assert float(rate) > 0
    ratios = re.findall(
        r"^\| (p50 of one connection|rate at saturation), to the bare loop's \| ([\d.]+) ", printed, re.M
    )
    assert [name for name, _ in ratios] == ["p50 of one connection", "rate at saturation"]
    assert all(float(ratio) > 0 for _, ratio in ratios)


def test_table_gives_the_medians_of_the_rounds_and_of_their_ratios():
    def results(scale: float, **ratios: float) -> dict[str, float]:
        return {"p50": 10 * scale, "p95": 12 * scale, "p99": 13 * scale, "rate": 90 / scale, "cpu": 9 * scale, **ratios}

    figures = {
        "bare loop": [results(1.0), results(1.2), results(1.1)],
        "serving, 1": [results(scale, **{"p50 ratio": scale, "rate ratio": 0.5}) for scale in (1.2, 1.5, 1.3)],
        "serving, 32": [results(2, **{"rate ratio": rate, "cpu ratio": 1.25}) for rate in (0.8, 0.9, 0.95)],
        "mlflow models serve, 1": [results(10), results(20), results(12)],
    }
    printed = serving.table(figures)
    assert "| bare loop | 11.0 | 13.2 | 14.3 | 81.8 | 9.9 |" in printed
    assert "| p50 of one connection, to the bare loop's | 1.30 (1.20 to 1.50) | at most 1.3 |" in printed
    assert "| rate at saturation, to the bare loop's | 0.90 (0.80 to 0.95) | at least 0.85 |" in printed
    assert "| rate at saturation, to `mlflow models serve` | 9.23 (8.33 to 13.33) | at least 5.0 |" in printed
    assert "to serving's at 32 connections | 0.80 | |" in printed


def test_memory_counts_the_images_and_reads_what_is_resident(capsys):
    assert memory.main(["--images", "4", "--megapixels", "1", "--connections", "2"]) == 0
    printed = capsys.readouterr().out
    (ready,) = re.findall(r"^ready: (\d+) MB resident$", printed, re.MULTILINE)
    parts = re.findall(
        r"^after (\d+) images of 1000 x 1000 over 2 connections.*: (\d+) MB, at most (\d+) MB", printed, re.M
    )
    assert [int(sent) for sent, _, _ in parts] == [1, 2, 4]
    for _, now, highest in parts:
        assert 50 < int(ready) <= int(highest)
        assert int(now) <= int(highest)
