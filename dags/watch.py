"""Waits, always, for enough new images or for a request, and then starts `retrain` or `evaluate`.

The waiting takes no worker slot: the sensor hands over to the triggerer, and its log counts up (`312 of 500`). The same
images never start two trainings, even if the first fails: the nightly run tries again. Requests that ask for the same
share a run; one that asks for nonsense is refused. After some hours in which nothing was due the run ends, and the next
one begins at once.
"""

from typing import Any

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG

from inspectline_dags import closing_steps, watch_steps
from inspectline_dags.defaults import START, declaration
from inspectline_dags.projects import sound_projects
from sensors.new_images import NewImagesSensor

for project in sound_projects():
    with DAG(schedule="@continuous", start_date=START, **declaration(project, "watch", __doc__)):
        due = NewImagesSensor(
            task_id="wait", project=project.name, doc_md=NewImagesSensor.__doc__, **watch_steps.UNTIRING
        )
        claimed: Any = watch_steps.claim(project.name)
        started = [
            TriggerDagRunOperator(
                task_id=kind,
                trigger_dag_id=f"{project.name}_{kind}",
                trigger_run_id=claimed[f"{kind}_run_id"],
                conf=claimed[kind],
                logical_date=None,
                skip_when_already_exists=True,
                doc_md=f"Starts `{project.name}_{kind}` with what was asked for.",
            )
            for kind in watch_steps.KINDS
        ]

        due >> claimed
        watch_steps.choose(claimed) >> started >> closing_steps.settle(project.name)
