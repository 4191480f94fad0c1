"""Ingest a project's inbox: list it, process it batch by batch, report.

Every step is idempotent and may be killed at any time. An object leaves the inbox only after its content is stored in
S3 and in the catalogue; S3 keys are content addresses, and each batch is one catalogue transaction.
"""

from pipelines.ingest.batch import ingest_batch
from pipelines.ingest.inbox import list_inbox
from pipelines.ingest.report import report

__all__ = ["ingest_batch", "list_inbox", "report"]
