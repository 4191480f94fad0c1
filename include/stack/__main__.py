"""`python -m include.stack up|down|status`: the local stack from the command line."""

import argparse
import sys
from pathlib import Path

from include.stack import boot, screen, supervision
from include.stack.layout import open_stack
from pipelines.errors import InspectlineError


def _up(options: argparse.Namespace) -> int:
    stack = open_stack(options.home)
    with screen.BootDisplay() as display:
        environ = boot.up(stack, display)
    screen.show_addresses(stack, environ)
    screen.console.print("Stop it with [bold]make down[/]; [bold]make status[/] shows how it does.")
    return 0


def _down(options: argparse.Namespace) -> int:
    stack = open_stack(options.home)
    was_running = supervision.running(stack)
    boot.down(stack)
    screen.console.print("The stack is down." if was_running else "The stack was not running.")
    return 0


def _status(options: argparse.Namespace) -> int:
    return 0 if screen.show_status(open_stack(options.home)) else 1


def main(arguments: list[str]) -> int:
    """Run one command and return the exit status; what goes wrong is said in one line."""
    parser = argparse.ArgumentParser(prog="python -m include.stack")
    parser.add_argument("--home", type=Path, help="the stack's folder (default: INSPECTLINE_HOME, else var)")
    commands = parser.add_subparsers(required=True, metavar="command")
    for name, act, told in (
        ("up", _up, "start the stack and wait until it is healthy"),
        ("down", _down, "stop the stack"),
        ("status", _status, "show every process"),
    ):
        commands.add_parser(name, help=told).set_defaults(act=act)
    options = parser.parse_args(arguments)
    try:
        return int(options.act(options))
    except InspectlineError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
