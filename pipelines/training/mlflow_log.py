"""What a training logs to its MLflow run, whether or not MLflow answers at that moment, and never twice."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from requests import RequestException
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_before_delay, wait_exponential

from pipelines.errors import RegistryError, first_line

# MLflow's own patience, seven tries over minutes, would hold up training, and its retries may log twice: a request
# whose answer was lost may have been carried out. For the environment of a process that has a TrainingLog.
NO_RETRIES = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "15"}
MARK = "training/loss"
EVERY_SECONDS = 5.0
PATIENCE_SECONDS = 120.0


class TrainingLog:
    """Curves, parameters and pictures of one MLflow run; `say` takes a line about trouble.

    Curves wait here while MLflow is away. After a failure, and at the start, the run itself is asked how far
    its curves go: a request that failed may have been carried out, and a killed training may have logged more
    epochs than its checkpoint holds.
    """

    def __init__(self, run_id: str, say: Callable[[str], None], patience: float = PATIENCE_SECONDS) -> None:
        self._run_id = run_id
        self._say = say
        self._patience = patience
        self._client = MlflowClient()
        self._waiting: dict[int, dict[str, float]] = {}
        self._logged: int | None = None
        self._next = 0.0

    def waiting(self) -> dict[int, dict[str, float]]:
        """Return the epochs that may not be in MLflow yet: what a checkpoint must keep with the weights."""
        return dict(self._waiting)

    def take_up(self, waiting: dict[int, dict[str, float]]) -> None:
        """Let epochs of an interrupted training wait again, to be logged with the next one."""
        self._waiting |= waiting

    def epoch(self, number: int, values: dict[str, float]) -> None:
        """Log the values of an epoch (from 1) under `training/<name>`, now or a little later."""
        self._waiting[number] = values
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + EVERY_SECONDS
        try:
            self._send()
        except (MlflowException, RequestException) as error:
            self._logged = None
            self._say(f"MLflow did not take the curves, which wait for it: {first_line(error)}")

    def parameters(self, values: dict[str, Any]) -> None:
        """Log parameters of the training; those that the run has already stay as they are."""

        def log() -> None:
            logged = self._client.get_run(self._run_id).data.params
            new = [Param(name, str(value)) for name, value in values.items() if name not in logged]
            if new:
                self._client.log_batch(self._run_id, params=new)

        self._patiently(log)

    def artifact(self, path: Path, folder: str) -> None:
        """Store a file in a folder of the run's artefacts, in place of one of the same name."""
        self._patiently(lambda: self._client.log_artifact(self._run_id, str(path), folder))

    def close(self) -> None:
        """Log what still waits. Raises RegistryError if MLflow stays away for longer than two minutes."""

        def send() -> None:
            self._logged = None
            self._send()

        if self._waiting:
            self._patiently(send)

    def _send(self) -> None:
        if self._logged is None:
            history = self._client.get_metric_history(self._run_id, MARK)
            self._logged = max((metric.step for metric in history), default=0)
        now = int(time.time() * 1000)
        metrics = [
            Metric(f"training/{name}", value, now, number)
            for number, values in sorted(self._waiting.items())
            if number > self._logged
            for name, value in values.items()
        ]
        # MLflow takes up to 1000 metrics at once.
        for start in range(0, len(metrics), 900):
            self._client.log_batch(self._run_id, metrics=metrics[start : start + 900])
        self._logged = max([self._logged, *self._waiting])
        self._waiting.clear()

    def _patiently(self, act: Callable[[], object]) -> None:
        """Try with exponential backoff until the patience ends in RegistryError."""
        attempts = Retrying(
            retry=retry_if_exception_type((MlflowException, RequestException)),
            wait=wait_exponential(multiplier=0.5, max=10),
            stop=stop_before_delay(self._patience),
            before_sleep=self._say_trying_again,
            reraise=True,
        )
        try:
            attempts(act)
        except (MlflowException, RequestException) as error:
            raise RegistryError(
                f"MLflow run {self._run_id} takes nothing: {first_line(error)}; check MLFLOW_TRACKING_URI"
            ) from error

    def _say_trying_again(self, attempt: RetryCallState) -> None:
        error = attempt.outcome.exception() if attempt.outcome else None
        self._say(f"MLflow does not answer, trying again: {first_line(error) if error else 'no answer'}")
