"""The parts of the catalogue that serving uses, imported lazily: at the first use, or in the background after start.

SQLAlchemy accounts for a third of serving's import time, which neither readiness nor the first predictions need to wait
for. Access the names as attributes: `catalogue.find_job(…)`.
"""

import threading
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy import Connection, select, text
    from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError

    from pipelines.catalogue import connect, login_addresses, transaction, users
    from pipelines.catalogue.annotations import proposals
    from pipelines.catalogue.past_accuracy import past_accuracy
    from pipelines.catalogue.prediction_history import VERDICTS, Place, Wanted, read_page
    from pipelines.catalogue.predictions import enter, find_prediction
    from pipelines.catalogue.requests import ask
    from pipelines.catalogue.samples import count_since, has_label
    from pipelines.catalogue.schema import trainings
    from pipelines.datasets.corrections import ImageGone, NoSuchPrediction, annotate, propose, sha256_of
    from pipelines.ingest.index_csv import read_time
    from pipelines.ingest.submission import BadName, Posted, take_in
    from pipelines.requests.status import answer, find_job, is_ended

_HOMES = {
    "sqlalchemy": ("Connection", "select", "text"),
    "sqlalchemy.exc": ("DataError", "IntegrityError", "SQLAlchemyError"),
    "pipelines.datasets.corrections": ("ImageGone", "NoSuchPrediction", "annotate", "propose", "sha256_of"),
    "pipelines.catalogue": ("connect", "login_addresses", "transaction", "users"),
    "pipelines.catalogue.schema": ("trainings",),
    "pipelines.ingest.index_csv": ("read_time",),
    "pipelines.ingest.submission": ("BadName", "Posted", "take_in"),
    "pipelines.requests.status": ("answer", "find_job", "is_ended"),
    "pipelines.catalogue.prediction_history": ("VERDICTS", "Place", "Wanted", "read_page"),
    "pipelines.catalogue.annotations": ("proposals",),
    "pipelines.catalogue.past_accuracy": ("past_accuracy",),
    "pipelines.catalogue.predictions": ("enter", "find_prediction"),
    "pipelines.catalogue.requests": ("ask",),
    "pipelines.catalogue.samples": ("count_since", "has_label"),
}
_importing = threading.RLock()
_HOME = {name: home for home, names in _HOMES.items() for name in names}
__all__ = [
    "VERDICTS", "BadName", "Connection", "DataError", "ImageGone", "IntegrityError", "NoSuchPrediction", "Place",
    "Posted", "SQLAlchemyError", "Wanted", "annotate", "answer", "ask", "connect", "count_since", "enter", "find_job",
    "find_prediction", "has_label", "is_ended", "login_addresses", "past_accuracy", "proposals", "propose",
    "read_page", "read_time", "select", "sha256_of", "take_in", "text", "trainings", "transaction", "users",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import the object behind an attribute on first access (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with _importing:  # two threads that import parts of one package could deadlock
        import_module("pipelines.catalogue.users")  # becomes an attribute of its package, as login_addresses does
        value = globals()[name] = getattr(import_module(_HOME[name]), name)
    return value


def load() -> None:
    """Import everything now."""
    for name in _HOME:
        __getattr__(name)
