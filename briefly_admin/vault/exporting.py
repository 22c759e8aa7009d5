"""An open backup as files that anything reads: one a table, what was backed up, and statements that load it all."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from briefly_admin.domain.errors import BackupDamaged, InvalidRequest
from briefly_admin.domain.manifest import Manifest, TableManifest
from briefly_admin.vault.copybinary import CopyParser, blocks
from briefly_admin.vault.decoding.forms import FORMS, Form
from briefly_admin.vault.decoding.types import Types
from briefly_admin.vault.digest import RowDigester
from briefly_admin.vault.files import NewFile, file_name, new_directory
from briefly_admin.vault.loading import script
from briefly_admin.vault.vault import BackupReader

MANIFEST: Final = "manifest.json"
SCRIPT: Final = "tables.sql"
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class ExportedTable:
    """A table's file: its `bytes` and SHA-256; `notes` say what in it is not as PostgreSQL would print it."""

    title: str
    schema: str
    name: str
    file: str
    rows: int
    bytes: int
    sha256: str
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Exported:
    """What stands in the directory, beside manifest.json and tables.sql."""

    directory: Path
    form: str
    tables: tuple[ExportedTable, ...]


def export(
    reader: BackupReader,
    directory: Path,
    form: str,
    tables: Sequence[str] | None = None,
    *,
    progress: Progress | None = None,
    finished: Callable[[ExportedTable], None] | None = None,
) -> Exported:
    """Write a backup's tables, or those of these titles, into a new or empty directory; `form`: a name of FORMS.

    A file is there only when its rows are the backup's: all bytes authentic, SHA-256s, row count and row digest equal.
    `progress(done, total)` in bytes of COPY binary; `finished` is told of each file as it is there.
    Raises InvalidRequest (directory, titles), Unavailable (disk full, store), and BackupDamaged after all tables were
    tried: it lists all damage, and the files of whole tables are there.
    """
    if form not in FORMS:
        raise InvalidRequest(f"There is no form {form}.", remedy=f"There are {', '.join(FORMS)}.")
    chosen = _chosen(reader.manifest, tables)
    new_directory(directory)
    job = _Export(reader, directory, form, chosen, progress)
    for title, table in chosen.items():
        if (done := job.table(title, table)) and finished:
            finished(done)
    whole = Exported(directory, form, tuple(job.done))
    job.describe(whole)
    if job.damages:
        raise BackupDamaged(
            f"The backup is damaged: {len(chosen) - len(job.done)} of {len(chosen)} tables were not written.",
            damages=job.damages,
            remedy="The other files are whole. Use another copy of the store, or another backup, for these.",
        )
    return whole


def _chosen(manifest: Manifest, titles: Sequence[str] | None) -> dict[str, TableManifest]:
    """Title → table. Raises InvalidRequest, naming those that there are."""
    found = manifest.by_title
    if not titles:
        return found
    called = {table.label: table for table in found.values()} | found  # a title is always its own table's
    if missing := [title for title in titles if title not in called]:
        raise InvalidRequest(
            f"The backup has no table {', '.join(missing)}.", remedy=f"It has {', '.join(found) or 'none'}."
        )
    wanted = [called[title] for title in titles]
    return {title: table for title, table in found.items() if table in wanted}


class _Export:
    """The files of one export, one after the other."""

    def __init__(
        self,
        reader: BackupReader,
        directory: Path,
        form: str,
        chosen: dict[str, TableManifest],
        progress: Progress | None,
    ) -> None:
        self.done: list[ExportedTable] = []
        self.damages: list[str] = []
        self._reader = reader
        self._directory = directory
        self._suffix, self._form = FORMS[form]
        self._progress = progress
        self._read = 0
        self._total = sum(stream.plaintext_size for table in chosen.values() for stream in table.streams)
        self._names: list[str] = []

    def table(self, title: str, table: TableManifest) -> ExportedTable | None:
        """Write one table's file; None where the backup is damaged there."""
        name = file_name(title, self._suffix, self._names)
        self._names.append(name)
        form = self._form(table, Types(self._reader.manifest.types))
        before = self._read
        try:
            with NewFile(self._directory, name) as file:
                self._fill(file, form, table)
                file.keep()
        except BackupDamaged as error:
            self.damages += self._all_damage(table, error)
            self._tell(before + sum(stream.plaintext_size for stream in table.streams) - self._read)
            return None
        done = ExportedTable(
            title, table.schema, table.name, name, table.rows, file.size, file.sha256, tuple(form.notes())
        )
        self.done.append(done)
        return done

    def _fill(self, file: NewFile, form: Form, table: TableManifest) -> None:
        digester = RowDigester(keyed=False)
        file.write(form.header())
        for stream in sorted(table.streams, key=lambda each: each.number):
            parser = CopyParser(len(table.columns))
            for block, found in blocks(parser, self._reader.read_table_stream(stream)):
                digester.add(found.rows)
                file.write(form.rows(found.rows))
                self._tell(len(block))
            if parser.row_count != stream.rows:
                raise _damaged(table, f"stream {stream.number}: has {parser.row_count} rows instead of {stream.rows}")
        file.write(form.trailer())
        if digester.digest() != table.digest:
            raise _damaged(table, f"its row digest is {digester.digest()} instead of {table.digest}")

    def _all_damage(self, table: TableManifest, error: BackupDamaged) -> list[str]:
        """Of the table, not the first alone."""
        found = self._reader.verify_streams([stream.number for stream in table.streams]).damages
        return [str(damage) for damage in found] or [f"{table.label}: {what}" for what in error.damages]

    def _tell(self, size: int) -> None:
        self._read += size
        if self._progress and size:
            self._progress(self._read, self._total)

    def describe(self, whole: Exported) -> None:
        """manifest.json and tables.sql."""
        manifest = self._reader.manifest
        written = {(each.schema, each.name): each.file for each in whole.tables}
        files = [(table, written[key]) for table in manifest.tables if (key := (table.schema, table.name)) in written]
        for name, text in (
            (MANIFEST, _described(whole, manifest)),
            (SCRIPT, script(manifest, files, whole.form)),
        ):
            with NewFile(self._directory, name) as file:
                file.write(text.encode("utf-8", "surrogateescape"))
                file.keep()


def _described(whole: Exported, manifest: Manifest) -> str:
    data: dict[str, Any] = {
        "form": whole.form,
        "files": [asdict(table) for table in whole.tables],
        "backup": json.loads(manifest.to_bytes()),
    }
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def _damaged(table: TableManifest, what: str) -> BackupDamaged:
    return BackupDamaged(f"The backup is damaged: {table.label}, {what}.", damages=[what], remedy="Use another backup.")
