"""The client of Airflow's REST API against a scripted server with late, lost and refused answers."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from include.stack import airflow_rest
from include.stack.airflow_rest import Airflow
from include.stack.errors import StackError


@pytest.fixture
def server(monkeypatch):
    """Run a server that answers each call by the next of `answers`: (seconds to wait, status, JSON)."""
    answers, received = [], []

    class Handler(BaseHTTPRequestHandler):
        def _answer(self):
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "null")
            received.append((self.command, self.path, body))
            wait, status, content = (0, 201, {"access_token": "t"}) if self.path == "/auth/token" else answers.pop(0)
            time.sleep(wait)
            data = json.dumps(content).encode()
            try:
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
            except OSError:  # the client did not wait
                pass

        do_GET = do_POST = do_PATCH = _answer  # noqa: N815

        def log_message(self, *_):
            pass

    monkeypatch.setattr(airflow_rest, "_SECONDS", 0.4)
    monkeypatch.setattr(airflow_rest, "_PAUSE", 0.01)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http_server:
        threading.Thread(target=http_server.serve_forever, daemon=True).start()
        yield Airflow(f"http://127.0.0.1:{http_server.server_port}", "secret"), answers, received
        http_server.shutdown()


def calls(received):
    return [(method, path) for method, path, _ in received if path != "/auth/token"]


def test_run_when_started_has_our_id_and_no_logical_date(server):
    airflow, answers, received = server
    answers.append((0, 200, {}))

    run_id = airflow.trigger("line_retrain", {"force": True})

    assert received[-1] == (
        "POST",
        "/api/v2/dags/line_retrain/dagRuns",
        {"dag_run_id": run_id, "logical_date": None, "conf": {"force": True}},
    )


def test_run_when_the_answer_is_lost_is_asked_for_again_by_the_same_id_and_not_started_twice(server):
    airflow, answers, received = server
    answers += [(1, 200, {}), (0, 409, {"detail": "exists"})]

    run_id = airflow.trigger("line_retrain", {})

    assert [body["dag_run_id"] for _, path, body in received if path != "/auth/token"] == [run_id, run_id]


def test_run_when_it_is_refused_tells_airflows_reason(server):
    airflow, answers, _ = server
    answers.append((0, 400, {"detail": "Invalid input for param epochs: 0 is less than the minimum of 1"}))

    with pytest.raises(StackError, match="0 is less than the minimum of 1"):
        airflow.trigger("line_retrain", {"epochs": 0})


def test_call_when_the_server_restarts_is_tried_again(server):
    airflow, answers, received = server
    answers += [(0, 503, {}), (1, 200, {}), (0, 200, {"state": "running"})]

    assert airflow.run("line_retrain", "r") == {"state": "running"}
    assert len(calls(received)) == 3


def test_call_when_the_token_ran_out_signs_in_again(server):
    airflow, answers, received = server
    answers += [(0, 200, {"state": "queued"}), (0, 401, {}), (0, 200, {"state": "running"})]
    airflow.run("line_retrain", "r")

    assert airflow.run("line_retrain", "r") == {"state": "running"}
    assert [path for _, path, _ in received].count("/auth/token") == 2


def test_call_when_there_is_no_server_says_where_to_look(monkeypatch):
    from tests.conftest import free_port

    monkeypatch.setattr(airflow_rest, "_PAUSE", 0.01)
    with pytest.raises(StackError, match=r"does not answer \(ConnectionError\): see `make status`"):
        Airflow(f"http://127.0.0.1:{free_port()}", "secret").run("line_retrain", "r")


def test_instances_when_there_are_many_are_read_page_by_page(server):
    airflow, answers, received = server
    answers += [
        (0, 200, {"task_instances": [{"n": 1}, {"n": 2}], "total_entries": 3}),
        (0, 200, {"task_instances": [{"n": 3}], "total_entries": 3}),
    ]

    assert [each["n"] for each in airflow.task_instances("line_retrain", "r")] == [1, 2, 3]
    assert "offset=2" in received[-1][1]
