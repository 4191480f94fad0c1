"""The measurement of the catalogue's queries, on few samples."""

import os

import pytest

from benchmarks import catalogue


def test_main_prints_each_query_with_its_growth(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    for name in [name for name in os.environ if name.startswith(("AWS_", "INSPECTLINE_"))]:
        monkeypatch.setenv(name, os.environ[name])  # put back after the test
    for name in ("AWS_ENDPOINT_URL", "INSPECTLINE_DATABASE_URL", "INSPECTLINE_PROJECTS"):
        monkeypatch.setenv(name, "")
    assert catalogue.main(["--samples", "60", "120", "--rounds", "1"]) == 0
    head, _, *rows = capsys.readouterr().out.splitlines()
    assert "60, s | 120, s" in head
    assert len(rows) == 5
    assert all(float(number) >= 0 for row in rows for number in row.split("|")[2:-1])
