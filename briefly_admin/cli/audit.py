"""Read, verify and export the audit log."""

import csv
import json
import sys
from collections.abc import Iterable
from dataclasses import asdict
from typing import Final

import click

from briefly_admin.cli.printing import as_json, at, plain, print_json, print_table
from briefly_admin.cli.session import session
from briefly_admin.domain.audit import AuditEvent

_FAILED: Final = 1


@click.group()
def audit() -> None:
    """Who did what to what, when, from where."""


@audit.command(name="list")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 10_000))
@as_json
def list_(limit: int, *, as_json: bool) -> None:
    """Show the newest events."""
    with session() as active:
        events = active.services.audit.list(active.actor, limit=limit)
    if as_json:
        print_json([asdict(event) for event in events])
    else:
        print_table(
            (">#", "when", "who", "what", "on", "from"),
            ((e.number, at(e.at), e.actor, e.action, e.object, e.address or e.via) for e in events),
            empty="Nothing happened yet.",
        )


@audit.command()
@as_json
def verify(*, as_json: bool) -> None:
    """Verify the whole chain; exit 1 if it is broken."""
    with session() as active:
        verdict = active.services.audit.verify(active.actor)
    if as_json:
        print_json(asdict(verdict))
    else:
        click.echo(verdict.message)
    if not verdict.ok:
        raise click.exceptions.Exit(_FAILED)


@audit.command()
@click.option("--format", "form", type=click.Choice(["json", "csv"]), default="json", help="JSON lines or CSV.")
def export(form: str) -> None:
    """Write every event to standard output."""
    with session() as active:
        events = active.services.audit.export(active.actor)
        if form == "json":
            for event in events:
                print_json(asdict(event))
        else:
            _csv(events)


def _csv(events: Iterable[AuditEvent]) -> None:
    writer = csv.DictWriter(sys.stdout, fieldnames=list(AuditEvent.__dataclass_fields__))
    writer.writeheader()
    for event in events:
        cells = asdict(event) | {"at": plain(event.at), "details": json.dumps(event.details, ensure_ascii=False)}
        writer.writerow({name: _cell(str(value)) for name, value in cells.items()})


def _cell(text: str) -> str:
    """An apostrophe before what a spreadsheet would take for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


COMMANDS: Final = (audit,)
