"""How the command prints: tables for people, lines of JSON for scripts."""

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

_WHOLE: Final = 36
"""Cells up to this length (an id's) are not broken on a terminal."""
_NARROWEST: Final = 16
"""Columns that prose gets at least."""
_UNBOUNDED: Final = 100_000
"""Columns of a table that goes into a file or a pipe: a row is a line, however long."""

as_json = click.option("--json", "as_json", is_flag=True, help="JSON on standard output.")


def plain(value: Any) -> Any:
    """For `json.dumps(default=…)`: times as ISO 8601 in UTC, tuples and sets as lists, the rest as text."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return list(value) if isinstance(value, (tuple, set, frozenset)) else str(value)


def print_json(data: Any) -> None:
    """One line of JSON, flushed: scripts read while we run."""
    click.echo(json.dumps(data, default=plain, ensure_ascii=False))
    sys.stdout.flush()


def one_line(text: object) -> str:
    """The text without line breaks and whatever else a terminal would obey: names and keys come from the data."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(str(text).split()))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """A table, or a sentence where there are no rows. Columns marked with '>' are aligned right."""
    listed = [[one_line(cell) for cell in row] for row in rows]
    if not listed:
        click.echo(empty)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    needed = 0
    for column, cells in zip(columns, zip(*listed, strict=True), strict=True):
        widest = max(map(len, (column, *cells)))
        whole = widest <= _WHOLE
        needed += (widest if whole else _NARROWEST) + 2
        justify: Any = "right" if column.startswith(">") else "left"
        table.add_column(column.removeprefix(">"), justify=justify, overflow="fold", no_wrap=whole)
    for row in listed:
        table.add_row(*map(Text, row))
    # Wider than the terminal rather than cut: what cannot be broken must be readable, and copied, whole.
    console = Console(width=max(needed, Console().width) if sys.stdout.isatty() else _UNBOUNDED)
    with console.capture() as captured:
        console.print(table)
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def at(moment: datetime | None) -> str:
    """A time for people, in UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S") if moment else "–"


def counted(number: int, one: str, many: str = "") -> str:
    """'1 row', '2 rows', '1,000 rows'."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
