"""A real stack whose every process is killed with -9 in turn: each comes back, the rest goes on, nothing is lost."""

import os
import signal
import smtplib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from include.stack import boot, dags, guard, health, images_in, processes, supervision
from include.stack.airflow_rest import Airflow
from include.stack.layout import LISTENERS, Stack, open_stack, taken_ports
from tests.conftest import free_port

pytestmark = pytest.mark.soak
PROJECT = "ev_batteries"
PROGRAMS = ("s3", "mailbox", "mlflow", "api-server", "dag-processor", "triggerer", "scheduler", "serving", "guard")
KEPT = "a mail from before the kills"


def until(ready: Callable[[], object], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(0.5)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Boot a stack for the module and leave something in every store; leave no process behind."""
    before = dict(os.environ)
    home = tmp_path_factory.mktemp("stack")
    stack = open_stack(home, {variable: str(free_port()) for _, variable, _ in LISTENERS.values()}, None)
    try:
        environ = boot.up(stack, lambda _: None, None)
        images_in.use(environ)
        dags.unpause(Airflow.of(stack, environ), PROJECT, ("ingest",))
        leave_traces(stack)
        yield stack
    finally:
        boot.down(stack)
        os.environ.clear()
        os.environ.update(before)


def leave_traces(stack: Stack) -> None:
    """Put something into the bucket, the catalogue, MLflow and the mailbox."""
    import mlflow

    from pipelines.catalogue import requests as rows
    from pipelines.catalogue import transaction
    from pipelines.storage.s3 import Storage

    Storage("inspectline").put("soak/kept.txt", b"kept")
    with transaction() as connection:
        rows.ask(connection, "soak", "retrain", {"epochs": 1})
    mlflow.set_tracking_uri(stack.url("mlflow"))
    mlflow.set_experiment("soak")
    with mlflow.start_run():
        mlflow.log_metric("kept", 1.0)
        mlflow.log_text("kept", "kept.txt")
    with smtplib.SMTP("127.0.0.1", stack.ports["smtp"]) as smtp:
        smtp.sendmail("a@example.com", ["b@example.com"], f"Subject: {KEPT}\r\n\r\n{KEPT}\r\n")


def check_traces(stack: Stack) -> None:
    """Find all of it again."""
    import mlflow

    from pipelines.catalogue import connect
    from pipelines.catalogue import requests as rows
    from pipelines.storage.s3 import Storage

    assert Storage("inspectline").get("soak/kept.txt") == b"kept"
    with connect() as connection:
        assert rows.pending(connection, "soak")["retrain"] == 1
    client = mlflow.MlflowClient(stack.url("mlflow"))
    experiment = client.get_experiment_by_name("soak")
    assert experiment is not None
    run = client.search_runs([experiment.experiment_id])[0]
    assert run.data.metrics == {"kept": 1.0}
    assert mlflow.artifacts.load_text(f"{run.info.artifact_uri}/kept.txt") == "kept"
    assert sum(KEPT in mail.read_text() for mail in (stack.mail / "new").iterdir()) == 1


def healthy(stack: Stack) -> bool:
    return set(health.check(stack).values()) == {"healthy"}


def pids(stack: Stack) -> dict[str, int]:
    return {name: info["pid"] for name, info in supervision.states(stack).items()}


def run_ingest(stack: Stack) -> None:
    """Run a DAG to its end: the scheduler schedules, its workers work."""
    airflow = Airflow.of(stack, os.environ)
    dag_id = f"{PROJECT}_ingest"
    run_id = airflow.trigger(dag_id, {})
    until(lambda: airflow.run(dag_id, run_id)["state"] in ("success", "failed"), 240, f"a run of {dag_id}")
    assert airflow.run(dag_id, run_id)["state"] == "success"


@pytest.mark.parametrize("program", PROGRAMS)
def test_program_when_killed_comes_back_while_the_others_go_on_and_nothing_is_lost(stack, program):
    before = pids(stack)

    os.kill(before[program], signal.SIGKILL)
    until(lambda: pids(stack).get(program) not in (0, before[program]), 60, f"another {program}")
    until(lambda: healthy(stack), 240, "a healthy stack")

    after = pids(stack)
    assert {name for name in PROGRAMS if after[name] != before[name]} == {program}
    check_traces(stack)
    if program in ("api-server", "dag-processor", "scheduler"):
        run_ingest(stack)


def test_supervisor_when_killed_is_started_again_by_the_guard_with_all_it_watches(stack):
    (supervisor,) = processes.find(stack.home, supervision.SUPERVISOR)

    os.kill(supervisor.pid, signal.SIGKILL)
    until(lambda: supervisor not in processes.find(stack.home) and supervision.running(stack), 60, "another supervisor")
    until(lambda: healthy(stack), 300, "a healthy stack")

    check_traces(stack)
    run_ingest(stack)


def test_worker_of_the_scheduler_when_killed_does_not_block_the_others_for_ever(stack):
    scheduler = pids(stack)["scheduler"]
    until(lambda: guard.workers(stack, scheduler) == 4, 60, "four workers")
    time.sleep(7)  # the guard has seen all four
    # The one that waits for a task holds the queue's lock; killing all but the last is sure to meet it.
    for victim in children(scheduler)[:3]:
        os.kill(victim, signal.SIGKILL)
    until(lambda: pids(stack)["scheduler"] not in (0, scheduler), 120, "another scheduler")
    until(lambda: healthy(stack), 240, "a healthy stack")

    run_ingest(stack)


@pytest.mark.parametrize("program", ["mlflow", "serving"])
def test_child_of_a_server_when_killed_is_replaced(stack, program):
    (child,) = children(pids(stack)[program])

    os.kill(child, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{child}").exists(), 60, "the end of the child")
    until(lambda: healthy(stack), 240, "a healthy stack")

    check_traces(stack)


def children(parent: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def test_stack_when_taken_down_leaves_no_process_and_no_port_and_has_all_when_up_again(stack):
    boot.down(stack)

    assert processes.find(stack.home) == []
    assert taken_ports(stack) == []
    with pytest.raises(requests.ConnectionError):
        requests.get(stack.url("airflow"), timeout=5)

    boot.up(stack, lambda _: None, None)
    check_traces(stack)
    run_ingest(stack)
