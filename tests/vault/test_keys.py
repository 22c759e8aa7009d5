import base64
import json
from uuid import UUID

import pytest

from briefly_admin.domain.errors import BackupDamaged, BackupExpired, BackupKeyMissing, SettingError
from briefly_admin.vault.keys import MasterKeys, make_slots, open_slots

ID = UUID("11111111-2222-3333-4444-555555555555")
DATA, SHRED = bytes(range(32)), bytes(range(64, 96))
OLD, NEW = bytes([1]) * 32, bytes([2]) * 32


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def slots() -> bytes:
    return make_slots(MasterKeys({"old": OLD}), data_key=DATA, shred_key=SHRED, backup_id=ID)


def test_the_first_key_seals_and_all_open() -> None:
    keys = MasterKeys({"new": NEW, "old": OLD})
    assert open_slots(slots(), keys, shred_key=SHRED, backup_id=ID) == DATA
    made = json.loads(make_slots(keys, data_key=DATA, shred_key=SHRED, backup_id=ID))
    assert [slot["key_id"] for slot in made["slots"]] == ["new"]


def test_the_wrapping_is_the_one_of_the_format_page() -> None:
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF
    from cryptography.hazmat.primitives.keywrap import aes_key_wrap

    wrapping = HKDF(SHA256(), 32, ID.bytes, b"briefly/v1/wrapold").derive(OLD + SHRED)
    assert json.loads(slots())["slots"] == [{"key_id": "old", "wrapped": b64(aes_key_wrap(wrapping, DATA))}]


def test_a_missing_key_is_named() -> None:
    with pytest.raises(BackupKeyMissing, match=r"sealed with the key old; BACKUP_KEYS has only new") as raised:
        open_slots(slots(), MasterKeys({"new": NEW}), shred_key=SHRED, backup_id=ID)
    assert "old" in raised.value.remedy


@pytest.mark.parametrize(("key", "shred"), [(NEW, SHRED), (OLD, bytes(32))])
def test_a_wrong_key_is_named(key: bytes, shred: bytes) -> None:
    with pytest.raises(BackupKeyMissing, match="The key old is not the one"):
        open_slots(slots(), MasterKeys({"old": key}), shred_key=shred, backup_id=ID)


def test_without_the_shred_key_nobody_opens() -> None:
    with pytest.raises(BackupExpired):
        open_slots(slots(), MasterKeys({"old": OLD}), shred_key=b"", backup_id=ID)


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"null", b"[]", b"{}", b"\xff", b"[" * 100_000, slots().replace(b"5556", b"5557")[:-3],
        slots().replace(str(ID).encode(), b"11111111-2222-3333-4444-555555555556"),
        slots().replace(b'"version":1', b'"version":2'), slots().replace(b'"old"', b"7"), slots().replace(b'"old"', b'"../x"'),
        b'{"backup_id":"%s","slots":[],"version":1}' % str(ID).encode(),
        b'{"backup_id":"%s","slots":[{"key_id":"old","wrapped":"AAAA"}],"version":1}' % str(ID).encode(),
        b'{"backup_id":"%s","slots":[{"key_id":"old","wrapped":7}],"version":1}' % str(ID).encode(),
    ],
)  # fmt: skip
def test_malformed_slots_are_damage(raw: bytes) -> None:
    with pytest.raises(BackupDamaged, match=r"slots\.json"):
        open_slots(raw, MasterKeys({"old": OLD}), shred_key=SHRED, backup_id=ID)


def test_keys_are_read_from_the_setting() -> None:
    keys = MasterKeys.parse(f"b:{b64(NEW)}, a:{b64(OLD)}")
    assert dict(keys) == {"b": NEW, "a": OLD}
    assert keys.sealing_id == "b"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "no id"), (b64(OLD), "no id"), (f"a:{b64(OLD[:31])}", "31 bytes"), ("a:%%", "not base64"), ("a:é", "not base64"),
        (f"a:{b64(OLD)},a:{b64(NEW)}", "repeats"), (f":{b64(OLD)}", "id"), (f"a b:{b64(OLD)}", "id"),
        (f"{'a' * 65}:{b64(OLD)}", "id"), (f"a:{b64(OLD)},", "entry 2"),
    ],
)  # fmt: skip
def test_a_malformed_setting_is_named_without_the_key(text: str, what: str) -> None:
    with pytest.raises(SettingError, match="BACKUP_KEYS") as raised:
        MasterKeys.parse(text)
    assert what in str(raised.value)
    assert b64(OLD)[:20] not in str(raised.value)


def test_the_repr_holds_no_key() -> None:
    assert repr(MasterKeys({"a": OLD})) == "MasterKeys(a)"


def test_no_key_at_all_is_refused() -> None:
    with pytest.raises(SettingError):
        MasterKeys({})
