"""Reports each project file that is wrong as an import error of Airflow, and stops no other project.

Holds no DAG: Airflow marks every DAG of a file that raises as broken, so this check has a file of its own.
"""

from airflow.sdk.exceptions import AirflowException

from inspectline_dags.projects import broken_projects

if broken := broken_projects():
    raise AirflowException("; ".join(str(error) for error in broken.values()))
