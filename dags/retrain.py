"""Takes in the inbox, trains on all there is, judges the model, and lets it serve if it holds up.

Runs nightly in the project's time zone, from the form, from the API, and from `watch`. A run whose data and parameters
equal those of a completed training is skipped, with a link to that one (`force` trains all the same). The profile
holds up nothing; a failed profile, drift report or check of the accuracy does not fail the run. Training waits for a
slot of the pool `gpu`, runs in a subprocess, and goes on from its last checkpoint when it is tried again.
"""

from airflow.sdk import DAG

from inspectline_dags import closing_steps, model_steps, report_steps
from inspectline_dags.defaults import dataset_asset, declaration, model_asset
from inspectline_dags.forms import retrain_form, training_timeout
from inspectline_dags.ingest_steps import ingest
from inspectline_dags.links import linked
from inspectline_dags.projects import nightly, sound_projects

for project in sound_projects():
    with DAG(schedule=nightly(project), params=retrain_form(project), **declaration(project, "retrain", __doc__)):
        taken_in = ingest(project.name)
        frozen = model_steps.freeze.override(outlets=[dataset_asset(project)])(project.name)
        begun = linked(model_steps.begin(), earlier="The same training", mlflow="MLflow run")
        profiled = linked(model_steps.profile(), profile="Profile")
        packed = model_steps.pack()
        trained = model_steps.train.override(execution_timeout=training_timeout(project))()
        exported = model_steps.export()
        calibrated = model_steps.calibrate()
        evaluated = model_steps.evaluate()
        registered = model_steps.register.override(outlets=[model_asset(project)])()
        judged = model_steps.gate()
        completed = model_steps.complete()
        watched = linked(report_steps.drift(project.name), drift="Drift report")
        checked = report_steps.accuracy_checks(project)
        mailed = report_steps.report()
        closed = closing_steps.close(project.name)

        taken_in >> frozen >> begun >> [profiled, packed]
        packed >> trained >> exported >> calibrated >> evaluated >> registered >> judged >> completed >> watched
        [completed, watched] >> mailed
        [mailed, profiled] >> closed
        completed >> checked >> closed
