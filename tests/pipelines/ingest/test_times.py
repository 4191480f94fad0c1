"""Times of acquisition in the forms that people and programs write."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.ingest.times import read_time

HALF_PAST_ONE = datetime(2026, 5, 1, 11, 30, tzinfo=UTC)  # in Berlin, in summer time


@pytest.mark.parametrize(
    "text",
    ["2026-05-01T13:30:00+02:00", "2026-05-01 13:30", "2026-05-01T11:30Z", "2026-05-01 13:30:00 +0200"]
    + ["2026-05-01 11:30:00 UTC", "2026-05-01_13-30-00", "20260501T133000", "20260501133000", "202605011330"]
    + [
        "260501133000",
        "1777635000.",
        "1777635000",
        "1777635000.0",
        "1777635000000",
        "1777635000000000",
        "20260501133000000",
    ]
    + ["2026:05:01 13:30:00", "2026/05/01 13:30", "2026/5/1 1:30 PM", "2026.05.01 13:30", "01.05.2026 13:30"]
    + ["1.5.2026, 13:30:00", "01.05.2026 13:30:00,000", " 2026-05-01 13:30:00.000 ", "2026-05-01 01:30:00 p.m."],
)
def test_read_time_when_the_form_is_known_reads_it(text: str):
    assert read_time(text, "Europe/Berlin") == HALF_PAST_ONE


def test_read_time_when_twelve_digits_have_one_reading_in_our_time_takes_it():
    assert read_time("260501130500", "UTC") == datetime(2026, 5, 1, 13, 5, tzinfo=UTC)
    assert read_time("1777635000.25", "UTC") == datetime(2026, 5, 1, 11, 30, 0, 250_000, tzinfo=UTC)


def test_read_time_when_days_and_months_cannot_be_confused_takes_either_order():
    for text in ("13/05/2026 08:00", "05/13/2026 8:00 AM", "13-05-2026 08:00"):
        assert read_time(text, "UTC") == datetime(2026, 5, 13, 8, tzinfo=UTC)
    assert read_time("05/05/2026", "UTC") == datetime(2026, 5, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "05/06/2026",
        "06-05-2026 13:30",
        "01.05.26 13:30",
        "46143.5625",
        "201105011230",
        "yesterday",
        "",
        "0",
        "32.01.2026",
    ]
    + ["2026-02-30", "2026:13:01 00:00:00", "2026-05-01 25:00", "13:30", "2026-05-01 13:30 PM", "99999999999999999999"],
)
def test_read_time_when_it_is_none_or_can_mean_two_refuses_it(text: str):
    with pytest.raises(ValueError):  # noqa: PT011 - the kind of error is all that callers see
        read_time(text, "Europe/Berlin")


@given(st.datetimes(datetime(1980, 1, 1), datetime(2090, 1, 1)))
def test_read_time_when_written_in_any_form_gives_the_same_time(moment: datetime):
    moment = moment.replace(microsecond=0)
    forms = ["%Y-%m-%d %H:%M:%S", "%Y%m%d%H%M%S", "%Y:%m:%d %H:%M:%S", "%d.%m.%Y %H:%M:%S", "%Y/%m/%d %H:%M:%S"]
    assert {read_time(moment.strftime(form), "UTC") for form in forms} == {moment.replace(tzinfo=UTC)}
    seconds = round((moment - datetime(1970, 1, 1)) / timedelta(seconds=1))
    assert read_time(str(seconds), "UTC") == moment.replace(tzinfo=UTC)
