"""Replace this process by one program of the stack: `python -m include.stack.launch …`.

What an earlier incarnation left behind (children of a server killed with -9, which hold its port) is ended first.
With `--after PORT` the program starts when something answers there, or after two minutes at the latest.
"""

import argparse
import os
import socket
import sys
import time
from pathlib import Path

from include.stack import processes
from include.stack.layout import HOST

_PATIENCE = 120.0  # seconds


def main(arguments: list[str]) -> None:
    """End leftovers of the program's previous process, wait for its dependency, and exec it."""
    parser = argparse.ArgumentParser(prog="include.stack.launch")
    parser.add_argument("home", type=Path)
    parser.add_argument("program")
    parser.add_argument("--after", type=int, metavar="PORT")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args(arguments)
    for left in processes.end(options.home, options.program):
        print(f"ended process {left.pid}, left behind by the last {left.program}", flush=True)
    if options.after:
        _wait_for(options.after)
    os.environ[processes.MARK] = processes.mark(options.home, options.program)
    os.execvp(options.command[0], options.command)  # noqa: S606 - the command is the stack's own


def _wait_for(port: int) -> None:
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        try:
            socket.create_connection((HOST, port), timeout=2).close()
        except OSError:
            time.sleep(0.5)
        else:
            return


if __name__ == "__main__":
    main(sys.argv[1:])
