"""The catalogue: records of samples, annotations, dataset versions, trainings, requests, predictions and drift reports.

SQLite (WAL) by default, PostgreSQL in production; write transactions are short.
"""

from pipelines.catalogue.database import connect, engine, migrate, transaction

__all__ = ["connect", "engine", "migrate", "transaction"]
