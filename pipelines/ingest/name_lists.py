"""Lists of names in messages: the first few, and the number of the others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def some(names: Sequence[str], most: int = 5) -> str:
    """Return the first `most` (default 5) names, and the number of the others, as one text.

    >>> some(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def count_note(what: str, names: Iterable[str], most: int = 5) -> list[str]:
    """Return a line that counts and names, or nothing without names.

    >>> count_note("rows without a file", ["a.png", "b.png"])
    ['2 rows without a file: a.png, b.png']
    """
    every = list(names)
    return [f"{len(every)} {what}: {some(every, most)}"] if every else []
