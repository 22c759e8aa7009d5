"""The vault: keys, sealed streams, and the store that holds them.

Order of writing: slots, streams, manifest. Order of destroying: slots, manifest, streams; the shred key goes first, by
whoever holds it.
"""

import hashlib
import os
from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from uuid import UUID

from briefly_admin.domain.errors import (
    BackupDamaged,
    BackupError,
    BackupExpired,
    BackupKeyMissing,
    NotFound,
    Unavailable,
)
from briefly_admin.domain.manifest import Manifest, StreamManifest
from briefly_admin.domain.ports import BlobStore, StopSignal
from briefly_admin.vault import layout
from briefly_admin.vault.compression import LEVEL, decompress
from briefly_admin.vault.keys import (
    KEY_SIZE,
    MAX_SLOTS_SIZE,
    MasterKeys,
    Slots,
    make_slots,
    opens,
    read_slots,
    sealing_slot,
    unwrap,
    write_slots,
)
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
        data_key = self._data_key(backup_id, shred_key)
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
        data_key = self._data_key(backup_id, shred_key)
        return BackupReader(self.store, open_manifest(sealed, data_key=data_key, backup_id=backup_id), data_key)

    def slot_ids(self, backup_id: UUID) -> tuple[str, ...]:
        """The ids of the master keys whose slots the backup has. Raises BackupDamaged, Unavailable."""
        return tuple(self._slots(backup_id))

    def require_opened_by(self, backup_id: UUID, shred_key: bytes) -> None:
        """Raises BackupKeyMissing, BackupDamaged, BackupExpired unless shred key and master keys open the slots."""
        self._data_key(backup_id, shred_key)

    def rotate(self, backup_id: UUID, shred_key: bytes) -> bool:
        """Leave the sealing key's slot alone, whatever slots there are; True if anything was changed.

        Data is not rewritten. At every instant slots.json is whole and a slot in it opens; what was interrupted
        anywhere goes on when it is called again. Raises BackupKeyMissing, BackupDamaged, BackupExpired, Unavailable,
        NotFound if the slots were deleted meanwhile (they do not come back).
        """
        added = self.add_slot(backup_id, shred_key)
        return self.drop_slots(backup_id, shred_key) or added

    def add_slot(self, backup_id: UUID, shred_key: bytes) -> bool:
        """The first half of `rotate`: add the sealing key's slot and see that it opens; False if it stood there."""
        slots, data_key = self._opened(backup_id, shred_key)
        if self._seals(slots, backup_id, shred_key, data_key):
            return False
        new = sealing_slot(self.keys, data_key=data_key, shred_key=shred_key, backup_id=backup_id)
        self._replace_slots(new | {key_id: slot for key_id, slot in slots.items() if key_id not in new},
                            backup_id, shred_key, data_key)  # fmt: skip
        return True

    def drop_slots(self, backup_id: UUID, shred_key: bytes) -> bool:
        """The second half of `rotate`: drop all slots but the sealing key's, which must open; False if it is alone."""
        slots, data_key = self._opened(backup_id, shred_key)
        sealing = self.keys.sealing_id
        if not self._seals(slots, backup_id, shred_key, data_key):
            raise BackupKeyMissing(
                f"The backup has no slot of the key {sealing}, which seals.", remedy="Add it first: rotate the keys."
            )
        if len(slots) == 1:
            return False
        self._replace_slots({sealing: slots[sealing]}, backup_id, shred_key, data_key)
        return True

    def _replace_slots(self, slots: Slots, backup_id: UUID, shred_key: bytes, data_key: bytes) -> None:
        """Put them in the place of the others and read them back. Raises BackupDamaged if they are not what was put."""
        raw = write_slots(slots, backup_id)
        if len(raw) > MAX_SLOTS_SIZE:
            raise BackupError(
                f"slots.json would have {len(raw)} bytes; {MAX_SLOTS_SIZE} is the most.",
                remedy="Use another copy of the backup: no program of ours writes so many slots.",
            )
        self.store.replace(layout.slots_key(backup_id), raw)
        found = self._slots(backup_id)
        if found != slots or not self._seals(found, backup_id, shred_key, data_key):
            what = "slots.json is not what was written just now"
            raise BackupDamaged(
                f"The backup store does not keep what it is given: {what}.", damages=[what],
                remedy="Keep all keys in BACKUP_KEYS, and look after the store.",
            )  # fmt: skip

    def _seals(self, slots: Slots, backup_id: UUID, shred_key: bytes, data_key: bytes) -> bool:
        """Whether the sealing key's own slot gives the data key."""
        sealing = self.keys.sealing_id
        return opens(slots, sealing, self.keys, data_key=data_key, shred_key=shred_key, backup_id=backup_id)

    def _opened(self, backup_id: UUID, shred_key: bytes) -> tuple[Slots, bytes]:
        slots = self._slots(backup_id)
        return slots, unwrap(slots, self.keys, shred_key=shred_key, backup_id=backup_id)

    def _data_key(self, backup_id: UUID, shred_key: bytes) -> bytes:
        return self._opened(backup_id, shred_key)[1]

    def _slots(self, backup_id: UUID) -> Slots:
        raw = fetch(self.store, layout.slots_key(backup_id), limit=MAX_SLOTS_SIZE, what="slots.json")
        return read_slots(raw, backup_id)

    def destroy(self, backup_id: UUID) -> None:
        """Delete all of a backup, slots first; safe to repeat. Delete the shred key before. Raises Unavailable."""
        destroy(self.store, backup_id)

    def keep(self, backup_id: UUID, seconds: float | None) -> None:
        """Have the store keep all of a backup at least so long from now, None for ever. Raises Unavailable."""
        self.store.keep(layout.prefix(backup_id), seconds)

    def sweep_orphans(self, known: Callable[[], Collection[UUID] | None]) -> list[UUID]:
        """Destroy what crashes left: backups without a manifest that are not among the `known` ones; their ids.

        `known` is called once the store has been listed, and must give every backup that was begun by then, or None
        where nobody can say: then all stay. Raises BackupError where the listing does not end.
        """
        whole: set[UUID] = set()
        found: set[UUID] = set()
        for key in layout.limited(self.store.list()):
            if backup_id := layout.backup_of(key):
                found.add(backup_id)
                if key == layout.manifest_key(backup_id):
                    whole.add(backup_id)
        kept = known()
        orphans = [] if kept is None else sorted(found - whole - set(kept))
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
