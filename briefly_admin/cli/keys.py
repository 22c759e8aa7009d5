"""Rotate the master keys of all backups."""

from dataclasses import asdict
from typing import Final

import click

from briefly_admin.cli.printing import as_json, counted, one_line, print_json
from briefly_admin.cli.session import session
from briefly_admin.services.keys import RotationView, rotation_error


@click.group()
def keys() -> None:
    """The master keys of BACKUP_KEYS; the first seals, all open."""


@keys.command()
@as_json
def rotate(*, as_json: bool) -> None:
    """Wrap every backup's key under the first master key alone; exit 5 if one could not be.

    Data is not rewritten. Put the new key first into BACKUP_KEYS, restart all processes, then rotate. It may be
    interrupted at any point and called again.
    """
    with session() as active:
        view = active.services.keys.rotate(active.actor)
    if as_json:
        print_json(asdict(view))
    else:
        click.echo("\n".join(map(one_line, _told(view))))
    if error := rotation_error(view):
        raise error


def _told(view: RotationView) -> list[str]:
    lines = [f"{each.name}: {', '.join(each.before)} → {each.after}." for each in view.rotated]
    lines += [f"{each.name}: not rotated. {each.reason}" for each in view.failed]
    lines += [f"{name}: being written just now; rotate again when it is done." for name in view.writing]
    done = counted(len(view.rotated), "backup was rotated", "backups were rotated")
    lines.append(f"{done} to {view.sealing_id}; {len(view.unchanged)} had its slot alone already.")
    lines += [
        f"The key {key_id} is still needed by {counted(number, 'backup')}."
        + (" It is not in BACKUP_KEYS: put it back." if key_id in view.missing else "")
        for key_id, number in view.needed.items()
        if key_id != view.sealing_id
    ]
    lines += [_unneeded(key_id, view.sealing_id) for key_id in view.unneeded]
    if not view.surveyed:
        lines.append("The slots of some backups could not be read: take no key out of BACKUP_KEYS.")
    return lines


def _unneeded(key_id: str, sealing_id: str) -> str:
    return (
        f"The key {key_id} opens no kept backup any more. It may be taken out of BACKUP_KEYS once all processes run "
        f"with {sealing_id} first. Older copies of the store still need it; escrow files do not hold master keys."
    )


COMMANDS: Final = (keys,)
