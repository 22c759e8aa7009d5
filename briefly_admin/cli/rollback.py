"""Roll the target back to a backup, or show what that would do."""

from typing import Any, Final

import click

from briefly_admin.cli.follow import conclude, exit_code, follow
from briefly_admin.cli.printing import as_json, one_line, print_json, print_table
from briefly_admin.cli.session import Session, session
from briefly_admin.domain.errors import Refused


@click.command()
@click.argument("backup", metavar="BACKUP")
@click.option("--preview", is_flag=True, help="Show what a rollback would do, and change nothing.")
@click.option("--mode", type=click.Choice(["exact"]), default="exact", help="exact: the tables as they were.")
@click.option("--tables", metavar="NAMES", help="Comma-separated; all of the backup's by default.")
@click.option("--reason", default="", help="Why; it goes into the audit log.")
@click.option("--confirm", is_flag=True, help="Yes, do it.")
@as_json
def rollback(
    backup: str, *, preview: bool, mode: str, tables: str | None, reason: str, confirm: bool, as_json: bool
) -> None:
    """Restore the tables of a backup, after taking another one."""
    chosen = None if tables is None else [name.strip() for name in tables.split(",") if name.strip()]
    if preview and confirm:
        raise click.UsageError("--preview changes nothing, --confirm does: leave one of them out.")
    if preview:
        with session() as active:
            _preview(active, backup, chosen, as_json=as_json)
        return
    if not confirm:
        raise Refused(
            "Nothing was rolled back: a rollback replaces data.",
            remedy="Look at it with --preview; then do it with --confirm.",
        )
    with session() as active:
        started = active.services.runs.rollback(
            active.actor, backup, confirm=True, mode=mode, tables=chosen, reason=reason
        )
        conclude(follow(active, started.id, json_lines=as_json), json_lines=as_json)


def _preview(active: Session, backup: str, tables: list[str] | None, *, as_json: bool) -> None:
    started = active.services.runs.preview(active.actor, backup, tables=tables)
    view = follow(active, started.id, json_lines=as_json)
    result = (view.report or {}).get("preview", {})
    if as_json:
        print_json({"id": view.id, "status": view.state, "preview": result})
    elif not exit_code(view):
        print_preview(result, [table.name for table in active.services.servers.plan.tables])
    conclude(view, json_lines=as_json)


def print_preview(result: dict[str, Any], order: list[str]) -> None:
    """What a rollback would do, a row a table, in the plan's order."""
    tables = result.get("tables", {})
    print_table(
        ("table", ">as in the backup", ">to restore", ">to bring back", ">to delete"),
        (
            (name, *(f"{tables[name].get(what, 0):,}" for what in ("same", "update", "insert", "delete")))
            for name in order
            if name in tables
        ),
        empty="The backup has no tables.",
    )
    for change in result.get("schema_changes", ()):
        click.echo(f"Schema change that would be undone: {one_line(change)}")
    for outside in result.get("outside", ()):
        click.echo(f"Outside the plan: {one_line(outside)}")


COMMANDS: Final = (rollback,)
