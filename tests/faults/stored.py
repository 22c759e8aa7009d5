"""What a field's store holds, against what its backups say that it should."""

from pathlib import Path
from uuid import UUID

from briefly_admin.domain.ports import BlobStore
from briefly_admin.services.views import BackupView
from briefly_admin.settings import load
from briefly_admin.vault.stores import open_store
from briefly_admin.vault.vault import BackupReader
from briefly_admin.vault.verify import StoredObject, verify_objects
from tests.faults.harness import ANA, Field

_OBJECTS = "SELECT objects FROM briefly_admin.backup WHERE id = %s"
_KEYED = "SELECT state FROM briefly_admin.backup WHERE shred_key IS NOT NULL"


def store_of(field: Field) -> BlobStore:
    """The store of the field's settings, opened by this process."""
    return open_store(load(field.environ).backup_store_url)


def opened(field: Field, backup: BackupView) -> BackupReader:
    """The backup, once every byte of it was read (L1) and every recorded object was found (L0)."""
    reader = field.services.keys.reader(ANA, backup.id)
    assert reader.verify() == [], backup.name
    assert verify_objects(store_of(field), objects(field, backup)) == [], backup.name
    assert reader.manifest.backup_id == UUID(backup.id)
    return reader


def objects(field: Field, backup: BackupView) -> list[StoredObject]:
    """What was recorded of it."""
    return [StoredObject(**each) for each in field.ask(_OBJECTS, backup.id)[0]]


def require_no_residue(field: Field) -> int:
    """The store holds the objects of the backups that people see, and nothing else; how many objects.

    Of a directory every file counts, also those that are no object; keys are there for whole backups alone.
    """
    backups = field.services.backups.list(ANA)
    expected = {each.key for backup in backups for each in objects(field, backup)}
    url, found = load(field.environ).backup_store_url, set()
    if url.startswith("file:"):  # before the store is asked, which sweeps
        root = Path(url.removeprefix("file://"))
        found = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    found |= set(store_of(field).list())
    assert found == expected, f"too much: {sorted(found - expected)}, missing: {sorted(expected - found)}"
    assert set(field.ask(_KEYED)) <= {"proven"}, field.ask(_KEYED)
    return len(found)
