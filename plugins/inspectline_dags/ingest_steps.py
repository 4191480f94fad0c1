"""The tasks that ingest the inbox: all of `ingest`, and the first group of `retrain`."""

from typing import Any

from airflow.sdk import TaskGroup, TriggerRule, task

from inspectline_dags.defaults import run_name


@task
def list_inbox(project: str, **context: Any) -> list[dict[str, Any]]:
    """List what is new in the inbox and cut it into batches; waits up to half a minute for files being copied."""
    from pipelines.ingest import list_inbox
    from pipelines.ingest.at_rest import REST_SECONDS

    return list_inbox(project, run_name(context), patience=REST_SECONDS + 1)["batches"]


# Two at a time within a run, so that a machine of two cores stays responsive.
@task(map_index_template="{{ task.op_kwargs['batch']['label'] }}", max_active_tis_per_dagrun=2)
def ingest_batch(batch: dict[str, Any]) -> dict[str, Any]:
    """Check, hash, describe and store each image of one batch; a bad file is refused with its reason."""
    from pipelines.ingest import ingest_batch

    return ingest_batch(batch)


# An empty inbox yields no batch and skips the mapped task; the report is written nevertheless.
@task(trigger_rule=TriggerRule.NONE_FAILED)
def report(project: str, results: Any, **context: Any) -> dict[str, Any]:
    """Write what was accepted, known, refused and disputed, readable in this log and kept in S3."""
    from pipelines.ingest import report

    summary = report(project, run_name(context), [result for result in results or [] if result])
    for line in summary["lines"]:
        print(line)
    return summary


def ingest(project: str) -> TaskGroup:
    """Return the group of tasks that takes in `project`'s inbox."""
    with TaskGroup("ingest", tooltip="Takes in what lies in the inbox") as group:
        documented = ingest_batch.override(doc_md=ingest_batch.function.__doc__)  # a mapped task does not inherit it
        report(project, documented.expand(batch=list_inbox(project)))
    return group
