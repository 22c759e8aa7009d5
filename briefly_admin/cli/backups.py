"""Take, list, verify, pin and purge backups."""

from dataclasses import asdict
from typing import Final

import click

from briefly_admin.cli.follow import conclude, follow
from briefly_admin.cli.session import as_json, at, print_json, print_table, session
from briefly_admin.domain.runs import RunKind


@click.group()
def backup() -> None:
    """Sealed copies of the plan's tables."""


@backup.command()
@as_json
def create(*, as_json: bool) -> None:
    """Take a backup and prove it."""
    with session() as active:
        started = active.services.runs.start(active.actor, RunKind.BACKUP)
        view = follow(active, started.id, json_lines=as_json)
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
        print_json([asdict(view) for view in views])
        return
    print_table(
        ("backup", "state", "taken", ">rows", ">bytes", "proven", "kept until", "pinned"),
        (
            (v.name, v.state, at(v.created_at), f"{v.rows:,}", f"{v.bytes:,}", v.proven_level or "–", at(v.expires_at),
             "yes" if v.pinned else "no")
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
        view = active.services.backups.verify(active.actor, name, level=level)
    if as_json:
        print_json({"backup_id": view.name, "level": level, "whole": True})
    else:
        click.echo(f"{view.name} is whole: {level}, {view.rows:,} rows in {len(view.tables)} tables.")


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
        click.echo(f"{active.services.backups.unpin(active.actor, name).name} is not pinned.")


@backup.command()
@click.argument("name", metavar="[BACKUP]", required=False)
@click.option("--yes", is_flag=True, help="Do not ask.")
def purge(name: str | None, *, yes: bool) -> None:
    """Delete one backup, or all that have expired. Nobody can read them afterwards."""
    if name and not yes:
        click.confirm(f"Delete {name} for good?", abort=True)
    with session() as active:
        if name:
            active.services.backups.delete(active.actor, name)
            click.echo(f"{name} is deleted.")
        else:
            click.echo(f"{active.services.backups.purge_expired(active.actor)} expired backups deleted.")


COMMANDS: Final = (backup,)
