"""What tests of judging models share: a small line with its project file, catalogue, registry and cache."""

import pytest

from tests.pipelines.line import SIZE, Line


@pytest.fixture
def line(projects, database, cache, mlflow_server, project_name):
    """Declare a project of its own, with nothing in it yet."""
    projects.write(
        project_name,
        title="Test line",
        model={"input_size": SIZE},
        threshold={"false_positive_rate": 0.05},
        promotion={"bootstrap_samples": 400},
    )
    return Line(project_name, projects.bucket)
