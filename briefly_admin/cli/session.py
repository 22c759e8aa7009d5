"""What every sub-command needs: the services, who acts, and how to print."""

import getpass
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table

from briefly_admin import settings, wiring
from briefly_admin.domain.permissions import Actor, Role
from briefly_admin.services import Services, logs
from briefly_admin.settings import Settings

_WIDE: Final = 220
"""Columns of a table that goes into a file or a pipe."""
as_json = click.option("--json", "as_json", is_flag=True, help="JSON on standard output.")


@dataclass(frozen=True, slots=True)
class Session:
    """One invocation of the command: its settings, services and actor."""

    settings: Settings
    services: Services
    actor: Actor


@contextmanager
def session() -> Iterator[Session]:
    """Read the settings, build the services, act as the machine's administrator."""
    loaded = settings.from_environ()
    logs.configure("warning")
    services = wiring.build(loaded)
    try:
        yield Session(loaded, services, Actor(name=f"cli:{_user()}", role=Role.ADMIN, via="cli"))
    finally:
        services.close()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def plain(value: Any) -> Any:
    """For `json.dumps(default=…)`: times as ISO 8601, tuples and sets as lists, the rest as text."""
    if isinstance(value, datetime):
        return value.isoformat()
    return list(value) if isinstance(value, (tuple, set, frozenset)) else str(value)


def print_json(data: Any) -> None:
    """One line of JSON, flushed: scripts read while we run."""
    click.echo(json.dumps(data, default=plain, ensure_ascii=False))
    sys.stdout.flush()


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """A table for people, or a sentence where there are no rows. Columns marked with '>' are aligned right."""
    listed = [[str(cell) for cell in row] for row in rows]
    if not listed:
        click.echo(empty)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(
            column.removeprefix(">"), justify="right" if column.startswith(">") else "left", overflow="fold"
        )
    for row in listed:
        table.add_row(*row)
    width = None if sys.stdout.isatty() else _WIDE
    Console(highlight=False, markup=False, width=width).print(table)


def at(moment: datetime | None) -> str:
    """A time for people, in UTC."""
    return moment.strftime("%Y-%m-%d %H:%M:%S") if moment else "–"
