"""What tests of judging models share: a small line with its project file, catalogue, registry and cache."""

from pathlib import Path

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


@pytest.fixture(scope="session")
def network_graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Export a network as it is before training, for squares of 32 pixels: a real graph, which gives evidence."""
    import keras

    from pipelines.tasks.anomaly.export import write_graph
    from pipelines.tasks.anomaly.restoration.inference_model import inspection_model
    from pipelines.tasks.anomaly.restoration.network import build_network

    keras.utils.set_random_seed(0)
    return write_graph(inspection_model(build_network("small", 32)), tmp_path_factory.mktemp("network") / "model.onnx")
