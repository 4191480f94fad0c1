"""HTTP with MLflow: credentials are sent to its own server only."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from pipelines.registry.rest import save


def test_token_when_a_version_lies_on_another_server_then_mlflow_alone_is_shown_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    requests_by_thread: dict[int, str | None] = {}

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests_by_thread[self.server.server_address[1]] = self.headers["Authorization"]
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    servers = [HTTPServer(("127.0.0.1", 0), Server) for _ in range(2)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    ours, other = (server.server_address[1] for server in servers)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{ours}")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "secret")
    for port in (ours, other):
        save(f"http://127.0.0.1:{port}/files/model.onnx", tmp_path / "model.onnx")
    for server in servers:
        server.shutdown()
        server.server_close()
    assert requests_by_thread == {ours: "Bearer secret", other: None}
