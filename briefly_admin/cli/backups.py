"""Take, list, verify, pin and purge backups."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Final

import click

from briefly_admin.cli.escrow import escrow, escrow_file
from briefly_admin.cli.follow import conclude, follow
from briefly_admin.cli.printing import as_json, at, counted, one_line, print_json, print_table
from briefly_admin.cli.session import session
from briefly_admin.domain.errors import BackupDamaged, Refused
from briefly_admin.domain.runs import RunKind


@click.group()
def backup() -> None:
    """Sealed copies of the plan's tables."""


@backup.command()
@click.option("--escrow", "file", metavar="FILE", type=click.Path(path_type=Path), help="Write its escrow file, too.")
@as_json
def create(*, file: Path | None, as_json: bool) -> None:
    """Take a backup and prove it."""
    with session() as active, escrow_file(file) as kept:
        started = active.services.runs.start(active.actor, RunKind.BACKUP)
        view = follow(active, started.id, json_lines=as_json)
        try:
            if kept and view.backup_name:
                told = kept.keep(active, view.backup_name)
                click.echo(told, err=as_json)
        finally:  # the backup is there, whatever became of the file
            if as_json:
                print_json({"backup_id": view.backup_name, "id": view.id, "status": view.state})
            elif view.backup_name:
                click.echo(view.backup_name)
        conclude(view, json_lines=as_json)


@backup.command(name="list")
@as_json
def list_(*, as_json: bool) -> None:
    """List the backups, newest first."""
    with session() as active:
        views = active.services.backups.list(active.actor)
    if as_json:
        print_json([{"backup_id": view.name} | asdict(view) for view in views])
        return
    print_table(
        ("backup", "state", "taken", ">rows", ">bytes", "proven", "kept until"),
        (
            (v.name, v.state, at(v.created_at), f"{v.rows:,}", f"{v.bytes:,}", v.proven_level or "–",
             "pinned" if v.pinned else at(v.expires_at))
            for v in views
        ),
        empty="There are no backups yet. Take one with `briefly-admin backup create`.",
    )  # fmt: skip


@backup.command()
@click.argument("name", metavar="BACKUP")
@click.option("--level", type=click.Choice(["L0", "L1"]), default="L1", help="L0: objects and sums; L1: every byte.")
@as_json
def verify(name: str, *, level: str, as_json: bool) -> None:
    """Verify a backup; exit 5 and a list of all damage if it is not whole."""
    with session() as active:
        try:
            view = active.services.backups.verify(active.actor, name, level=level)
        except BackupDamaged as error:
            if as_json:
                print_json({"backup_id": name, "level": level, "whole": False, "damages": error.damages})
            else:
                click.echo("\n".join(map(one_line, error.damages)))
            raise
    if as_json:
        print_json({"backup_id": view.name, "level": level, "whole": True, "damages": []})
    else:
        size = f"{counted(view.rows, 'row')} in {counted(len(view.tables), 'table')}"
        click.echo(f"{view.name} is whole: {level}, {size}.")


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


def _require_confirmed(name: str, *, yes: bool) -> None:
    """Asks where somebody can answer. Raises Refused."""
    if not yes and not (sys.stdin.isatty() and click.confirm(f"Delete {name} for good?", err=True)):
        raise Refused(f"{name} was not deleted: it was not confirmed.", remedy="Add --yes.")


backup.add_command(escrow)

COMMANDS: Final = (backup,)
