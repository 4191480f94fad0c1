"""`make demo`: from images to a served model on a running stack, watched step by step."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.table import Table
from rich.text import Text

from include.stack import boot, dags, images_in, outcome, screen, verdict
from include.stack.airflow_rest import Airflow
from include.stack.environment import environment
from include.stack.errors import StackError
from include.stack.layout import Stack
from include.stack.outcome import Outcome
from include.stack.project_file import task_of
from include.stack.run_display import RunDisplay, follow
from include.stack.run_progress import FAILED, TaskRow
from include.stack.screen import console
from pipelines.config.metrics import percent
from pipelines.config.settings import settings


def demo(
    stack: Stack, data: Path | None, project: str, maps: Sequence[str] = (), asked_task: str | None = None
) -> None:
    """Import images, run the retraining, and show the results.

    Args:
        stack: the local stack.
        data: the folder of images. None: they are drawn.
        project: name of the project.
        maps: what folders of `data` are.
        asked_task: task of a project without a file. Default None: anomaly.

    Raises:
        InspectlineError: a step did not succeed.
    """
    began = time.monotonic()
    task = task_of(stack, project, asked_task)
    plan = images_in.plan_images(data, maps, ask=True, task=task) if data else None
    stack.make_folders()
    images_in.use(environment(stack))
    images_in.declare_project(stack, project, data, task)
    with ThreadPoolExecutor(1) as drawing:
        drawn = None if data else drawing.submit(images_in.draw_demo_images, stack, task)
        console.rule("The local stack", align="left")
        with screen.BootDisplay() as display:
            environ = boot.up(stack, display)
        booted = time.monotonic()
        console.print(f"  up after {booted - began:.0f} s")
        console.rule(f"Images for {project}", align="left")
        if drawn:
            plan = images_in.plan_images(drawn.result(), task=task)
    assert plan is not None
    images_in.import_images(plan, project)
    airflow = Airflow.of(stack, environ)
    run_id = _retrain(airflow, project)
    trained = time.monotonic()
    # Unpaused only after the training, since watch would otherwise start another one for these new images.
    dags.unpause(airflow, project)
    trained_outcome = outcome.outcome_of(project, run_id)
    _show(trained_outcome)
    if task == "classification":
        _show_classes(stack, project, trained_outcome)
    else:
        _show_verdicts(stack, project, trained_outcome)
    console.rule("Where to look", align="left")
    screen.show_addresses(stack, environ)
    taken = (
        f"{time.monotonic() - began:.0f} s: stack {booted - began:.0f} s, images and training {trained - booted:.0f} s"
    )
    console.print(
        f"\n[bold green]Everything succeeded[/] in {taken}. The stack goes on; stop it with [bold]make down[/]."
    )


def _retrain(airflow: Airflow, project: str) -> str:
    """Trigger `<project>_retrain`, forced if the project was trained before, and follow it until it finishes.

    Raises:
        StackError: a task failed.
    """
    dag_id = f"{project}_retrain"
    dags.unpause(airflow, project, ("retrain",))
    force = outcome.has_completed(project)
    run_id = airflow.trigger(dag_id, {"force": True} if force else {})
    url = f"{settings().airflow_url}/dags/{dag_id}/runs/{run_id}"
    console.rule(f"{dag_id}", align="left")
    with RunDisplay(console, f"{url}{'  (trained before: by force)' if force else ''}") as display:
        state, rows = follow(airflow, dag_id, run_id, display)
    if not console.is_terminal:
        console.print(_times(rows))
    failed = [row for row in rows if row.state in FAILED]
    if state != "success" or failed:
        raise StackError(_failure(airflow, dag_id, run_id, failed, url))
    return run_id


def _failure(airflow: Airflow, dag_id: str, run_id: str, failed: Sequence[TaskRow], url: str) -> str:
    """Return which task failed, with the last error in its log."""
    first = next((row for row in failed if row.state == "failed"), None)
    if first is None:
        return f"the run did not succeed: see {url}"
    lines = airflow.log_lines(dag_id, run_id, first.task_id, max(first.attempt, 1))
    errors = [line.strip() for line in lines if "Error" in line or "failed" in line.lower()]
    why = f" ({errors[-1][:300]})" if errors else ""
    return f"the task {first.task_id} of {dag_id} failed{why}: see {url}"


def _times(rows: Sequence[TaskRow]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("task")
    table.add_column("state")
    table.add_column("wall time", justify="right")
    for row in rows:
        table.add_row(row.task_id, row.state, "" if row.seconds is None else f"{row.seconds:.1f} s")
    return table


def _show(training: Outcome) -> None:
    console.rule("What came of it", align="left")
    if training.earlier:
        console.print(
            f"The same data were trained before, by training {training.training_id}; nothing new was to be done."
        )
    counted = ", ".join(f"{count} {subset}" for subset, count in training.counts.items() if count)
    _say("Images", counted)
    console.print(outcome.metrics_table(training.result["metrics"]))
    if training.result.get("threshold") is not None:
        _say("Threshold", outcome.threshold_sentence(training.result, training.detail))
    if certainty := outcome.certainty_sentence(training.detail):
        _say("Certainty", certainty)
    _say("Promotion", outcome.promotion_sentence(training.result))
    for note in dict.fromkeys(training.result.get("notes", [])):
        _say("Note", note)


def _say(head: str, text: str) -> None:
    """Print a sentence after its heading, without line breaks where there is no terminal."""
    console.print(Text.assemble((f"{head:<11}", "bold"), text), soft_wrap=not console.is_terminal)


def _show_verdicts(stack: Stack, project: str, training: Outcome) -> None:
    console.rule("Serving, asked about images that training never saw", align="left")
    verdict.await_served(stack, project)
    samples = verdict.pick_samples(training.manifest_uri)
    for sample in samples:
        answer = verdict.ask(stack, project, sample)
        actual = (answer.type or "defective").replace("_", " ") if answer.label == "anomaly" else "good"
        word = "anomaly" if answer.is_anomaly else "good"
        agrees = "[green]right[/]" if answer.right else "[yellow]wrong[/]"
        compared = f"score {answer.score:.4g} {'>' if answer.is_anomaly else '≤'} threshold {answer.threshold:.4g}"
        console.print(
            f"  {actual} part {answer.name[:12]}…: [bold]{word}[/] ({agrees}); {compared}; "
            f"version {answer.version}, {answer.milliseconds:.0f} ms"
        )
    if not samples:
        console.print("  The dataset has no test images to ask about.")
    elif all(sample["label"] == "good" for sample in samples):
        console.print("  There are no defective images in the test subset to ask about.")


def _show_classes(stack: Stack, project: str, training: Outcome) -> None:
    console.rule("Serving, asked about images that training never saw", align="left")
    verdict.await_served(stack, project)
    samples = verdict.pick_of_classes(training.manifest_uri)
    for sample in samples:
        answer = verdict.ask_class(stack, project, sample)
        agrees = "[green]right[/]" if answer.right else "[yellow]wrong[/]"
        others = ", ".join(f"{name} {percent(probability)}" for name, probability in answer.others[:2])
        console.print(
            f"  {answer.label} {answer.name[:12]}…: [bold]{answer.named} {percent(answer.certainty)}[/] ({agrees}"
            f"{', unsure' if answer.unsure else ''}); then {others or 'nothing'}; version {answer.version}, "
            f"{answer.milliseconds:.0f} ms"
        )
    if not samples:
        console.print("  The dataset has no test images to ask about.")
