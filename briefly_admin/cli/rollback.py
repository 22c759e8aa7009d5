"""Roll the target back to a backup, or show what that would do."""

from typing import Any, Final

import click

from briefly_admin.cli.follow import conclude, follow
from briefly_admin.cli.session import as_json, print_json, print_table, session


@click.command()
@click.argument("backup", metavar="BACKUP")
@click.option("--preview", is_flag=True, help="Show what a rollback would do, and change nothing.")
@click.option("--mode", type=click.Choice(["exact"]), default="exact", help="exact: the tables as they were.")
@click.option("--tables", help="Comma-separated; all of the backup's by default.")
@click.option("--reason", default="", help="Why; it goes into the audit log.")
@click.option("--confirm", is_flag=True, help="Yes, do it.")
@as_json
def rollback(
    backup: str, *, preview: bool, mode: str, tables: str | None, reason: str, confirm: bool, as_json: bool
) -> None:
    """Restore the tables of a backup, after taking another one."""
    with session() as active:
        if preview:
            view = follow(active, active.services.runs.preview(active.actor, backup).id)
            result = (view.report or {}).get("preview", {})
            if as_json:
                print_json({"id": view.id, "status": view.state, "preview": result})
            else:
                print_preview(result)
        else:
            chosen = [name.strip() for name in tables.split(",") if name.strip()] if tables else None
            started = active.services.runs.rollback(
                active.actor, backup, confirm=confirm, mode=mode, tables=chosen, reason=reason
            )
            view = follow(active, started.id, json_lines=as_json)
        conclude(view, json_lines=as_json)


def print_preview(result: dict[str, Any]) -> None:
    """What a rollback would do, a row a table."""
    print_table(
        ("table", ">as in the backup", ">to restore", ">to bring back", ">to delete"),
        (
            (name, *(f"{counts.get(what, 0):,}" for what in ("same", "update", "insert", "delete")))
            for name, counts in result.get("tables", {}).items()
        ),
        empty="Nothing differs.",
    )
    for outside in result.get("outside", ()):
        click.echo(f"Outside the plan: {outside}")


COMMANDS: Final = (rollback,)
