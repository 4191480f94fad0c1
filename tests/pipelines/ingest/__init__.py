"""Tests of pipelines.ingest."""
