"""The main job, end to end, through a real scheduler: images dropped into a folder become a served, judged model."""

import email
import os
import signal
import time
from collections.abc import Callable
from email.message import Message
from pathlib import Path
from typing import Any

import mlflow
import pytest
import requests
from sqlalchemy import func, select

from include.demo_images import draw
from include.stack import dags, processes, verdict
from include.stack.airflow_rest import Airflow
from include.stack.layout import Stack
from pipelines.catalogue import connect
from pipelines.catalogue.schema import predictions, samples, trainings
from tests.conftest import answers
from tests.e2e.conftest import PROJECT

pytestmark = pytest.mark.slow


def until(ready: Callable[[], Any], seconds: float, what: str) -> Any:
    """Return what `ready()` gives as soon as it is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := ready():
            return found
        time.sleep(0.5)
    raise TimeoutError(f"{what}: not within {seconds:g} s")


def drop(inbox: Path, kind: str, numbers: range, defect: str | None = None) -> None:
    """Put pictures into the inbox as a camera would: each appears whole."""
    from PIL import Image

    folder = inbox / kind
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        pixels, _ = draw(7, number, defect, 96)
        hidden = inbox.parent.parent / f".localbucket-{number}.png"
        Image.fromarray(pixels).save(hidden)
        hidden.replace(folder / f"{number:04}.png")


def ended(airflow: Airflow, dag_id: str, run_id: str, seconds: float) -> dict[str, str]:
    """Wait for a run's end and return its tasks' states, or fail naming the tasks that failed."""
    end = ("success", "failed")
    state = until(lambda: (s := airflow.run(dag_id, run_id)["state"]) in end and s, seconds, f"{dag_id} {run_id}")
    tasks = {row["task_id"]: str(row["state"]) for row in airflow.task_instances(dag_id, run_id)}
    assert state == "success", tasks
    return tasks


def completed() -> list[Any]:
    with connect() as connection:
        query = select(trainings).where(trainings.c.project == PROJECT, trainings.c.state == "completed")
        return list(connection.execute(query.order_by(trainings.c.finished_at)).mappings())


def mails(stack: Stack) -> list[Message]:
    return [email.message_from_bytes(path.read_bytes()) for path in sorted((stack.mail / "new").glob("*"))]


def test_line_when_images_are_dropped_trains_promotes_serves_and_mails(
    stack: Stack, airflow: Airflow, inbox: Path
) -> None:
    drop(inbox, "good", range(80))
    for number, defect in enumerate(("scratch", "dent", "stain", "missing_weld")):
        drop(inbox, f"anomaly/{defect}", range(1000 + 10 * number, 1006 + 10 * number), defect)
    (inbox / "good" / "broken.jpg").write_bytes(b"\xff\xd8 no picture")

    dags.unpause(airflow, PROJECT, ("retrain",))
    run_id = airflow.trigger(f"{PROJECT}_retrain", {})
    tasks = ended(airflow, f"{PROJECT}_retrain", run_id, 900)

    assert {state for name, state in tasks.items()} == {"success"}
    (training,) = completed()
    assert training["promoted"] is True
    assert training["model_version"] == "1"
    assert training["result"]["metrics"]["auroc"]["low"] <= training["result"]["metrics"]["auroc"]["value"]
    assert mlflow.MlflowClient().get_model_version_by_alias(PROJECT, "champion").version == "1"
    assert mlflow.get_run(training["mlflow_run_id"]).info.status == "FINISHED"

    # Nothing is left in the inbox; what was refused lies beside its reason.
    assert [path for path in inbox.rglob("*") if path.is_file()] == []
    reasons = list((inbox.parent / "rejected").rglob("*.reason.txt"))
    assert len(reasons) == 1
    assert "broken.jpg" in reasons[0].name
    with connect() as connection:
        assert connection.execute(select(func.count()).select_from(samples)).scalar() == 104

    subjects = [str(mail["Subject"]) for mail in until(lambda: mails(stack), 30, "the training's mail")]
    assert any(PROJECT in subject or "Cells of the end-to-end test" in subject for subject in subjects)


def test_serving_when_killed_comes_back_with_the_champion_and_every_answered_prediction(stack: Stack) -> None:
    url = stack.url("serving")
    until(lambda: status(url).get("version") == "1", 120, "serving takes version 1")
    asked = [ask(url, number) for number in range(12)]
    assert {answer["model_version"] for answer in asked} == {"1"}
    assert all(answer["is_anomaly"] == (answer["reconstruction_error"] > answer["threshold"]) for answer in asked)

    for process in processes.find(stack.home, "serving"):
        os.kill(process.pid, signal.SIGKILL)
    until(answers(f"{url}/health/ready"), 60, "serving is started again")
    assert ask(url, 100)["model_version"] == "1"

    def stored() -> bool:
        with connect() as connection:
            ids = set(connection.execute(select(predictions.c.request_id)).scalars())
        return {answer["request_id"] for answer in asked} <= ids

    until(stored, 30, "the predictions are in the catalogue")


def test_watch_when_enough_new_images_came_retrains_once_and_serving_follows(
    stack: Stack, airflow: Airflow, inbox: Path
) -> None:
    drop(inbox, "good", range(200, 240))
    dags.unpause(airflow, PROJECT)
    ingested = airflow.trigger(f"{PROJECT}_ingest", {})
    ended(airflow, f"{PROJECT}_ingest", ingested, 300)

    until(lambda: len(completed()) >= 2, 900, "watch starts a second training")
    first, second = completed()[:2]
    assert first["version_id"] != second["version_id"]
    assert second["dag_run_id"].startswith("watch_retrain__")
    with connect() as connection:
        waiting = select(func.count()).select_from(samples).where(samples.c.trained_version.is_(None))
        assert connection.execute(waiting).scalar() == 0
    champion = mlflow.MlflowClient().get_model_version_by_alias(PROJECT, "champion").version
    until(lambda: status(stack.url("serving")).get("version") == champion, 120, "serving follows")

    # The same images fire no third training: watch is waiting again, and counts from zero.
    runs = until(lambda: airflow.active_runs(f"{PROJECT}_watch"), 60, "watch runs again")
    log = until(
        lambda: [
            line for line in airflow.log_lines(f"{PROJECT}_watch", runs[-1]["dag_run_id"], "wait", 1) if "of 40" in line
        ],
        90,
        "watch counts",
    )
    assert "0 of 40" in log[-1]
    assert len(completed()) == 2


def test_down_when_called_leaves_no_process(stack: Stack) -> None:
    from include.stack import boot

    boot.down(stack)
    assert processes.find(stack.home) == []


def status(url: str) -> dict[str, Any]:
    try:
        return dict(requests.get(f"{url}/projects/{PROJECT}/status", timeout=5).json())
    except requests.RequestException:
        return {}


def ask(url: str, number: int) -> dict[str, Any]:
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(draw(9, number, None, 96)[0]).save(file, "PNG")
    image = {"file": ("a.png", file.getvalue())}
    answer = requests.post(f"{url}/projects/{PROJECT}/predict", files=image, auth=verdict.login(), timeout=60)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())
