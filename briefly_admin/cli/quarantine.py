"""Rows that runs left alone: listed, left alone for good, replayed."""

from typing import Final

import click

from briefly_admin.cli.follow import conclude, follow
from briefly_admin.cli.printing import as_json, at, one_line, print_json, print_table
from briefly_admin.cli.rows import correct, key_, show, table_
from briefly_admin.cli.runs import print_state
from briefly_admin.cli.session import Session, session
from briefly_admin.services.exporting import cause_json, quarantined_json
from briefly_admin.services.finding_views import QuarantineRow


@click.group()
def quarantine() -> None:
    """Rows that runs left alone, and their cure. A KEY of several columns is several words, in the key's order."""


@quarantine.command(name="list")
@click.argument("run_id", metavar="[RUN]", required=False)
@as_json
def list_(run_id: str | None, *, as_json: bool) -> None:
    """Show the quarantined rows of a run, each with its reason; without RUN, the causes of all that are open."""
    with session() as active:
        if run_id is None:
            _print_causes(active, as_json=as_json)
        else:
            _print_rows(active, run_id, as_json=as_json)


def _print_causes(active: Session, *, as_json: bool) -> None:
    found = active.services.findings.causes(active.actor)
    if as_json:
        print_json([cause_json(cause) for cause in found])
        return
    print_table(
        (">run", "table", "field", "cause", ">rows", ">corrected", ">left alone", "such as"),
        (
            (c.run_number, c.table, c.field, c.cause, f"{c.rows:,}", f"{c.corrected:,}", f"{c.skipped:,}", c.message)
            for c in found
        ),
        empty="No row is in quarantine.",
    )


def _print_rows(active: Session, run_id: str, *, as_json: bool) -> None:
    rows = active.services.findings.quarantine(active.actor, run_id)
    if as_json:
        print_json([quarantined_json(row) for row in rows])
        return
    print_table(
        ("table", "key", "field", "cause", "since", "why"),
        ((r.table, ", ".join(r.key), r.field, r.cause, _since(r), r.message)
         for r in rows),
        empty="The run left no row alone.",
    )  # fmt: skip


def _since(row: QuarantineRow) -> str:
    """What became of the row since."""
    if row.closed:
        return "out of it"
    if row.skipped:
        return f"left alone: {row.skipped}"
    return f"corrected {at(row.corrected_at)}" if row.corrected_at else ""


@quarantine.command()
@table_
@key_
@click.option("--reason", required=True, metavar="TEXT", help="Why; it is told with the row.")
@as_json
def skip(table: str, key: tuple[str, ...], reason: str, *, as_json: bool) -> None:
    """Leave a row alone from now on: it blocks nothing, and no migration or replay touches it."""
    with session() as active:
        active.services.rows.skip(active.actor, table, key, reason=reason)
    if as_json:
        print_json({"table": table, "key": list(key), "skipped": reason})
    else:
        click.echo(f"Left alone from now on: {table} {one_line(', '.join(key))}.")


@quarantine.command()
@table_
@key_
@as_json
def unskip(table: str, key: tuple[str, ...], *, as_json: bool) -> None:
    """Treat a row that was left alone as others again."""
    with session() as active:
        active.services.rows.unskip(active.actor, table, key)
    if as_json:
        print_json({"table": table, "key": list(key), "skipped": None})
    else:
        click.echo(f"As others again: {table} {one_line(', '.join(key))}.")


@quarantine.command()
@click.argument("run_id", metavar="RUN")
@click.option("--table", metavar="TABLE", help="Only rows of this table.")
@click.option("--field", metavar="COLUMN", help="Only rows whose cause is about this column.")
@click.option("--cause", metavar="CAUSE", help="Only rows with this cause.")
@click.option(
    "--key", "key", multiple=True, metavar="TEXT", help="Only this row of TABLE; repeated for a key of several columns."
)
@click.option("--wait/--no-wait", default=True, help="Follow the replay to its end (the default).")
@as_json
def replay(run_id: str, key: tuple[str, ...], *, wait: bool, as_json: bool, **scope: str | None) -> None:
    """Migrate the quarantined rows of RUN that block no more, and make the constraints that waited for them."""
    with session() as active:
        view = active.services.runs.replay(active.actor, run_id, **scope, key=key or None)
        if wait:
            conclude(follow(active, view.id, json_lines=as_json), json_lines=as_json)
        else:
            print_state(view, as_json=as_json)


quarantine.add_command(show)
quarantine.add_command(correct)
COMMANDS: Final = (quarantine,)
