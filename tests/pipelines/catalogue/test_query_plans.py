"""The cost of queries over all samples grows with their number, not with its square: read from the query plans."""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, event, text

from pipelines.catalogue import connect, engine, transaction
from pipelines.catalogue.samples import labelled_samples, new_images
from pipelines.catalogue.schema import annotations, groups, samples
from pipelines.datasets.versions import freeze
from pipelines.ingest import list_inbox, report
from pipelines.ingest.commit import class_counts, side_counts

COUNT = 600
SIDES = ("training", "validation", "test")


def fill(count: int, project: str = "line") -> None:
    """Enter samples: of ten, one is an anomaly, one is disputed, and one has no label."""
    hashes = [hashlib.sha256(f"{project}{number}".encode()).hexdigest() for number in range(count)]
    fixed = {"key": "k", "format": "PNG", "width": 8, "height": 8, "mode": "RGB", "size_bytes": 1, "descriptors": {}}
    said = [("good",)] * 7 + [("anomaly",), ("good", "anomaly"), ()]
    with transaction() as connection:
        connection.execute(
            groups.insert(),
            [
                {"project": project, "group_key": sha256, "side": SIDES[number % 3], "origin": "hashed"}
                for number, sha256 in enumerate(hashes)
            ],
        )
        connection.execute(
            samples.insert(),
            [
                fixed | {"project": project, "sha256": sha256, "group_key": sha256, "source_key": f"s/{sha256}"}
                for sha256 in hashes
            ],
        )
        connection.execute(
            annotations.insert(),
            [
                {"project": project, "sha256": sha256, "label": label, "origin": "inbox", "source_key": label}
                for number, sha256 in enumerate(hashes)
                for label in said[number % 10]
            ],
        )


@contextmanager
def recorded() -> Iterator[list[tuple[str, Any]]]:
    """Collect the statements that read or set the planner's options, with their parameters as the driver gets them."""
    statements: list[tuple[str, Any]] = []

    def note(connection, cursor, statement, parameters, context, many):
        if statement.startswith(("SELECT", "SET LOCAL")) and "pg_" not in statement:
            statements.append((statement, parameters))

    event.listen(engine(), "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(engine(), "before_cursor_execute", note)


def inner_scans(connection: Connection, statement: str, parameters: Any) -> list[str]:
    """Return the steps of SQLite's plan that read a whole table, or an unindexed subquery, once for each outer row."""
    steps = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
    began: set[int] = set()
    found = []
    for _, parent, _, detail in steps:
        if detail.startswith(("SCAN", "SEARCH")):
            # Within a level of the plan, the first loop runs once, and each further one for every row of those before.
            if parent in began and detail.startswith("SCAN"):
                found.append(detail)
            began.add(parent)
    return found


def rows_read(connection: Connection, statement: str, parameters: Any) -> int:
    """Return the rows that PostgreSQL touches when it runs the statement, those that it throws away included."""
    (plan,) = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters).scalar_one()

    def count(node: dict[str, Any]) -> float:
        each = sum(node.get(f"Rows Removed by {why}", 0) for why in ("Filter", "Join Filter", "Index Recheck"))
        below = sum(count(child) for child in node.get("Plans", ()))
        return (node["Actual Rows"] + each) * node["Actual Loops"] + below

    return int(count(plan["Plan"]))


def asked(name: str) -> Callable[[], Any]:
    def on_connection(query: Callable[..., Any]) -> Callable[[], Any]:
        def call() -> Any:
            with connect() as connection:
                return query(connection, "line")

        return call

    calls: dict[str, Callable[[], Any]] = {
        "freeze": lambda: freeze("line"),
        "report": lambda: report("line", "run", []),
        "list_inbox": lambda: list_inbox("line", "run"),
        "labelled_samples": on_connection(labelled_samples),
        "side_counts": on_connection(side_counts),
        "class_counts": on_connection(class_counts),
        "new_images": on_connection(new_images),
    }
    return calls[name]


@pytest.mark.parametrize("analysed", [False, True])
@pytest.mark.parametrize(
    "name", ["freeze", "report", "list_inbox", "labelled_samples", "side_counts", "class_counts", "new_images"]
)
def test_query_over_all_samples_reads_each_row_a_few_times(projects, each_database, name: str, analysed: bool):
    projects.write("line")
    fill(COUNT)
    if analysed:
        with transaction() as connection:
            connection.execute(text("ANALYZE"))
    with recorded() as statements:
        asked(name)()
    assert statements
    with connect() as connection:
        for statement, parameters in statements:
            if engine().dialect.name == "sqlite":
                assert inner_scans(connection, statement, parameters) == [], statement
            elif statement.startswith("SET"):
                connection.exec_driver_sql(statement)
            else:
                assert rows_read(connection, statement, parameters) < 30 * COUNT, statement


def test_counts_of_sides_and_of_what_is_left_out_agree_with_what_was_entered(projects, each_database):
    projects.write("line")
    fill(COUNT)
    fill(30, "other")
    with connect() as connection:
        good, anomalies = side_counts(connection, "line")
    assert (sum(good.values()), sum(anomalies.values())) == (COUNT * 9 // 10, COUNT // 10)
    frozen = freeze("line")
    assert sum(frozen.counts.values()) == COUNT * 8 // 10
    assert f"Left out: {COUNT // 10} unlabelled, {COUNT // 10} disputed" in frozen.notes
    summary = report("line", "run", [])
    assert (summary["disputed"], summary["unlabelled"]) == (COUNT // 10, COUNT // 10)
    json.dumps(summary)
