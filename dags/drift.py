"""Compares what serving saw lately with what the champion was trained for, once a day.

Scores the kept images of the last days with the champion and compares them with its reference by Evidently: image
descriptors, embedding, anomaly score or certainty, and of a classifier the predicted classes. A mail goes out when the
state changes, and once a week a digest. The champion of a classifier is checked against the project's minimum of
accuracy. Then the images that were kept long enough are deleted.
"""

from airflow.sdk import DAG

from inspectline_dags import report_steps
from inspectline_dags.defaults import declaration
from inspectline_dags.links import linked
from inspectline_dags.projects import schedule, sound_projects

for project in sound_projects():
    with DAG(schedule=schedule("0 6 * * *", project.timezone), **declaration(project, "drift", __doc__)):
        drift = linked(report_steps.drift(project.name), drift="Drift report")

        report_steps.accuracy_checks(project)

        drift >> [report_steps.mail_drift(), report_steps.purge(project.name)]
