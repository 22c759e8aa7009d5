"""Take, list, prove, keep, escrow and purge backups."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click

from briefly_admin.cli import escrow, opening
from briefly_admin.cli.follow import conclude, exit_code, follow
from briefly_admin.cli.printing import as_json, at, counted, one_line, print_json, print_table
from briefly_admin.cli.session import Session, session
from briefly_admin.domain.errors import BackupDamaged, BrieflyError, Refused
from briefly_admin.services.sentences import duration
from briefly_admin.services.views import BackupView, RunView

_DRILL: Final = "L2"


@click.group()
def backup() -> None:
    """Sealed copies of the plan's tables."""


@backup.command()
@click.option("--also", multiple=True, metavar="TABLE", help='Also a table outside the plan, schema.table; "*" all.')
@click.option(
    "--escrow", "file", type=click.Path(path_type=Path), metavar="FILE",
    help="Also write the file that opens it when the app database is lost.",
)  # fmt: skip
@as_json
def create(also: tuple[str, ...], *, file: Path | None, as_json: bool) -> None:
    """Take a backup and prove it."""
    with session() as active, escrow.escrow_file(file) as made:
        started = active.services.runs.back_up(active.actor, beyond=also)
        view = follow(active, started.id, json_lines=as_json)
        written, fault = _keep(active, made, view)
        if as_json:
            print_json({"backup_id": view.backup_name, "id": view.id, "status": view.state, "escrow": written})
        elif view.backup_name:
            click.echo(view.backup_name)
        if fault:
            raise fault
        conclude(view, json_lines=as_json)


def _keep(active: Session, made: escrow.EscrowFile | None, run: RunView) -> tuple[str | None, BrieflyError | None]:
    """Write the new backup's escrow: its file, or what stood against it, which does not undo the backup."""
    if made is None or run.backup_name is None or exit_code(run):
        return None, None
    try:
        click.echo(one_line(made.keep(active, run.backup_name)), err=True)
    except BrieflyError as error:
        return None, error
    return str(made.path), None


@backup.command(name="list")
@as_json
def list_(*, as_json: bool) -> None:
    """List the backups, newest first."""
    with session() as active:
        views = active.services.backups.list(active.actor)
    if as_json:
        print_json([_json(view) for view in views])
        return
    now = datetime.now(UTC)
    print_table(
        ("backup", "state", ">age", ">rows", ">bytes", "proven", "kept until"),
        (
            (v.name, v.state, duration((now - v.created_at).total_seconds()), f"{v.rows:,}", f"{v.bytes:,}", _levels(v),
             _kept(v))
            for v in views
        ),
        empty="There are no backups yet. Take one with `briefly-admin backup create`.",
    )  # fmt: skip


@backup.command()
@click.argument("name", metavar="BACKUP")
@click.option(
    "--level", type=click.Choice(["L0", "L1", _DRILL]), default="L1",
    help="L0: every object is there, of its size and sum; L1: every byte; L2: a drill.",
)  # fmt: skip
@as_json
def verify(name: str, *, level: str, as_json: bool) -> None:
    """Verify a backup; exit 5 and a list of all damage if it is not whole."""
    with session() as active:
        _look(active, name, level, as_json=as_json)


@backup.command()
@click.argument("name", metavar="BACKUP")
@as_json
def drill(name: str, *, as_json: bool) -> None:
    """Restore a backup into a scratch schema and compare; exit 5 and a list of all damage if it is not whole."""
    with session() as active:
        _look(active, name, _DRILL, as_json=as_json)


@backup.command()
@click.argument("name", metavar="BACKUP")
def pin(name: str) -> None:
    """Keep a backup beyond its time."""
    with session() as active:
        click.echo(f"{active.services.backups.pin(active.actor, name).name} is pinned.")


@backup.command()
@click.argument("name", metavar="BACKUP")
def unpin(name: str) -> None:
    """Let a backup expire in its time."""
    with session() as active:
        view = active.services.backups.unpin(active.actor, name)
    click.echo(f"{view.name} is not pinned; it is kept until {at(view.expires_at)} UTC.")


@backup.command()
@click.argument("name", metavar="[BACKUP]", required=False)
@click.option("--yes", is_flag=True, help="Do not ask.")
def purge(name: str | None, *, yes: bool) -> None:
    """Delete one backup, or all that have expired. Nobody can read them afterwards."""
    with session() as active:
        if name is None:
            number = active.services.backups.purge_expired(active.actor)
            click.echo(f"{counted(number, 'expired backup is', 'expired backups are')} deleted.")
            return
        view = active.services.backups.get(active.actor, name)
        _require_confirmed(view.name, yes=yes)
        active.services.backups.delete(active.actor, view.name)
        click.echo(f"{view.name} is deleted.")


def _look(active: Session, name: str, level: str, *, as_json: bool) -> None:
    """Begin a verification or a drill, follow it, say what was found, and leave with its exit code."""
    services, actor = active.services, active.actor
    if level == _DRILL:
        started = services.runs.drill(actor, name)
    else:
        started = services.runs.verify_backup(actor, name, level=level)
    run = follow(active, started.id, json_lines=as_json)
    damages = services.backups.get(actor, name).damage if run.error_code == BackupDamaged.code else ()
    if as_json:
        print_json(_found(run, level, damages))
    else:
        _print_damage(damages)
    conclude(run, json_lines=as_json)


def _found(run: RunView, level: str, damages: Sequence[str]) -> dict[str, object]:
    """`whole` is null where nobody knows: the run came to no end."""
    whole = None if exit_code(run) and run.error_code != BackupDamaged.code else not damages
    return {
        "backup_id": run.options.get("backup_name"), "level": level, "id": run.id, "status": run.state, "whole": whole,
        "damages": list(damages), "error": run.error or None, "report": run.report,
    }  # fmt: skip


def _print_damage(damages: Sequence[str]) -> None:
    if damages:
        click.echo("\n".join(map(one_line, damages)))


def _json(view: BackupView) -> dict[str, object]:
    return {"backup_id": view.name} | asdict(view)


def _levels(view: BackupView) -> str:
    """The levels proven, such as 'L1 L2'; a look that found damage counts for nothing, nor does what damage undid."""
    if view.state == "damaged":
        return "–"
    found = {proof.level for proof in view.proofs if proof.whole} | ({view.proven_level} - {""})
    return " ".join(sorted(found)) or "–"


def _kept(view: BackupView) -> str:
    if view.state == "expired":
        return "expired"
    return "pinned" if view.pinned else at(view.expires_at)


def _require_confirmed(name: str, *, yes: bool) -> None:
    """Asks where somebody can answer. Raises Refused."""
    if not yes and not (sys.stdin.isatty() and click.confirm(f"Delete {name} for good?", err=True)):
        raise Refused(f"{name} was not deleted: it was not confirmed.", remedy="Add --yes.")


backup.add_command(escrow.escrow)
backup.add_command(opening.open_)
COMMANDS: Final = (backup,)
