"""A project that fires at 500 new images, over a real catalogue."""

import pytest
import yaml


@pytest.fixture
def line(database: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> str:
    """Declare the project `line`, which fires at 500 new images, and return its name."""
    folder = tmp_path_factory.mktemp("projects")
    (folder / "line.yaml").write_text(yaml.safe_dump({"retrain": {"new_images": 500}}))
    monkeypatch.setenv("INSPECTLINE_PROJECTS", str(folder))
    return "line"
