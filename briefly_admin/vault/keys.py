"""Keys: masters from the settings, one data key and one shred key a backup, and the slots that wrap the data key.

wrapping key = HKDF-SHA256(master ‖ shred key, salt = backup id, info = "briefly/v1/wrap" ‖ key id, 32 bytes)
slot         = AES key wrap (RFC 3394) of the data key

Source: docs/backup-format.md, "Keys".
"""

import base64
import binascii
import hmac
import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final, Self
from uuid import UUID

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from briefly_admin.domain.errors import BackupDamaged, BackupExpired, BackupKeyMissing, SettingError

KEY_SIZE: Final = 32
KEY_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
SLOTS_VERSION: Final = 1
MAX_SLOTS_SIZE: Final = 1 << 16
"""Bytes of slots.json that a reader takes at most."""

_NAMED: Final = 8
"""Names that a message lists at most."""
_WRAPPED_SIZE: Final = KEY_SIZE + 8
_SETTING: Final = "BACKUP_KEYS"
_REMEDY: Final = "Write it as id:base64,id:base64 with 32 random bytes each; `openssl rand -base64 32` makes them."


class MasterKeys(Mapping[str, bytes]):
    """Key ids and keys of 32 bytes each; the first seals, all open. Its repr shows ids alone."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        if not keys:
            raise SettingError(_SETTING, "there is no key.", remedy=_REMEDY)
        for key_id, key in keys.items():
            if not KEY_ID.fullmatch(key_id):
                raise SettingError(_SETTING, "a key's id is 1 to 64 letters, digits, '.', '_' or '-'.", remedy=_REMEDY)
            if len(key) != KEY_SIZE:
                raise SettingError(
                    _SETTING, f"key {key_id} has {len(key)} bytes instead of {KEY_SIZE}.", remedy=_REMEDY
                )
        self._keys = dict(keys)

    @classmethod
    def parse(cls, text: str) -> Self:
        """From `id:base64,id:base64`, as the setting writes it. Raises SettingError, without the keys in it."""
        keys: dict[str, bytes] = {}
        for place, entry in enumerate(text.split(","), start=1):
            key_id, colon, encoded = entry.strip().partition(":")
            if not colon:
                raise SettingError(_SETTING, f"entry {place} has no id.", remedy=_REMEDY)
            if key_id in keys:
                raise SettingError(_SETTING, f"entry {place} repeats the id of another.", remedy=_REMEDY)
            try:
                keys[key_id] = base64.b64decode(encoded, validate=True)
            except (binascii.Error, ValueError) as error:
                raise SettingError(_SETTING, f"entry {place} is not base64.", remedy=_REMEDY) from error
        return cls(keys)

    @property
    def sealing_id(self) -> str:
        """The id of the key that seals new backups."""
        return next(iter(self._keys))

    def __getitem__(self, key_id: str) -> bytes:
        return self._keys[key_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __repr__(self) -> str:
        return f"MasterKeys({', '.join(self._keys)})"


Slots = dict[str, bytes]
"""Key id → the data key, wrapped."""


def make_slots(keys: MasterKeys, *, data_key: bytes, shred_key: bytes, backup_id: UUID) -> bytes:
    """slots.json with one slot, under the key that seals."""
    return write_slots(sealing_slot(keys, data_key=data_key, shred_key=shred_key, backup_id=backup_id), backup_id)


def sealing_slot(keys: MasterKeys, *, data_key: bytes, shred_key: bytes, backup_id: UUID) -> Slots:
    """The one slot under the key that seals."""
    key_id = keys.sealing_id
    return {key_id: aes_key_wrap(_wrapping_key(keys[key_id], shred_key, backup_id, key_id), data_key)}


def write_slots(slots: Slots, backup_id: UUID) -> bytes:
    """slots.json."""
    data = {
        "version": SLOTS_VERSION,
        "backup_id": str(backup_id),
        "slots": [
            {"key_id": key_id, "wrapped": base64.b64encode(wrapped).decode()} for key_id, wrapped in slots.items()
        ],
    }
    return json.dumps(data, sort_keys=True, separators=(",", ":")).encode()


def open_slots(raw: bytes, keys: MasterKeys, *, shred_key: bytes, backup_id: UUID) -> bytes:
    """The data key. Raises BackupKeyMissing (naming the key ids), BackupExpired without S, BackupDamaged."""
    return unwrap(read_slots(raw, backup_id), keys, shred_key=shred_key, backup_id=backup_id)


def unwrap(slots: Slots, keys: MasterKeys, *, shred_key: bytes, backup_id: UUID) -> bytes:
    """The data key, by the first slot that opens. Raises BackupKeyMissing, BackupExpired without S."""
    if not shred_key:
        raise BackupExpired(
            "The backup was shredded: its shred key is gone.",
            remedy="Only an escrow file that was written still opens it.",
        )
    known = [key_id for key_id in slots if key_id in keys]
    for key_id in known:
        try:
            return aes_key_unwrap(_wrapping_key(keys[key_id], shred_key, backup_id, key_id), slots[key_id])
        except InvalidUnwrap:
            continue
    wanted, have = named(slots), named(keys)
    if known:
        raise BackupKeyMissing(
            f"The key {named(known)} is not the one that sealed this backup, or its shred key is another.",
            remedy=f"Put the key that had the id {wanted} back into {_SETTING}.",
        )
    raise BackupKeyMissing(
        f"The backup was sealed with the key {wanted}; {_SETTING} has only {have}.",
        remedy=f"Add the key with the id {wanted} to {_SETTING}.",
    )


def named(names: Collection[str]) -> str:
    """Key ids, or other names, for a message: the first ones of many."""
    listed = list(names)
    more = f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
    return ", ".join(listed[:_NAMED]) + more


def opens(slots: Slots, key_id: str, keys: MasterKeys, *, data_key: bytes, shred_key: bytes, backup_id: UUID) -> bool:
    """Whether the slot of that id alone gives this very data key."""
    try:
        only = MasterKeys({key_id: keys[key_id]})
        found = unwrap({key_id: slots[key_id]}, only, shred_key=shred_key, backup_id=backup_id)
    except (KeyError, BackupKeyMissing):
        return False
    return hmac.compare_digest(found, data_key)


def read_slots(raw: bytes, backup_id: UUID) -> Slots:
    """The slots of slots.json, in its order. Raises BackupDamaged."""
    try:
        data: Any = json.loads(raw.decode())
        version = data["version"]
        if type(version) is int and version != SLOTS_VERSION:
            raise _damaged(f"is of version {version}; this program reads {SLOTS_VERSION}")
        if type(version) is not int or data["backup_id"] != str(backup_id):
            raise _damaged("is that of another backup, or says no version")
        pairs = [(slot["key_id"], base64.b64decode(slot["wrapped"], validate=True)) for slot in data["slots"]]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise _damaged("cannot be read") from error
    if not pairs or not all(_is_slot(*pair) for pair in pairs):
        raise _damaged("holds a malformed slot, or none")
    slots = dict(pairs)
    if len(slots) != len(pairs):
        raise _damaged("names a key twice")
    if write_slots(slots, backup_id) != raw:  # a byte more or less is damage, even where JSON does not mind
        raise _damaged("is not canonical JSON, as it is written")
    return slots


def _is_slot(key_id: object, wrapped: bytes) -> bool:
    return isinstance(key_id, str) and bool(KEY_ID.fullmatch(key_id)) and len(wrapped) == _WRAPPED_SIZE


def _damaged(what: str) -> BackupDamaged:
    return BackupDamaged(
        f"The backup is damaged: slots.json {what}.", damages=[f"slots.json {what}"], remedy="Use another copy of it."
    )


def _wrapping_key(master: bytes, shred_key: bytes, backup_id: UUID, key_id: str) -> bytes:
    info = b"briefly/v1/wrap" + key_id.encode()
    return HKDF(SHA256(), KEY_SIZE, backup_id.bytes, info).derive(master + shred_key)
