"""A client for the parts of Airflow's REST API v2 that the local stack uses."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import requests

from include.stack.credentials import ADMIN
from include.stack.errors import StackError
from include.stack.layout import Stack

_SECONDS = 30.0
_TRIES = 6
_PAUSE = 1.0  # seconds, doubled each time


class Airflow:
    """An authenticated client; renews expired tokens and retries while the server restarts."""

    def __init__(self, url: str, password: str) -> None:
        self.url = url
        self._password = password
        self._session = requests.Session()

    @classmethod
    def of(cls, stack: Stack, environ: Mapping[str, str]) -> "Airflow":
        """Return a client for a stack's Airflow."""
        return cls(stack.url("airflow"), environ["AIRFLOW_ADMIN_PASSWORD"])

    def call(self, method: str, path: str, *, missing_ok: bool = False, again: bool = False, **arguments: Any) -> Any:
        """Call `/api/v2<path>` and return the JSON of the response; None for status 404 if `missing_ok`.

        A POST whose answer is lost is sent once more only if `again` says that this does no harm: what it makes has a
        name, and an answer 409 then says that it is there.

        Raises:
            StackError: Airflow refuses, or does not answer for about a minute.
        """
        problem = ""
        for attempt in range(_TRIES):
            try:
                if "Authorization" not in self._session.headers:
                    self._sign_in()
                answer = self._session.request(method, f"{self.url}/api/v2{path}", timeout=_SECONDS, **arguments)
            except requests.RequestException as error:
                problem = f"does not answer ({type(error).__name__})"
                if method == "POST" and not again and not isinstance(error, requests.ConnectionError):
                    break  # it may have been done
                time.sleep(_PAUSE * 2**attempt)
                continue
            if answer.status_code == 401:
                self._session.headers.pop("Authorization", None)
                problem = "refuses the admin's password"
                continue
            if answer.status_code == 404 and missing_ok:
                return None
            if answer.status_code == 409 and again and attempt:
                return None
            if answer.status_code >= 500:
                problem = f"answers {answer.status_code}"
                time.sleep(_PAUSE * 2**attempt)
                continue
            if not answer.ok:
                raise StackError(f"Airflow refuses {method} {path}: {_detail(answer)}")
            return answer.json() if answer.content else None
        raise StackError(f"Airflow at {self.url} {problem}: see `make status`")

    def _sign_in(self) -> None:
        answer = self._session.post(
            f"{self.url}/auth/token", json={"username": ADMIN, "password": self._password}, timeout=_SECONDS
        )
        if answer.status_code == 401:
            raise StackError(f"Airflow at {self.url} refuses the password in secrets.env: `make down`, then `make up`")
        answer.raise_for_status()
        self._session.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def set_pool(self, name: str, slots: int, description: str) -> None:
        """Create a pool unless it exists, since its slots may have been changed on purpose."""
        if self.call("GET", f"/pools/{name}", missing_ok=True) is None:
            body = {"name": name, "slots": slots, "description": description, "include_deferred": False}
            self.call("POST", "/pools", json=body, again=True)

    def dag(self, dag_id: str) -> dict[str, Any] | None:
        """Return a DAG's details, or None if there is none (yet)."""
        details = self.call("GET", f"/dags/{dag_id}/details", missing_ok=True)
        return None if details is None or details.get("is_stale") else dict(details)

    def import_errors(self) -> list[str]:
        """Return Airflow's import errors, the last line of each."""
        errors = self.call("GET", "/importErrors")["import_errors"]
        return [f"{error['filename']}: {error['stack_trace'].strip().splitlines()[-1]}" for error in errors]

    def unpause(self, dag_id: str) -> None:
        """Unpause a DAG."""
        self.call("PATCH", f"/dags/{dag_id}", json={"is_paused": False})

    def dags(self, pattern: str) -> list[dict[str, Any]]:
        """Return the DAGs whose ids match an SQL LIKE pattern."""
        return list(self.call("GET", "/dags", params={"dag_id_pattern": pattern, "limit": 100})["dags"])

    def parse_again(self, file_token: str) -> None:
        """Request the immediate parsing of a DAG file."""
        self.call("PUT", f"/parseDagFile/{file_token}")

    def trigger(self, dag_id: str, conf: Mapping[str, Any]) -> str:
        """Trigger a run and return its id, chosen by the client so that retries after a lost answer are idempotent."""
        run_id = f"manual__{datetime.now(UTC).isoformat()}"
        body = {"dag_run_id": run_id, "logical_date": None, "conf": dict(conf)}
        self.call("POST", f"/dags/{dag_id}/dagRuns", json=body, again=True)
        return run_id

    def run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """Return a run: its `state`, `queued_at`, `start_date`, `end_date`…"""
        return dict(self.call("GET", f"/dags/{dag_id}/dagRuns/{run_id}"))

    def active_runs(self, dag_id: str) -> list[dict[str, Any]]:
        """Return the DAG's queued and running runs, the oldest first."""
        page = self.call("GET", f"/dags/{dag_id}/dagRuns", params={"state": ["queued", "running"], "limit": 100})
        return sorted(page["dag_runs"], key=lambda run: str(run["run_after"]))

    def tasks(self, dag_id: str) -> list[dict[str, Any]]:
        """Return the DAG's tasks."""
        return list(self.call("GET", f"/dags/{dag_id}/tasks")["tasks"])

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return the run's task instances, mapped ones separately."""
        instances: list[dict[str, Any]] = []
        while True:
            page = self.call(
                "GET",
                f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances",
                params={"limit": 100, "offset": len(instances), "order_by": "map_index"},
            )
            instances += page["task_instances"]
            if len(instances) >= page["total_entries"] or not page["task_instances"]:
                return instances

    def log_lines(self, dag_id: str, run_id: str, task_id: str, attempt: int, map_index: int = -1) -> list[str]:
        """Return the messages in a task's log so far."""
        answer = self.call(
            "GET",
            f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{attempt}",
            params={"map_index": map_index, "full_content": True},
            headers={"Accept": "application/json"},
            missing_ok=True,
        )
        content = (answer or {}).get("content") or []
        return [str(line["event"]) if isinstance(line, dict) else str(line) for line in content]


def _detail(answer: requests.Response) -> str:
    try:
        detail = answer.json()["detail"]
    except (ValueError, KeyError):
        return f"{answer.status_code} {answer.text[:200]}"
    return detail if isinstance(detail, str) else str(detail)
