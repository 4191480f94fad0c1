"""Watch over what supervisord cannot see: supervisord itself, and the scheduler's worker processes.

supervisord restarts the guard, the guard starts supervisord anew: one of them may die at any moment.

A worker of the LocalExecutor that is killed while it waits for a task takes the queue's lock with it, and no task
starts ever again; so the scheduler is restarted when one is missing.
"""

import os
import time

import psutil

from include.stack import supervision
from include.stack.errors import StackError
from include.stack.layout import Stack, open_stack
from include.stack.processes import MARK, find

_EVERY = 3.0  # seconds
_WORKER = "airflow worker -- LocalExecutor"


def main() -> None:
    """Watch until told to end."""
    stack = open_stack()
    parent = os.getppid()
    most: dict[int, int] = {}  # workers of a scheduler, by its process id
    while True:
        time.sleep(_EVERY)
        if os.getppid() != parent:
            # Nothing is printed: the pipe to the supervisor's log went with it.
            supervision.spawn(stack, {name: value for name, value in os.environ.items() if name != MARK})
            return  # the new supervisor starts a guard of its own
        scheduler = int(supervision.states(stack).get("scheduler", {}).get("pid", 0))
        alive = workers(stack, scheduler) if scheduler else 0
        if scheduler and alive < most.get(scheduler, 0):
            print(f"{most[scheduler] - alive} of the scheduler's workers died: restarting it", flush=True)
            most = {}
            try:
                supervision.restart_program(stack, "scheduler")
            except (StackError, OSError) as error:
                print(error, flush=True)
        else:
            most = {scheduler: max(alive, most.get(scheduler, 0))}


def workers(stack: Stack, scheduler: int) -> int:
    """Return how many LocalExecutor workers are alive beneath the process `scheduler`."""
    count = 0
    for member in find(stack.home, "scheduler"):
        try:
            process = psutil.Process(member.pid)
            count += process.ppid() == scheduler and " ".join(process.cmdline()).startswith(_WORKER)
        except (psutil.Error, OSError):
            continue
    return count


if __name__ == "__main__":
    main()
