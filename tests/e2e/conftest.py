"""A whole local stack of its own: real Airflow components, MLflow, S3, mailbox and serving, on free ports."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from include.stack import boot, images_in
from include.stack.airflow_rest import Airflow
from include.stack.layout import LISTENERS, Stack, open_stack
from tests.conftest import free_port

PROJECT = "cells"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Boot a stack for the module, with one project that learns in seconds; leave no process behind."""
    home = tmp_path_factory.mktemp("stack")
    before = dict(os.environ)
    made = open_stack(home, {variable: str(free_port()) for _, variable, _ in LISTENERS.values()}, None)
    made.make_folders()
    (made.projects / f"{PROJECT}.yaml").write_text(
        yaml.safe_dump(
            {
                "title": "Cells of the end-to-end test",
                # Whether the line works is asked here, not how good a model a busy machine learns in seconds.
                "model": {"input_size": 64, "resize": "tile", "epochs": 40, "time_budget_minutes": 1},
                "threshold": {"false_positive_rate": 0.2},
                "promotion": {"minimum_auroc": 0, "margin": 1},
                "retrain": {"new_images": 40},
                "drift": {"minimum_images": 20},
                "recipients": ["quality@example.com"],
            }
        ),
        encoding="utf-8",
    )
    try:
        images_in.use(boot.up(made, lambda _: None, None))
        yield made
    finally:
        boot.down(made)
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="module")
def airflow(stack: Stack) -> Airflow:
    """Return a client of the stack's Airflow."""
    return Airflow.of(stack, os.environ)


@pytest.fixture(scope="module")
def inbox(stack: Stack) -> Path:
    """Return the project's inbox as the plain folder that people drop images into."""
    return stack.objects / "inspectline" / PROJECT / "inbox"
