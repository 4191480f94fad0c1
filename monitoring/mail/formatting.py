"""Formats numbers, dates and reasons for mails and reports."""

from __future__ import annotations

import math
import re
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from pipelines.steps import Estimate

# The usual causes of drift of each descriptor.
CAUSES = {
    "width": "camera resolution or cropping",
    "height": "camera resolution or cropping",
    "brightness": "lighting or exposure",
    "contrast": "lighting, exposure, or haze on the lens",
    "sharpness": "focus, vibration, or a dirty lens",
    "saturation": "white balance or the colour of the light",
    "warmth": "white balance or the colour of the light",
    "noise": "camera gain, exposure time, or compression",
    "entropy": "texture of the surface, or compression",
    "shadows": "lighting too weak, or something in its way",
    "highlights": "overexposure or reflections",
}
_VERDICT = re.compile(r"(not )?promoted: |failed: ", re.IGNORECASE)
STATES = {
    "drift": "drift",
    "no_drift": "no drift",
    "too_few": "too few images",
    "no_champion": "no champion yet",
}


def number(value: Any) -> str:
    """Return a number in three significant digits (whole ones in full), and a dash for none."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return "–"
    if value == int(value) and abs(value) < 1e6:
        return f"{int(value):,}"
    if abs(value) < 1e-3:
        return f"{value:.2g}" if abs(value) >= 1e-4 else f"{value:.0e}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:#.3g}"


def setting(value: Any) -> str:
    """Return a setting's value: yes, no, a number, a word."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def percent(value: Any) -> str:
    """Return a share as a percentage: 0.0312 as 3.1 %."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return "–"
    return f"{value * 100:.1f} %" if abs(value) < 0.1 else f"{value * 100:.0f} %"


def tenths(share: float) -> str:
    """Return a share as a percentage with one decimal, so that 0.698 is not taken for a minimum of 70 %: 69.8 %."""
    return f"{share * 100:.1f} %"


def interval(value: Any) -> str:
    """Return the confidence interval of an estimate, (0.94 to 0.98), or nothing."""
    return f"({number(value.low)} to {number(value.high)})" if isinstance(value, Estimate) else ""


def estimate(value: Any) -> str:
    """Return an estimate or a plain number without its confidence interval."""
    return number(value.value) if isinstance(value, Estimate) else number(value)


def signed(value: Estimate) -> str:
    """Return a difference with its sign and its confidence interval: +0.021 (-0.010 to +0.052)."""
    return f"{value.value:+.3f} ({value.low:+.3f} to {value.high:+.3f})"


def reason(why: Any) -> str:
    """Return the reason of a decision without its leading verdict, which the mail shows separately."""
    text = str(why or "")
    shown = _VERDICT.sub("", text, count=1) if _VERDICT.match(text) else text
    return shown[:1].upper() + shown[1:]


def moment(value: datetime | str, zone: str) -> str:
    """Return a point in time in the project's time zone: 21 November 2026, 09:30 CET."""
    instant = datetime.fromisoformat(value) if isinstance(value, str) else value
    return instant.astimezone(ZoneInfo(zone)).strftime("%-d %B %Y, %H:%M %Z")


def day(value: datetime | str, zone: str) -> str:
    """Return the day of a point in time in the project's time zone: Sat 21 Nov."""
    instant = datetime.fromisoformat(value) if isinstance(value, str) else value
    return instant.astimezone(ZoneInfo(zone)).strftime("%a %-d %b")
