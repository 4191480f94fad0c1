"""Which projects get DAGs: those whose file is right. The others are reported by `dags/project_files.py`.

Airflow marks every DAG of a file that raises as broken, so the files with DAGs must not raise for one bad project.
"""

from datetime import timedelta

from airflow.sdk import CronTriggerTimetable
from croniter import CroniterError, croniter

from pipelines.config.project import Project, load_projects, project_files
from pipelines.errors import SettingsError

# A slot that passed while the DAG was paused or the stack was down is not run at the next start; one that passed
# this recently is, or a parse in the second of the slot would lose it.
GRACE = timedelta(minutes=10)


def schedule(cron: str, timezone: str) -> CronTriggerTimetable:
    """Return the timetable of `cron` in `timezone`."""
    return CronTriggerTimetable(cron, timezone=timezone, run_immediately=GRACE)


def nightly(project: Project) -> CronTriggerTimetable:
    """Return the timetable of the project's nightly retraining."""
    return schedule(project.retrain.cron, project.timezone)


def sound_projects() -> list[Project]:
    """Return the projects whose file is right, by name."""
    return [project for _, project in sorted(_checked().items()) if isinstance(project, Project)]


def broken_projects() -> dict[str, SettingsError]:
    """Return, by project, what is wrong with its file."""
    return {name: error for name, error in sorted(_checked().items()) if isinstance(error, SettingsError)}


def _checked() -> dict[str, Project | SettingsError]:
    return {name: _with_cron(loaded) for name, loaded in load_projects().items()}


def _with_cron(loaded: Project | SettingsError) -> Project | SettingsError:
    """Read the cron expression as Airflow will: it must be understood, and have a next time (30 February has none)."""
    if isinstance(loaded, Project):
        try:
            croniter(loaded.retrain.cron).get_next()
        except CroniterError as error:
            path = project_files()[loaded.name]
            return SettingsError(f"{path}: retrain.cron is {loaded.retrain.cron!r}: no such time ({error})")
    return loaded
