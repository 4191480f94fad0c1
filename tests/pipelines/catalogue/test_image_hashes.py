"""Near hashes are found by bands, all of them, and by index."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event, insert

from pipelines.catalogue import connect, engine, transaction
from pipelines.catalogue.image_hashes import NEAR, KnownHashes, enter_hashes, find_near
from pipelines.catalogue.schema import samples

HASH = st.integers(0, 2**64 - 1)


def enter(numbers: dict[str, int]) -> None:
    fixed = {"project": "line", "key": "k", "format": "PNG", "width": 8, "height": 8, "mode": "RGB", "size_bytes": 1}
    with transaction() as connection:
        rows = [fixed | {"sha256": name, "group_key": f"of {name}", "source_key": "s"} for name in numbers]
        connection.execute(insert(samples), rows)
        enter_hashes(connection, "line", numbers)


@given(number=HASH, flipped=st.sets(st.integers(0, 63), max_size=10))
def test_hash_is_near_if_at_most_four_bits_differ(number: int, flipped: set[int]):
    known = KnownHashes()
    known.add(number, "group")
    other = number ^ sum(1 << bit for bit in flipped)
    assert known.nearest(other) == ("group" if len(flipped) <= NEAR else None)


def test_nearest_of_several_is_taken():
    known = KnownHashes()
    known.add(0b1111, "far")
    known.add(0b0001, "near")
    assert known.nearest(0) == "near"


@pytest.mark.usefixtures("each_database")
def test_find_near_finds_earlier_samples_and_entering_twice_changes_nothing():
    enter({"a": 2**64 - 1, "b": 0x1234_5678_9ABC_DEF0})
    with transaction() as connection:
        enter_hashes(connection, "line", {"a": 2**64 - 1})
        known = find_near(connection, "line", {"new": 2**64 - 1 - (1 << 63) - (1 << 20) - 1})
        assert known.nearest(2**64 - 1 - (1 << 63) - (1 << 20) - 1) == "of a"
        assert find_near(connection, "other", {"new": 2**64 - 1}).nearest(2**64 - 1) is None


def test_find_near_reads_by_index_alone(database):
    enter({f"{number:04}": (number * 0x9E37_79B9_7F4A_7C15) % 2**64 for number in range(300)})
    statements = []

    def note(connection, cursor, statement, parameters, context, many):
        statements.append((statement, parameters))

    event.listen(engine(), "before_cursor_execute", note)
    try:
        with connect() as connection:
            find_near(connection, "line", {str(number): number for number in range(150)})
    finally:
        event.remove(engine(), "before_cursor_execute", note)
    with connect() as connection:
        for statement, parameters in statements:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
            assert not [step.detail for step in plan if step.detail.startswith("SCAN")]
