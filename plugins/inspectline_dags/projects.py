"""Selects the projects that get DAGs: those with a valid file. `dags/project_files.py` reports the others.

Airflow marks all DAGs of a file that raises as broken, so a DAG file must not raise for one invalid project.
"""

from datetime import timedelta

from airflow.sdk import CronTriggerTimetable
from croniter import CroniterError, croniter

from pipelines.config.project import Project, load_projects, project_files
from pipelines.errors import SettingsError

# A slot that passed while the DAG was paused or the stack was down is not run at the next start, unless it passed this
# recently: otherwise a parse in the second of the slot would lose it.
GRACE = timedelta(minutes=10)


def schedule(cron: str, timezone: str) -> CronTriggerTimetable:
    """Return the timetable of `cron` in `timezone`."""
    return CronTriggerTimetable(cron, timezone=timezone, run_immediately=GRACE)


def nightly(project: Project) -> CronTriggerTimetable:
    """Return the timetable of the project's nightly retraining."""
    return schedule(project.retrain.cron, project.timezone)


def sound_projects() -> list[Project]:
    """Return the projects with a valid file, sorted by name."""
    return [project for _, project in sorted(_checked().items()) if isinstance(project, Project)]


def broken_projects() -> dict[str, SettingsError]:
    """Return the error of each invalid project file, by project."""
    return {name: error for name, error in sorted(_checked().items()) if isinstance(error, SettingsError)}


def _checked() -> dict[str, Project | SettingsError]:
    return {name: _with_cron(loaded) for name, loaded in load_projects().items()}


def _with_cron(loaded: Project | SettingsError) -> Project | SettingsError:
    """Return an error if Airflow cannot parse the cron expression, or if it never matches (30 February)."""
    if isinstance(loaded, Project):
        try:
            croniter(loaded.retrain.cron).get_next()
        except CroniterError as error:
            path = project_files()[loaded.name]
            return SettingsError(f"{path}: retrain.cron is {loaded.retrain.cron!r}: no such time ({error})")
    return loaded
