"""Open a backup into files; with its escrow file, where there is nothing left but the store and the keys."""

import contextlib
import signal
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

import click
from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from briefly_admin.cli.printing import as_json, counted, one_line, print_json
from briefly_admin.cli.session import session
from briefly_admin.domain.errors import BackupDamaged, InvalidRequest
from briefly_admin.settings import environment, vault_settings
from briefly_admin.vault import layout
from briefly_admin.vault.decoding.forms import FORMS
from briefly_admin.vault.escrow import MAX_SIZE, Escrow
from briefly_admin.vault.exporting import ExportedTable, export
from briefly_admin.vault.keys import MasterKeys
from briefly_admin.vault.stores import open_store
from briefly_admin.vault.vault import BackupReader, Vault


@dataclass(frozen=True, slots=True)
class _Opened:
    """What people call the backup, and the backup."""

    name: str
    reader: BackupReader


@click.command(name="open")
@click.argument("name", metavar="[BACKUP]", required=False)
@click.argument("directory", metavar="DIRECTORY", required=False)
@click.option(
    "--format", "form", type=click.Choice(list(FORMS)), default="csv", show_default=True, help="Of the files."
)
@click.option("--table", "tables", multiple=True, metavar="NAME", help="This table alone; may be repeated.")
@click.option(
    "--escrow", "file", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
    help="Open it with its escrow file: without the app database, and BACKUP may be left out.",
)  # fmt: skip
@as_json
def open_(
    name: str | None, directory: str | None, *, form: str, tables: tuple[str, ...], file: Path | None, as_json: bool
) -> None:
    """Write a backup's tables into a new or empty directory: one file a table, and tables.sql, which loads them.

    With --escrow it needs BACKUP_STORE_URL and BACKUP_KEYS alone. A table's file is there only when all of it is what
    was backed up; exit 5 and a list of all damage otherwise. The files are not encrypted: they hold the data.
    """
    if directory is None and file is not None:  # the only argument is the directory
        name, directory = None, name
    if directory is None or (file is None and name is None):
        raise click.UsageError("Name the backup and the directory, or give its escrow file and the directory.")
    with _interruptible(), _opened(name, file) as opened:
        _write(opened, Path(directory), form, tables, as_json=as_json)


@contextlib.contextmanager
def _opened(name: str | None, file: Path | None) -> Iterator[_Opened]:
    if file is not None:
        yield _by_escrow(name, file)
        return
    with session() as active:
        yield _Opened(str(name), active.services.keys.reader(active.actor, str(name)))


def _by_escrow(name: str | None, file: Path) -> _Opened:
    """With the store and the keys alone. Raises BackupError, SettingError, Unavailable."""
    try:
        with file.open("rb") as stream:
            escrow = Escrow.parse(stream.read(MAX_SIZE + 1))
    except OSError as error:
        raise InvalidRequest(f"{file} cannot be read ({error.strerror}).") from error
    if name not in {None, escrow.name, str(escrow.backup_id)}:
        raise InvalidRequest(
            f"{file} is the escrow file of {escrow.name}, not of {name}.", remedy="Give that backup's own file."
        )
    settings = vault_settings(environment())
    store = open_store(settings.backup_store_url)
    if not any(True for _ in store.list(layout.prefix(escrow.backup_id))):
        raise BackupDamaged(
            f"The store holds nothing of {escrow.name} ({escrow.backup_id}).",
            damages=["all of it is missing"],
            remedy="BACKUP_STORE_URL names another store, or the backup was deleted: name a copy that has it.",
        )
    vault = Vault(store, MasterKeys(dict(settings.backup_keys)))
    return _Opened(escrow.name, vault.open(escrow.backup_id, escrow.shred_key, escrow.manifest_sha256))


def _write(opened: _Opened, directory: Path, form: str, tables: tuple[str, ...], *, as_json: bool) -> None:
    written: list[ExportedTable] = []

    def finished(table: ExportedTable) -> None:
        written.append(table)
        if not as_json:
            _tell(table)

    damages: tuple[str, ...] = ()
    whole = False
    try:
        with _bars(shown=not as_json) as bars:
            task = bars.add_task(opened.name)
            export(
                opened.reader, directory, form, tables or None, finished=finished,
                progress=lambda done, total: bars.update(task, completed=done, total=total),
            )  # fmt: skip
        whole = True
    except BackupDamaged as error:
        damages = error.damages
        if not as_json:
            click.echo("\n".join(map(one_line, damages)))
        raise
    finally:
        if as_json and (whole or written or damages):
            print_json({
                "backup_id": opened.name, "directory": str(directory), "format": form, "whole": whole,
                "damages": damages, "tables": [asdict(table) for table in written],
            })  # fmt: skip
    if not as_json:
        size = f"{counted(sum(t.rows for t in written), 'row')} in {counted(len(written), 'table')}"
        click.echo(one_line(f"{opened.name} is in {directory}: {size}; tables.sql loads them."))


def _bars(*, shown: bool) -> Bars:
    """A bar on a terminal, gone at the end."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    hidden = not (shown and sys.stderr.isatty())
    return Bars(*columns, console=Console(stderr=True), transient=True, disable=hidden)


def _tell(table: ExportedTable) -> None:
    click.echo(f"{one_line(table.title)}: {counted(table.rows, 'row')}, {counted(table.bytes, 'byte')}, {table.file}")
    for note in table.notes:
        click.echo(f"  {one_line(note)}")


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM and SIGHUP, unless nohup has it ignored, end it as Ctrl-C does: what is half written is removed."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    heard = [each for each in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(each) is not signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
