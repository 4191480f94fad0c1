"""The catalogue: samples, annotations, dataset versions, trainings, requests, predictions and drift reports.

SQLite (WAL) by default, PostgreSQL in production; write transactions are short. The database is imported at first use:
serving starts without it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.catalogue.database import connect, engine, migrate, transaction

__all__ = ["connect", "engine", "migrate", "transaction"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("pipelines.catalogue.database"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
