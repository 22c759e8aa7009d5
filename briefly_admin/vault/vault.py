"""The vault: keys, sealed streams, and the store that holds them.

Order of writing: slots, streams, manifest. Order of destroying: slots, manifest, streams; the shred key goes first, by
whoever holds it.
"""

import hashlib
import os
from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from uuid import UUID

from briefly_admin.domain.errors import BackupDamaged, BackupExpired, NotFound, Unavailable
from briefly_admin.domain.manifest import Manifest, StreamManifest
from briefly_admin.domain.ports import BlobStore, StopSignal
from briefly_admin.vault import layout
from briefly_admin.vault.compression import LEVEL, decompress
from briefly_admin.vault.keys import KEY_SIZE, MAX_SLOTS_SIZE, MasterKeys, make_slots, open_slots
from briefly_admin.vault.manifest import fetch, fetch_manifest, open_manifest
from briefly_admin.vault.seal import KIND_TABLE, StreamName, damaged, unseal
from briefly_admin.vault.verify import (
    Damage,
    Level,
    Verdict,
    objects_of,
    verify_content,
    verify_objects,
    verify_streams,
)
from briefly_admin.vault.writing import BackupWriter, StreamResult, destroy

__all__ = ["BackupReader", "BackupWriter", "StreamResult", "Vault"]


class Vault:
    """Sealed backups in a store. `randomness(n)` gives n bytes that nobody can guess."""

    def __init__(
        self,
        store: BlobStore,
        keys: MasterKeys,
        *,
        level: int = LEVEL,
        randomness: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.store = store
        self.keys = keys
        self._level = level
        self._randomness = randomness

    def begin(self, backup_id: UUID) -> "BackupWriter":
        """Start a backup under a new id: makes its keys, writes slots.json. Raises Refused if the id is in use."""
        data_key, shred_key = self._randomness(KEY_SIZE), self._randomness(KEY_SIZE)
        slots = make_slots(self.keys, data_key=data_key, shred_key=shred_key, backup_id=backup_id)
        self.store.put(layout.slots_key(backup_id), [slots])
        return self._writer(backup_id, data_key, shred_key)

    def resume(self, backup_id: UUID, shred_key: bytes) -> "BackupWriter":
        """Write on at a backup that another worker began: opens its slots.json.

        Raises Unavailable where this worker's store does not hold it, BackupKeyMissing, BackupDamaged, BackupExpired.
        """
        self.require_seen(backup_id)
        slots = fetch(self.store, layout.slots_key(backup_id), limit=MAX_SLOTS_SIZE, what="slots.json")
        data_key = open_slots(slots, self.keys, shred_key=shred_key, backup_id=backup_id)
        return self._writer(backup_id, data_key, shred_key)

    def require_seen(self, backup_id: UUID) -> None:
        """Raises Unavailable unless this worker's store, which may be another, holds the backup's slots.json."""
        try:
            self.store.size(layout.slots_key(backup_id))
        except NotFound as error:
            raise Unavailable(
                f"The store of this worker does not hold the backup {backup_id} that its run is writing: "
                "it is another directory or another machine's disk, or the backup was given up.",
                remedy="Give all workers one BACKUP_STORE_URL that they all reach.",
            ) from error

    def _writer(self, backup_id: UUID, data_key: bytes, shred_key: bytes) -> "BackupWriter":
        return BackupWriter(
            self.store,
            backup_id,
            data_key=data_key,
            shred_key=shred_key,
            level=self._level,
            randomness=self._randomness,
        )

    def open(self, backup_id: UUID, shred_key: bytes | None, expected_manifest_sha256: str) -> "BackupReader":
        """Open a backup whose sealed manifest has the recorded SHA-256 (hexadecimal).

        Raises BackupExpired without a shred key, BackupKeyMissing, BackupDamaged, Unavailable.
        """
        if not shred_key:
            raise BackupExpired("The backup was shredded: nobody can read it any more.", remedy="Use another backup.")
        sealed = fetch_manifest(self.store, backup_id, expected_sha256=expected_manifest_sha256)
        slots = fetch(self.store, layout.slots_key(backup_id), limit=MAX_SLOTS_SIZE, what="slots.json")
        data_key = open_slots(slots, self.keys, shred_key=shred_key, backup_id=backup_id)
        return BackupReader(self.store, open_manifest(sealed, data_key=data_key, backup_id=backup_id), data_key)

    def destroy(self, backup_id: UUID) -> None:
        """Delete all of a backup, slots first; safe to repeat. Delete the shred key before. Raises Unavailable."""
        destroy(self.store, backup_id)

    def sweep_orphans(self, known_ids: Collection[UUID]) -> list[UUID]:
        """Destroy what crashes left: backups without a manifest that are not among `known_ids`; their ids.

        `known_ids` must hold every backup being written just now.
        """
        whole: set[UUID] = set()
        found: set[UUID] = set()
        for key in self.store.list():
            if backup_id := layout.backup_of(key):
                found.add(backup_id)
                if key == layout.manifest_key(backup_id):
                    whole.add(backup_id)
        orphans = sorted(found - whole - set(known_ids))
        for backup_id in orphans:
            self.destroy(backup_id)
        return orphans


class BackupReader:
    """An open backup: its manifest is authentic."""

    def __init__(self, store: BlobStore, manifest: Manifest, data_key: bytes) -> None:
        self.manifest = manifest
        self._store = store
        self._data_key = data_key

    def read_table_stream(self, stream: StreamManifest) -> Iterator[bytes]:
        """One whole COPY binary, in pieces; every byte was authenticated before it is given out.

        It is whole only when the iterator ends without an error: load it where it can be undone.
        Raises BackupDamaged, naming stream and chunk; Unavailable.
        """
        name = StreamName(self.manifest.backup_id, KIND_TABLE, stream.number)
        try:
            file = self._store.open(layout.stream_key(self.manifest.backup_id, stream.number))
        except NotFound as error:
            raise damaged(name, "is missing") from error
        hashed, size = hashlib.sha256(), 0
        with closing(file):
            sealed = unseal(file, data_key=self._data_key, backup_id=name.backup_id, kind=name.kind, number=name.number)
            try:
                for piece in decompress(sealed, limit=stream.plaintext_size):
                    hashed.update(piece)
                    size += len(piece)
                    yield piece
            except BackupDamaged as error:
                what = "; ".join(error.damages)
                raise damaged(name, what.removeprefix(f"{name}: ")) from error
        if size != stream.plaintext_size or hashed.hexdigest() != stream.plaintext_sha256:
            raise damaged(name, "does not hold the data that the manifest describes")

    def verify_streams(
        self,
        numbers: Collection[int],
        *,
        progress: Callable[[int, int], None] | None = None,
        should_stop: StopSignal | None = None,
    ) -> Verdict:
        """L1 of some streams: their damage and the digests of their rows; see `verify.judge` for the whole.

        `progress(done, total)` in sealed bytes of these. Raises Stopped, Unavailable.
        """
        return verify_streams(
            self._store, self.manifest, numbers, data_key=self._data_key, progress=progress, should_stop=should_stop
        )

    def verify(
        self,
        level: Level = Level.CONTENT,
        *,
        progress: Callable[[int, int], None] | None = None,
        should_stop: StopSignal | None = None,
    ) -> list[Damage]:
        """All damage; an empty list is a proof. `progress(done, total)` in sealed bytes.

        Raises Stopped when `should_stop` says why, Unavailable.
        """
        if level == Level.OBJECTS:
            return verify_objects(self._store, objects_of(self.manifest), progress=progress, should_stop=should_stop)
        return verify_content(
            self._store, self.manifest, data_key=self._data_key, progress=progress, should_stop=should_stop
        )
