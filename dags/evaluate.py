"""Judges the champion again: scores its validation and test sets, and calibrates it anew.

Started from the form, from the API, or by `watch` for a request. The weights stay as they are; the new threshold, or a
classifier's new calibration, makes a new version, which goes through the same gate as a new model. Without a champion
there is nothing to judge, and what was judged before on the same data is not judged again (unless forced): the run is
skipped, and says so. The champion of a classifier is checked against the project's minimum of accuracy.
"""

from airflow.sdk import DAG

from inspectline_dags import closing_steps, model_steps, report_steps
from inspectline_dags.defaults import declaration, model_asset
from inspectline_dags.forms import evaluate_form
from inspectline_dags.links import linked
from inspectline_dags.projects import sound_projects

for project in sound_projects():
    with DAG(schedule=None, params=evaluate_form(), **declaration(project, "evaluate", __doc__)):
        begun = linked(model_steps.begin_evaluation(project.name), earlier="The same evaluation", mlflow="MLflow run")
        packed = model_steps.pack()
        calibrated = model_steps.calibrate()
        evaluated = model_steps.evaluate()
        registered = model_steps.register.override(outlets=[model_asset(project)])()
        judged = model_steps.gate()
        completed = model_steps.complete()
        mailed = report_steps.report()
        checked = report_steps.accuracy_checks(project)
        closed = closing_steps.close(project.name)

        begun >> packed >> calibrated >> evaluated >> registered >> judged >> completed >> mailed >> closed
        completed >> checked >> closed
