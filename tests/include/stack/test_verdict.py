import io
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pandas as pd
import pytest

from include.stack import verdict
from include.stack.errors import StackError
from pipelines.datasets.versions import COLUMNS
from pipelines.storage.s3 import Storage


@pytest.fixture
def manifest(bucket):
    """Return a function that stores a manifest of rows (sha256, subset, type) and returns its address."""

    def store(*rows):
        frame = pd.DataFrame(
            [dict.fromkeys(COLUMNS) | dict(zip(("sha256", "subset", "type"), row, strict=True)) for row in rows]
        )
        frame["key"] = "samples/" + frame["sha256"]
        out = io.BytesIO()
        frame.to_parquet(out, index=False)
        return Storage(bucket).put("manifest.parquet", out.getvalue())

    return store


def picked(uri):
    return [(sample["sha256"], sample["type"]) for sample in verdict.pick_samples(uri)]


def test_samples_when_picked_are_the_first_good_and_the_first_of_each_defect_of_the_test_subsets(manifest):
    uri = manifest(
        ("f", "anomaly/test", "dent"),
        ("e", "anomaly/test", "scratch"),
        ("d", "anomaly/test", "dent"),
        ("c", "test", None),
        ("b", "anomaly/threshold", "stain"),
        ("a", "training", None),
    )

    assert picked(uri) == [("c", None), ("d", "dent"), ("e", "scratch")]


def test_samples_when_defects_have_no_type_are_still_picked(manifest):
    assert picked(manifest(("a", "anomaly/test", None), ("b", "anomaly/test", None), ("c", "test", None))) == [
        ("c", None),
        ("a", None),
    ]


def test_samples_when_there_are_many_kinds_of_defects_are_a_handful(manifest):
    assert len(picked(manifest(*((f"{number:02}", "anomaly/test", f"kind{number}") for number in range(9))))) == 4


def test_samples_when_there_are_no_defects_are_one_good_one(manifest):
    assert picked(manifest(("a", "test", None), ("b", "test", None), ("c", "training", None))) == [("a", None)]


def test_samples_of_a_classifier_are_the_first_test_image_of_some_classes(bucket):
    rows = [(f"{number:02}", "test" if number % 3 else "training", f"species {number % 8}") for number in range(40)]
    frame = pd.DataFrame(
        [dict.fromkeys(COLUMNS) | dict(zip(("sha256", "subset", "label"), row, strict=True)) for row in rows]
    )
    out = io.BytesIO()
    frame.to_parquet(out, index=False)
    samples = verdict.pick_of_classes(Storage(bucket).put("manifest.parquet", out.getvalue()))

    assert [sample["label"] for sample in samples] == [f"species {number}" for number in range(5)]
    assert {sample["subset"] for sample in samples} == {"test"}


class _Answers(BaseHTTPRequestHandler):
    """Serving's answer for a classifier, whatever it is asked."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        classes = [{"class": "russula", "probability": 0.8}, {"class": "boletus", "probability": 0.15}]
        answer = {"task": "classification", "class": "russula", "certainty": 0.8, "unsure": True, "classes": classes}
        body = json.dumps(answer | {"model_version": "3", "request_id": "r"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


def test_verdict_of_a_classifier_names_the_class_with_its_certainty_and_the_next(stack, projects, project_name):
    projects.write(project_name, task="classification")
    Storage(projects.bucket).put("a.png", b"image")
    server = ThreadingHTTPServer(("127.0.0.1", stack.ports["serving"]), _Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        answer = verdict.ask_class(stack, project_name, {"key": "a.png", "label": "russula"})
    finally:
        server.shutdown()
        server.server_close()

    assert (answer.named, answer.certainty, answer.unsure, answer.right) == ("russula", 0.8, True, True)
    assert answer.others == (("boletus", 0.15),)


def test_serving_when_there_is_no_champion_is_not_waited_for(stack, projects, mlflow_server, project_name):
    projects.write(project_name)

    with pytest.raises(StackError, match=f"{project_name} has no champion version yet, so nothing serves"):
        verdict.await_served(stack, project_name)
