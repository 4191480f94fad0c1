import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from include.docker import healthy


@pytest.fixture
def answer():
    """A real HTTP server; what it says is set by the test: (status, body)."""
    answer = {"status": 200, "body": b"{}"}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(answer["status"])
            self.end_headers()
            self.wfile.write(answer["body"])

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    answer["url"] = f"http://127.0.0.1:{server.server_port}"
    yield answer
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(("status", "expected"), [(200, 0), (403, 1), (500, 1)])
def test_url_when_answered_is_healthy_only_with_success(answer, status, expected):
    answer["status"] = status
    assert healthy.main(["url", answer["url"]]) == expected


def test_url_when_nothing_answers_is_unhealthy_and_says_why(capsys):
    assert healthy.main(["url", "http://127.0.0.1:9"]) == 1
    assert "refused" in capsys.readouterr().err


@pytest.mark.parametrize(("status", "expected"), [("healthy", 0), ("unhealthy", 1), (None, 1)])
def test_component_is_as_well_as_airflow_says(answer, monkeypatch, status, expected):
    monkeypatch.setattr(healthy, "MONITOR", answer["url"])
    answer["body"] = json.dumps({"triggerer": {"status": status}}).encode()
    assert healthy.main(["component", "triggerer"]) == expected


def test_worker_when_the_broker_is_away_is_unhealthy(monkeypatch):
    monkeypatch.setenv("AIRFLOW__CELERY__BROKER_URL", "redis://127.0.0.1:9/0")
    assert healthy.main(["worker"]) == 1


@pytest.mark.parametrize("arguments", [[], ["url"], ["what", "x"], ["worker", "x"]])
def test_main_when_called_wrongly_explains_itself(arguments, capsys):
    assert healthy.main(arguments) == 2
    assert "healthy.py url" in capsys.readouterr().err
