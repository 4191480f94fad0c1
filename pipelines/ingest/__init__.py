"""Takes in what lies in a project's inbox: list it, work through it batch by batch, report.

Each step can be killed at any moment and run again. An object leaves the inbox only when what it holds is safe in S3
and in the catalogue; writes to S3 name their content, and a batch's writes to the catalogue are one transaction.
"""

from pipelines.ingest.batch import ingest_batch
from pipelines.ingest.inbox import list_inbox
from pipelines.ingest.report import report

__all__ = ["ingest_batch", "list_inbox", "report"]
