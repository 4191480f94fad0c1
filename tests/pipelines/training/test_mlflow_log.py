"""What training logs arrives once in MLflow, though MLflow is away for a while or training is taken up again."""

import contextlib
import socket
import threading
from pathlib import Path

import pytest

from pipelines.errors import RegistryError


@pytest.fixture
def mlflow_run(mlflow_server: str, project_name: str, monkeypatch: pytest.MonkeyPatch) -> str:
    from mlflow import MlflowClient

    from pipelines.training.mlflow_log import NO_RETRIES

    for name, value in NO_RETRIES.items():
        monkeypatch.setenv(name, value)

    client = MlflowClient()
    return str(client.create_run(client.create_experiment(project_name)).info.run_id)


def steps(run_id: str) -> list[int]:
    from mlflow import MlflowClient

    return [metric.step for metric in MlflowClient().get_metric_history(run_id, "training/loss")]


class Door:
    """A TCP relay to the MLflow server that can be shut, and opened again: MLflow away for a while."""

    def __init__(self, address: str) -> None:
        host, port = address.removeprefix("http://").split(":")
        self._target = (host, int(port))
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._relayed: list[socket.socket] = []
        self._is_open = True
        self.swallows_answers = False
        self.address = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def shut(self) -> None:
        """Refuse callers and break off those inside."""
        self._is_open = False
        for end in self._relayed:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def open(self) -> None:
        self._is_open = True

    def close(self) -> None:
        self.shut()
        self._listening.close()

    def _serve(self) -> None:
        while True:
            try:
                caller, _ = self._listening.accept()
            except OSError:
                return
            if not self._is_open:
                caller.close()
                continue
            server = socket.create_connection(self._target)
            self._relayed += [caller, server]
            for source, target in ((caller, server), (server, caller)):
                threading.Thread(target=self._relay, args=(source, target, source is server), daemon=True).start()

    def _relay(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while (data := source.recv(65536)) and not (answers and self.swallows_answers):
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def door(mlflow_server: str, mlflow_run: str, monkeypatch: pytest.MonkeyPatch):
    import mlflow

    made = Door(mlflow_server)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", made.address)
    mlflow.set_tracking_uri(made.address)
    monkeypatch.setattr("pipelines.training.mlflow_log.EVERY_SECONDS", 0.0)
    yield made
    made.close()
    mlflow.set_tracking_uri(mlflow_server)


def open_log(run_id: str, patience: float = 20.0):
    from pipelines.training.mlflow_log import TrainingLog

    lines: list[str] = []
    return TrainingLog(run_id, lines.append, patience), lines


def test_log_when_training_is_taken_up_again_has_each_epoch_once(mlflow_run):
    first, _ = open_log(mlflow_run)
    for number in (1, 2, 3):
        first.epoch(number, {"loss": 1 / number})
    first.close()
    second, _ = open_log(mlflow_run)
    for number in (2, 3, 4):
        second.epoch(number, {"loss": 1 / number})
    second.close()
    second.close()
    assert steps(mlflow_run) == [1, 2, 3, 4]


def test_log_when_killed_before_it_logged_goes_on_from_what_the_checkpoint_kept(mlflow_run):
    killed, _ = open_log(mlflow_run)
    for number in (1, 2, 3):
        killed.epoch(number, {"loss": 1 / number})
    assert steps(mlflow_run) == [1]  # the others wait for the next round of requests
    second, _ = open_log(mlflow_run)
    second.take_up(killed.waiting())
    second.epoch(4, {"loss": 0.25})
    second.close()
    assert steps(mlflow_run) == [1, 2, 3, 4]


def test_log_when_mlflow_is_away_waits_with_the_curves_and_loses_none(mlflow_run, door):
    log, lines = open_log(mlflow_run)
    log.epoch(1, {"loss": 3.0, "learning_rate": 0.1})
    door.shut()
    log.epoch(2, {"loss": 2.0})
    log.epoch(3, {"loss": 1.0})
    assert any("wait" in line for line in lines)
    threading.Timer(2.0, door.open).start()
    log.close()
    assert steps(mlflow_run) == [1, 2, 3]


def test_log_when_an_answer_is_lost_does_not_log_twice(mlflow_run, door):
    log, lines = open_log(mlflow_run)
    log.epoch(1, {"loss": 3.0})
    door.swallows_answers = True
    log.epoch(2, {"loss": 2.0})
    assert lines
    door.swallows_answers = False
    log.epoch(3, {"loss": 1.0})
    log.close()
    assert steps(mlflow_run) == [1, 2, 3]


def test_log_when_mlflow_stays_away_raises_one_line_that_may_be_tried_again(mlflow_run, door):
    log, _ = open_log(mlflow_run, patience=1.0)
    door.shut()
    log.epoch(1, {"loss": 3.0})
    with pytest.raises(RegistryError, match=r"takes nothing: .*check MLFLOW_TRACKING_URI") as caught:
        log.close()
    assert caught.value.passing


def test_parameters_when_logged_again_with_others_keeps_the_first(mlflow_run):
    from mlflow import MlflowClient

    log, _ = open_log(mlflow_run)
    log.parameters({"training.precision": "float32", "training.seed": 1})
    log.parameters({"training.precision": "mixed_bfloat16", "training.images": 5})
    params = MlflowClient().get_run(mlflow_run).data.params
    assert params == {"training.precision": "float32", "training.seed": "1", "training.images": "5"}


def test_artifact_is_stored_in_its_folder(mlflow_run, tmp_path: Path):
    from mlflow import MlflowClient

    (tmp_path / "picture.png").write_bytes(b"pixels")
    log, _ = open_log(mlflow_run)
    log.artifact(tmp_path / "picture.png", "training")
    assert [item.path for item in MlflowClient().list_artifacts(mlflow_run, "training")] == ["training/picture.png"]
