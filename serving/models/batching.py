"""Lets what has queued while the last run was under way share the next one, and never waits for more to come.

There is no thread of its own: whoever comes while nothing runs, runs; whoever comes meanwhile waits, and the first of
them runs for all that wait by then. A request that comes alone pays one lock.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Full(Exception):
    """As many wait already as may."""


class Late(Exception):
    """The item's time was up before its run was over; what becomes of it nobody is told."""


class _Turn(Generic[Item, Result]):
    """One item in the queue, and the thread that waits for it: until it is done, or has to run the next batch."""

    __slots__ = ("error", "item", "leads", "result", "woken")

    def __init__(self, item: Item):
        self.item = item
        self.result: Result | None = None
        self.error: BaseException | None = None
        self.leads = False
        self.woken = threading.Lock()
        self.woken.acquire()


class Batches(Generic[Item, Result]):
    """Runs items through `run`, at most `most` at a time, one run at a time; `room` may wait.

    `told` is called before each run with the size of its batch, and how many are left waiting.
    """

    def __init__(
        self,
        run: Callable[[list[Item]], Sequence[Result]],
        *,
        most: int,
        room: int,
        told: Callable[[int, int], None] = lambda size, left: None,
    ):
        self._run, self._most, self._room, self._told = run, most, room, told
        self._lock = threading.Lock()
        self._waiting: deque[_Turn[Item, Result]] = deque()
        self._running = False

    def result(self, item: Item, seconds: float | None = None) -> Result:
        """Return what `run` gives for `item`, whatever is beside it, waiting for others at most `seconds`.

        Raises:
            Full: `room` items wait already.
            Late: the runs of others, or the one it shared with them, took longer.
            Exception: what `run` raises for this item alone.
        """
        turn: _Turn[Item, Result] = _Turn(item)
        with self._lock:
            if len(self._waiting) >= self._room:
                raise Full
            self._waiting.append(turn)
            leads, self._running = not self._running, True
        if not leads:
            if not turn.woken.acquire(timeout=-1 if seconds is None else seconds):
                self._leave(turn)
            leads = turn.leads
        if leads:
            self._lead()
        if turn.error is not None:
            raise turn.error
        return turn.result  # type: ignore[return-value]  # set, since there was no error

    def _leave(self, turn: _Turn[Item, Result]) -> None:
        """Have no further run wait for a turn; unless it has come to lead by now, raise `Late`."""
        with self._lock:
            if turn.leads:
                return
            if turn in self._waiting:
                self._waiting.remove(turn)
        raise Late

    def _lead(self) -> None:
        """Run the batch that waits now, whose first turn is the caller's, and hand on."""
        with self._lock:
            batch = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
        try:
            self._answer(batch)
        finally:
            with self._lock:
                following = self._waiting[0] if self._waiting else None
                self._running = following is not None
                if following is not None:
                    following.leads = True
                    following.woken.release()
            for turn in batch[1:]:
                turn.woken.release()

    def _answer(self, batch: list[_Turn[Item, Result]]) -> None:
        try:
            self._told(len(batch), len(self._waiting))
            for turn, result in zip(batch, self._run([turn.item for turn in batch]), strict=True):
                turn.result = result
        except Exception as error:
            if len(batch) == 1:
                batch[0].error = error
                return
            for turn in batch:  # one by one, so that the one to blame fails alone
                self._answer([turn])
        except BaseException as error:
            for turn in batch:
                turn.error = error
            raise
