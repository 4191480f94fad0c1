import io

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


def test_serving_when_there_is_no_champion_is_not_waited_for(stack, projects, mlflow_server, project_name):
    projects.write(project_name)

    with pytest.raises(StackError, match=f"{project_name} has no champion version yet, so nothing serves"):
        verdict.await_served(stack, project_name)
