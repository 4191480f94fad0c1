"""What serving asks of the catalogue, imported with the first use of it or in the background, whichever comes first.

SQLAlchemy takes a third of the time that all of serving's imports take, and neither readiness nor the answer of a
remembered model waits for it. Use it by attribute: `catalogue.find_job(…)`.
"""

import threading
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy import Connection, select, text
    from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError

    from pipelines.catalogue import connect, transaction, users
    from pipelines.catalogue.prediction_history import VERDICTS, Place, Wanted, read_page
    from pipelines.catalogue.predictions import enter
    from pipelines.catalogue.schema import trainings
    from pipelines.datasets.corrections import ImageGone, NoSuchPrediction, annotate, sha256_of
    from pipelines.ingest.index_csv import read_time
    from pipelines.ingest.submission import BadName, Posted, take_in
    from pipelines.requests.status import answer, find_job, is_ended

_HOMES = {
    "sqlalchemy": ("Connection", "select", "text"),
    "sqlalchemy.exc": ("DataError", "IntegrityError", "SQLAlchemyError"),
    "pipelines.datasets.corrections": ("ImageGone", "NoSuchPrediction", "annotate", "sha256_of"),
    "pipelines.catalogue": ("connect", "transaction", "users"),
    "pipelines.catalogue.schema": ("trainings",),
    "pipelines.ingest.index_csv": ("read_time",),
    "pipelines.ingest.submission": ("BadName", "Posted", "take_in"),
    "pipelines.requests.status": ("answer", "find_job", "is_ended"),
    "pipelines.catalogue.prediction_history": ("VERDICTS", "Place", "Wanted", "read_page"),
    "pipelines.catalogue.predictions": ("enter",),
}
_importing = threading.RLock()
_HOME = {name: home for home, names in _HOMES.items() for name in names}
__all__ = [
    "VERDICTS", "BadName", "Connection", "DataError", "ImageGone", "IntegrityError", "NoSuchPrediction", "Place",
    "Posted", "SQLAlchemyError", "Wanted", "annotate", "answer", "connect", "enter", "find_job", "is_ended",
    "read_page", "read_time", "select", "sha256_of", "take_in", "text", "trainings", "transaction", "users",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import what is asked for (PEP 562), and remember it."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with _importing:  # of two threads in one package, each could wait for what the other has begun
        import_module("pipelines.catalogue.users")  # an attribute of its package, once it is imported
        value = globals()[name] = getattr(import_module(_HOME[name]), name)
    return value


def load() -> None:
    """Import all of it now."""
    for name in _HOME:
        __getattr__(name)
