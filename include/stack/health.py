"""Check the health of each program of the stack through its public interface."""

import socket
from collections.abc import Mapping
from typing import Any

import requests

from include.stack import supervision
from include.stack.layout import HOST, Stack
from include.stack.programs import Program, programs

_SECONDS = 3.0
_PATHS = {"s3": "/", "mlflow": "/health", "api-server": "/api/v2/monitor/health", "serving": "/status"}
_HEARTBEATS = {"scheduler": "scheduler", "triggerer": "triggerer", "dag-processor": "dag_processor"}


def check(stack: Stack) -> dict[str, str]:
    """Return `healthy` or a short description of the problem for each program."""
    states = supervision.states(stack)
    airflow: Mapping[str, Any] | None = None
    health_states = {}
    for program in programs(stack):
        state = states.get(program.name, {}).get("statename", "STOPPED")
        if state != "RUNNING":
            health_states[program.name] = state.lower()
            continue
        if program.name in _HEARTBEATS or program.name == "api-server":
            airflow = _airflow(stack) if airflow is None else airflow
            health_states[program.name] = _airflow_health(program.name, airflow, float(states[program.name]["start"]))
        else:
            health_states[program.name] = _plain_health(stack, program)
    return health_states


def _plain_health(stack: Stack, program: Program) -> str:
    if program.listener is None:
        return "healthy"
    if program.name not in _PATHS:
        return "healthy" if _greets(stack.ports[program.listener]) else "does not answer"
    try:
        answer = requests.get(stack.url(program.listener) + _PATHS[program.name], timeout=_SECONDS)
    except requests.RequestException:
        return "does not answer"
    # Serving answers 503 without a model, which is healthy.
    well = answer.status_code < 500 or (program.name == "serving" and answer.status_code == 503)
    return "healthy" if well else f"answers {answer.status_code}"


def _greets(port: int) -> bool:
    """Return whether an SMTP server greets at `port`."""
    try:
        with socket.create_connection((HOST, port), timeout=_SECONDS) as connection:
            return connection.recv(3) == b"220"
    except OSError:
        return False


def _airflow(stack: Stack) -> Mapping[str, Any]:
    try:
        answer = requests.get(stack.url("airflow") + _PATHS["api-server"], timeout=_SECONDS)
        answer.raise_for_status()
        return dict(answer.json())
    except (requests.RequestException, ValueError):
        return {}


def _airflow_health(program: str, airflow: Mapping[str, Any], started: float) -> str:
    """Return a component's health as reported by the API server; heartbeats older than its last start are ignored."""
    if not airflow:
        return "does not answer" if program == "api-server" else "waits for api-server"
    if program == "api-server":
        status = airflow.get("metadatabase", {}).get("status")
        return "healthy" if status == "healthy" else "cannot reach its database"
    part = airflow.get(_HEARTBEATS[program]) or {}
    beat = part.get(f"latest_{_HEARTBEATS[program]}_heartbeat")
    if not beat or _seconds(beat) < started:
        return "starting"
    return "healthy" if part.get("status") == "healthy" else "no heartbeat"


def _seconds(instant: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(instant).timestamp()
