"""Read times of acquisition as people and programs write them; a form that can mean two times is refused.

Accepted, in this order:

* digits alone: Unix time in seconds (9 or 10 digits, also with a fraction), milliseconds (13), microseconds (16) or
  nanoseconds (19); `YYYYMMDD`; `YYYYMMDDHHMMSS`, also with milliseconds; 12 digits as `YYYYMMDDHHMM` or
  `YYMMDDHHMMSS`, whichever exists;
* ISO 8601, also with a space before the offset, `UTC`, or hyphens within the time;
* EXIF's `2026:05:01 13:30:00`, and `2026/05/01` or `2026.05.01` with a time;
* `01.05.2026 13:30`, day first, as everywhere that writes dates with dots;
* `13/05/2026` or `5/13/2026`, and the same with hyphens, where one reading exists: `05/06/2026` has two.

The time of day may have seconds, a fraction, and AM or PM.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

_SECOND = r"(?:[:.-](?P<second>\d{2})(?:[.,](?P<fraction>\d{1,9}))?)?"
_TIME = rf"(?:(?:T|\s+|,\s*|_)(?P<hour>\d{{1,2}})[:.h-](?P<minute>\d{{2}}){_SECOND})?"
_ZONE = r"\s*(?P<half>[AaPp]\.?[Mm]\.?)?\s*(?P<zone>Z|UTC|GMT|[+-]\d{2}:?\d{2})?"
_YEAR_FIRST = re.compile(
    rf"(?P<year>\d{{4}})(?P<mark>[-:/.])(?P<month>\d{{1,2}})(?P=mark)(?P<day>\d{{1,2}}){_TIME}{_ZONE}"
)
_YEAR_LAST = re.compile(rf"(?P<one>\d{{1,2}})(?P<mark>[-/.])(?P<two>\d{{1,2}})(?P=mark)(?P<year>\d{{4}}){_TIME}{_ZONE}")
_DIGITS = {8: ("%Y%m%d",), 12: ("%Y%m%d%H%M", "%y%m%d%H%M%S"), 14: ("%Y%m%d%H%M%S",), 17: ("%Y%m%d%H%M%S%f",)}
_YEARS = range(1970, 2100)  # of which digits may be
_UNIX = {9: 0, 10: 0, 13: 3, 16: 6, 19: 9}  # number of digits: of which after the second


def read_time(text: str, timezone: str) -> datetime:
    """Parse a time, in `timezone` if it names no zone.

    >>> read_time("01.05.2026 13:30", "Europe/Berlin").isoformat()
    '2026-05-01T13:30:00+02:00'

    Raises:
        ValueError: it is not a valid time, can mean more than one, or is not representable in UTC.
    """
    text = text.strip()
    try:
        moment = _read(text)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=ZoneInfo(timezone))
        moment.astimezone(UTC)  # the catalogue stores UTC, which overflows within hours of datetime's limits
    except (OverflowError, OSError) as error:
        raise ValueError(str(error)) from error
    return moment


def _read(text: str) -> datetime:
    if re.fullmatch(r"[0-9]+(\.[0-9]*)?", text):
        return _of_digits(*text.partition(".")[::2])
    if match := _YEAR_FIRST.fullmatch(text):
        return _moment(match, int(match["month"]), int(match["day"]))
    if match := _YEAR_LAST.fullmatch(text):
        orders = [(int(match["two"]), int(match["one"]))]  # month, day
        if match["mark"] != ".":
            orders.append((int(match["one"]), int(match["two"])))
        readings = {reading for order in orders if (reading := _if_valid(match, *order))}
        if len(readings) == 1:
            return readings.pop()
        raise ValueError(f"{text!r} can mean two days" if readings else f"{text!r} is no day")
    return datetime.fromisoformat(text)


def _of_digits(digits: str, fraction: str) -> datetime:
    after_second = _UNIX.get(len(digits))
    if after_second is not None and not (fraction and after_second):
        microseconds = int(digits + fraction[:6]) * 10**6 // 10 ** (after_second + len(fraction[:6]))
        return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=microseconds)
    readings = []
    for form in _DIGITS.get(len(digits), ()) if not fraction else ():
        try:
            reading = datetime.strptime(digits, form)
        except ValueError:
            continue
        if reading.year in _YEARS:
            readings.append(reading)
    if len(readings) != 1:
        raise ValueError(f"{digits!r} is no time, or can mean two")
    return readings[0]


def _if_valid(match: re.Match[str], month: int, day: int) -> datetime | None:
    try:
        return _moment(match, month, day)
    except ValueError:
        return None


def _moment(match: re.Match[str], month: int, day: int) -> datetime:
    hour = int(match["hour"] or 0)
    if match["half"]:
        if not 1 <= hour <= 12:
            raise ValueError(f"{hour} o'clock has neither AM nor PM")
        hour = hour % 12 + (12 if match["half"][0] in "Pp" else 0)
    fraction = int((match["fraction"] or "").ljust(6, "0")[:6])
    moment = datetime(
        int(match["year"]), month, day, hour, int(match["minute"] or 0), int(match["second"] or 0), fraction
    )
    return moment.replace(tzinfo=read_offset(match["zone"])) if match["zone"] else moment


def read_offset(text: str) -> timezone:
    """Parse an offset from UTC: `Z`, `UTC`, `GMT`, `+02:00` or `+0200`.

    Raises:
        ValueError: it is none.
    """
    if text in ("Z", "UTC", "GMT"):
        return UTC
    match = re.fullmatch(r"([+-])(\d{2}):?(\d{2})", text)
    if not match or int(match[2]) > 14 or int(match[3]) > 59:
        raise ValueError(f"{text!r} is no offset from UTC")
    offset = timedelta(hours=int(match[2]), minutes=int(match[3]))
    return timezone(-offset if match[1] == "-" else offset)
