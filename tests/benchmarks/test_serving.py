"""The benchmarks of serving, run whole for a moment each: what they print is what they measured."""

import os
import re

import pytest

from benchmarks import memory, serving

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _own_environment():
    """Take back what the benchmarks, which are programs of their own, set for the processes they start."""
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
    bare, one = float(rows[0][1]), float(rows[1][1])  # the first is the median of four loops
    (ratio,) = re.findall(r"^\| p50 of one connection, to the bare loop's \| ([\d.]+) ", printed, re.MULTILINE)
    assert float(ratio) == pytest.approx(one / bare, rel=0.5)


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
