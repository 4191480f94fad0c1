"""Dynamic batching: items queued during a run share the next run, and no run is delayed to gather more items.

There is no worker thread. A caller that finds no run in progress runs its own item; callers that arrive during a run
queue, and the first of them runs the batch of everything queued by then. An item that arrives alone costs one lock.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Full(Exception):
    """The queue is full."""


class Late(Exception):
    """The run did not end before the caller's timeout; the item may still run, and its result is discarded."""


class _Turn(Generic[Item, Result]):
    """A queued item; its thread waits until the item has been run, or until it has to lead the next batch."""

    __slots__ = ("error", "item", "leads", "result", "woken")

    def __init__(self, item: Item):
        self.item = item
        self.result: Result | None = None
        self.error: BaseException | None = None
        self.leads = False
        self.woken = threading.Lock()
        self.woken.acquire()


class Batches(Generic[Item, Result]):
    """Runs items through `run` in batches of at most `most`, one batch at a time, with a queue of `room` items.

    `observe` is called before each run with the size of the batch and the number of items still queued.
    """

    def __init__(
        self,
        run: Callable[[list[Item]], Sequence[Result]],
        *,
        most: int,
        room: int,
        observe: Callable[[int, int], None] = lambda size, queued: None,
    ):
        self._run, self._most, self._room, self._observe = run, most, room, observe
        self._lock = threading.Lock()
        self._waiting: deque[_Turn[Item, Result]] = deque()
        self._running = False

    def result(self, item: Item, seconds: float | None = None) -> Result:
        """Return the result of `run` for `item`, independent of the other items in its batch.

        Waits at most `seconds` for runs that other callers lead; without limit by default.

        Raises:
            Full: `room` items are queued already.
            Late: the runs led by other callers took longer than `seconds`.
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
        """Remove a timed-out turn from the queue and raise `Late`; return if it has become the leader meanwhile."""
        with self._lock:
            if turn.leads:
                return
            if turn in self._waiting:
                self._waiting.remove(turn)
        raise Late

    def _lead(self) -> None:
        """Run the batch queued now, whose first turn is the caller's, and wake the next leader."""
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
            self._observe(len(batch), len(self._waiting))
            for turn, result in zip(batch, self._run([turn.item for turn in batch]), strict=True):
                turn.result = result
        except Exception as error:
            if len(batch) == 1:
                batch[0].error = error
                return
            for turn in batch:  # each alone, so that only the item at fault fails
                self._answer([turn])
        except BaseException as error:
            for turn in batch:
                turn.error = error
            raise
