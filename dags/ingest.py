"""Takes in what lies in the inbox, every five minutes, one run at a time.

Lists what is new, cuts it into batches, and takes each batch in by a task of its own: every image is read once,
checked, hashed, described, stored as a sample and entered in the catalogue; what cannot be used is moved to
`rejected/` with the reason. An image leaves the inbox only when it is safe in S3 and in the catalogue, so a run may be
killed at any moment and run again.
"""

from airflow.sdk import DAG

from inspectline_dags.defaults import declaration
from inspectline_dags.ingest_steps import ingest
from inspectline_dags.projects import schedule, sound_projects

for project in sound_projects():
    with DAG(schedule=schedule("*/5 * * * *", "UTC"), **declaration(project, "ingest", __doc__)):
        ingest(project.name)
