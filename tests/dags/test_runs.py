"""Every DAG run whole, as Airflow runs it, on real S3, MLflow, SQLite and SMTP, with no logical date."""

import pytest

from tests.dags.conftest import Line, Run
from tests.dags.images import part

pytestmark = pytest.mark.slow

GOOD, BAD = 64, 12
KEYS = {
    "model": {"input_size": 64, "epochs": 2, "batch_size": 8, "time_budget_minutes": 0.2},
    "threshold": {"false_positive_rate": 0.1},
    "promotion": {"minimum_auroc": 0.5, "bootstrap_samples": 200},
    "retrain": {"new_images": 500},
}


@pytest.fixture(scope="module")
def first(line: Line) -> Run:
    """Run `retrain` over an inbox of good images, anomalies with masks, and one file that is no image."""
    line.declare(**KEYS)
    for number in range(GOOD):
        line.send(f"good/{number:03}.png", part(number)[0])
    for number in range(BAD):
        image, mask = part(1000 + number, defect=True)
        line.send(f"anomaly/blot/{number:03}.png", image)
        line.send(f"anomaly/blot/{number:03}_mask.png", mask)
    line.send("good/notes.jpg", b"not an image")
    return line.run("retrain")


def test_retrain_when_images_wait_runs_to_the_end(line: Line, first: Run) -> None:
    assert first.state == "success"
    assert set(first.states.values()) == {"success"}
    assert first.run.logical_date is None
