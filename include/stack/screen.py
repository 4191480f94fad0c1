"""Output of the stack's commands: a live display on a terminal, plain lines elsewhere."""

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from include.stack import health, processes, supervision
from include.stack.credentials import ADMIN
from include.stack.layout import LISTENERS, Stack
from include.stack.programs import programs
from pipelines.catalogue.users import FIRST

console = Console(highlight=False)
if not console.is_terminal:
    console = Console(highlight=False, width=160)  # avoids truncation where there is no terminal
_ADDRESSED = {"s3": "s3", "mailbox": "smtp", "mlflow": "mlflow", "api-server": "airflow", "serving": "serving"}


class BootDisplay:
    """Displays the health of the programs while they start."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._healthy: dict[str, float] = {}
        self._live = Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None

    def __enter__(self) -> "BootDisplay":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, health_states: Mapping[str, str]) -> None:
        """Refresh the display with the health of each program."""
        now = time.monotonic() - self._began
        for name, state in health_states.items():
            if state == "healthy" and name not in self._healthy:
                self._healthy[name] = now
                if not self._live:
                    console.print(f"  {name}: healthy after {now:.0f} s")
        if self._live:
            table = Table.grid(padding=(0, 2))
            for name, state in health_states.items():
                well = name in self._healthy and state == "healthy"
                after = f"{self._healthy[name]:.0f} s" if well else f"{now:.0f} s"
                table.add_row(f"  {name}", f"[green]{state}[/]" if well else f"[yellow]{state}[/]", after)
            self._live.update(table)


def show_status(stack: Stack) -> bool:
    """Print process, state, pid, memory, address and health of each program; return whether all are healthy."""
    states = supervision.states(stack)
    health_states = health.check(stack)
    pids: dict[str, list[int]] = {}
    for process in processes.find(stack.home):
        pids.setdefault(process.program, []).append(process.pid)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("process", "state", "pid", "processes", "memory", "address", "health"):
        table.add_column(column, justify="right" if column in ("pid", "processes", "memory") else "left", no_wrap=True)
    total = 0
    for name in [supervision.SUPERVISOR, *(program.name for program in programs(stack))]:
        own = pids.get(name, [])
        used = processes.memory(own)
        total += used
        if name == supervision.SUPERVISOR:
            state, well = ("RUNNING", "healthy") if states else ("STOPPED", "stopped")
            pid = str(own[0]) if own else ""
        else:
            state, well = states.get(name, {}).get("statename", "STOPPED"), health_states[name]
            pid = str(states.get(name, {}).get("pid") or "")
        colour = "green" if well == "healthy" else "red" if states else "yellow"
        address = _address(stack, name)
        table.add_row(name, state.lower(), pid, str(len(own) or ""), _mib(used), address, f"[{colour}]{well}[/]")
    if states:
        table.add_row("", "", "", str(sum(map(len, pids.values()))), _mib(total), "", "", style="bold")
    console.print(table)
    return bool(states) and all(state == "healthy" for state in health_states.values())


def show_addresses(stack: Stack, environ: Mapping[str, str]) -> None:
    """Print the addresses of the user interfaces and their logins."""
    table = Table.grid(padding=(0, 2))
    table.add_row("Airflow", stack.url("airflow", "localhost"), f"{ADMIN} / {environ['AIRFLOW_ADMIN_PASSWORD']}")
    table.add_row("MLflow", stack.url("mlflow", "localhost"), "no login")
    if any(program.name == "serving" for program in programs(stack)):
        login = "no login" if environ.get("INSPECTLINE_AUTH") == "none" else _serving_login(environ)
        table.add_row("serving", stack.url("serving", "localhost"), login)
    table.add_row("S3", stack.url("s3", "localhost"), f"any key; the files lie in {stack.objects}")
    table.add_row("mail", f"localhost:{stack.ports['smtp']}", f"every mail lands in {stack.mail / 'new'}")
    console.print(table)
    console.print(f"The passwords lie in {stack.secrets}", soft_wrap=True)


def _serving_login(environ: Mapping[str, str]) -> str:
    return f"{FIRST} / {environ['INSPECTLINE_ADMIN_PASSWORD']}"


def _address(stack: Stack, program: str) -> str:
    listener = _ADDRESSED.get(program)
    if listener is None:
        return ""
    return f"localhost:{stack.ports[listener]}" if listener == "smtp" else stack.url(listener, "localhost")


def _mib(size: int) -> str:
    return f"{size / 2**20:.0f} MiB" if size else ""


def describe(values: Mapping[str, Any]) -> str:
    """Return `values` as `a 1, b 2`."""
    return ", ".join(f"{name} {value}" for name, value in values.items())


__all__ = ["LISTENERS", "BootDisplay", "console", "describe", "show_addresses", "show_status"]
