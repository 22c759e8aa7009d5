"""Roll the target back to a backup, or show what that would do."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import click

from briefly_admin.cli.follow import conclude, exit_code, follow
from briefly_admin.cli.previewing import print_preview
from briefly_admin.cli.printing import as_json, print_json
from briefly_admin.cli.session import Session, session
from briefly_admin.cli.settling import settled_rows
from briefly_admin.domain.errors import Refused
from briefly_admin.services.restoring import MODES, MOST_ALLOWANCE, RULES

_LEFT_TO_PREVIEW: Final = frozenset({"backup", "preview", "mode", "tables", "reason", "as_json"})
"""The others say what to do, and a preview does nothing."""


def _rule(name: str, text: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    words = [how.replace("_", "-") for how in RULES[name]]
    return click.option(f"--{name}", type=click.Choice(words), help=f"With keep: {text} since; {words[0]} by default.")


@click.command()
@click.argument("backup", metavar="BACKUP")
@click.option("--preview", is_flag=True, help="Show what a rollback would do, and change nothing.")
@click.option(
    "--mode", type=click.Choice(MODES), default=MODES[0],
    help="exact (the default): the tables as they were; keep: undo only what the migration did.",
)  # fmt: skip
@click.option("--tables", metavar="NAMES", help="Comma-separated; all of the backup's by default.")
@click.option("--preview-id", metavar="RUN", help="A finished preview: stop if the counts moved since.")
@_rule("edited", "rows that others edited")
@_rule("created", "rows created")
@_rule("deleted", "rows deleted")
@click.option(
    "--settle", type=click.Path(path_type=Path), metavar="FILE",
    help='With keep: a JSON file of edited rows: {table: [{"key": [...], "how": keep|restore|edit, "values": {...}}]}.',
)  # fmt: skip
@click.option(
    "--allow", multiple=True, metavar="SCHEMA.TABLE",
    help="A table outside whose rows foreign keys may delete or change. The backup taken first has it, too; "
    "`backup open` gets its rows out, for a rollback brings back tables of the plan alone.",
)  # fmt: skip
@click.option(
    "--allowance", type=click.IntRange(0, MOST_ALLOWANCE), default=0, metavar="N",
    help="By how many rows each count of the preview may have moved; none by default.",
)  # fmt: skip
@click.option("--reason", default="", help="Why; it goes into the audit log.")
@click.option("--confirm", is_flag=True, help="Yes, do it.")
@as_json
@click.pass_context
def rollback(context: click.Context, /, backup: str, **given: Any) -> None:
    """Restore the tables of a backup, after taking another one."""
    tables = given["tables"]
    chosen = None if tables is None else [name.strip() for name in tables.split(",") if name.strip()]
    if given["preview"]:
        _refuse_deeds(context)
        with session() as active:
            _preview(active, backup, chosen, as_json=given["as_json"])
        return
    if not given["confirm"]:
        raise Refused(
            "Nothing was rolled back: a rollback replaces data.",
            remedy="Look at it with --preview; then do it with --confirm.",
        )
    settled = {} if given["settle"] is None else settled_rows(given["settle"])
    with session() as active:
        started = active.services.runs.rollback(
            active.actor, backup, confirm=True, mode=given["mode"], tables=chosen, reason=given["reason"],
            preview_id=given["preview_id"], rules=_rules(given), settled=settled, allow=given["allow"],
            allowance=given["allowance"],
        )  # fmt: skip
        conclude(follow(active, started.id, json_lines=given["as_json"]), json_lines=given["as_json"])


def _refuse_deeds(context: click.Context) -> None:
    """A preview that seems to obey what it leaves out would mislead."""
    for name in context.params:
        source = context.get_parameter_source(name)
        if name not in _LEFT_TO_PREVIEW and source is click.core.ParameterSource.COMMANDLINE:
            option = f"--{name.replace('_', '-')}"
            raise click.UsageError(f"--preview changes nothing, {option} is for doing it: leave one of them out.")


def _rules(given: Mapping[str, Any]) -> dict[str, str]:
    return {name: given[name].replace("-", "_") for name in RULES if given[name] is not None}


def _preview(active: Session, backup: str, tables: list[str] | None, *, as_json: bool) -> None:
    started = active.services.runs.preview(active.actor, backup, tables=tables)
    view = follow(active, started.id, json_lines=as_json)
    result = (view.report or {}).get("preview", {})
    if as_json:
        print_json({"id": view.id, "status": view.state, "preview": result})
    elif not exit_code(view):
        print_preview(result, [table.name for table in active.services.servers.plan.tables])
    conclude(view, json_lines=as_json)
    if not as_json:
        name = view.options["backup_name"]
        click.echo(f"To confirm just this: briefly-admin rollback {name} --preview-id {view.number} … --confirm.")


COMMANDS: Final = (rollback,)
