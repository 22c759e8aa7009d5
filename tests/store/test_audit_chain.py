"""The audit chain: appended to one at a time, and every kind of tampering is found."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import psycopg
import pytest

from briefly_admin.domain.permissions import Actor, Role
from briefly_admin.store import audit
from briefly_admin.store.database import Database

KEY = b"a key of thirty-two bytes, or so"
ANA = Actor("ana@example.com", Role.ADMIN, "page", "127.0.0.1")
NOON = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
AWKWARD = {
    "none": None,
    "list": [1, "zwei", 2.5],
    "nul": "a\0b",
    "big": 2**70,
    "umlaut": "ü",
    "lone": "\ud800",
    "deep": {"x": (True,)},
}


def _append(database: Database, action: str = "run.start", object_: str = "run 1") -> None:
    with database.begin() as connection:
        audit.append(connection, ANA, action, object_, AWKWARD, key=KEY, at=NOON)


def _verdict(database: Database, key: bytes = KEY) -> audit.AuditVerdict:
    with database.snapshot() as connection:
        return audit.verify(connection, key)


def test_whatever_an_event_holds_it_verifies(database: Database) -> None:
    assert _verdict(database).ok
    for _ in range(3):
        _append(database, object_="a\0b" + "x" * 10_000)
    verdict = _verdict(database)
    assert (verdict.ok, verdict.count) == (True, 3), verdict.message


def test_writers_at_once_make_one_chain(database: Database) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: _append(database), range(40)))
    assert (_verdict(database).ok, _verdict(database).count) == (True, 40)


def test_an_event_goes_when_its_transaction_does(database: Database) -> None:
    def fail() -> None:
        with database.begin() as connection:
            audit.append(connection, ANA, "run.start", "run 1", {}, key=KEY, at=NOON)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert _verdict(database).count == 0


TAMPERINGS = {
    "edit": "UPDATE briefly_admin.audit SET actor = 'somebody else' WHERE number = 2",
    "edit the details": """UPDATE briefly_admin.audit SET details = details || '{"none": 1}' WHERE number = 2""",
    "edit the time": "UPDATE briefly_admin.audit SET at = at + interval '1 microsecond' WHERE number = 2",
    "delete": "DELETE FROM briefly_admin.audit WHERE number = 2",
    "delete the first": "DELETE FROM briefly_admin.audit WHERE number = 1",
    "reorder": "UPDATE briefly_admin.audit SET number = CASE number WHEN 2 THEN 30 WHEN 3 THEN 2 END WHERE number IN (2, 3);"
    "UPDATE briefly_admin.audit SET number = 3 WHERE number = 30",
    "cut the tail": "DELETE FROM briefly_admin.audit WHERE number = 4",
    "cut the tail and the head": "DELETE FROM briefly_admin.audit WHERE number = 4; DELETE FROM briefly_admin.audit_head",
    "cut the tail and move the head": "DELETE FROM briefly_admin.audit WHERE number = 4; UPDATE briefly_admin.audit_head SET "
    "number = 3, link = (SELECT link FROM briefly_admin.audit WHERE number = 3)",
    "truncate": "TRUNCATE briefly_admin.audit",
    "forget it all": "TRUNCATE briefly_admin.audit; DELETE FROM briefly_admin.audit_head; INSERT INTO briefly_admin.admin "
    "(id, email, password_hash, role) VALUES (gen_random_uuid(), 'ana@example.com', '', 'admin')",
    "add one": "INSERT INTO briefly_admin.audit SELECT number + 1, at, actor, role, via, address, action, object, details, key_id, "
    "link, repeat('0', 64) FROM briefly_admin.audit WHERE number = 4",
}


@pytest.mark.parametrize("how", TAMPERINGS)
def test_tampering_is_found(
    database: Database, app_database: str, superuser_database: Callable[[str], str], how: str
) -> None:
    for _ in range(4):
        _append(database)
    with psycopg.connect(superuser_database(app_database)) as connection:
        connection.execute("ALTER TABLE briefly_admin.audit DISABLE TRIGGER ALL")
        connection.execute("ALTER TABLE briefly_admin.audit DROP CONSTRAINT audit_pkey")
        connection.execute(TAMPERINGS[how].encode())
    verdict = _verdict(database)
    assert not verdict.ok
    assert verdict.broken_at is not None
    assert verdict.message


def test_another_key_is_named(database: Database) -> None:
    _append(database)
    assert "AUDIT_KEY" in _verdict(database, b"another key").message
