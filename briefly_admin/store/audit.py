"""The audit chain in the app database: appended to in the caller's transaction, one writer at a time."""

import hmac
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final

from sqlalchemy import Connection, Row, delete, exists, func, insert, or_, select

from briefly_admin.domain.audit import GENESIS, AuditEvent, key_id, link
from briefly_admin.domain.permissions import Actor
from briefly_admin.store import tables
from briefly_admin.store.texts import storable

_LOCK: Final = 0x627269_6175646974
_LONGEST: Final = 500
"""Characters of a text in an event: what comes from outside is cut."""


@dataclass(frozen=True, slots=True)
class AuditVerdict:
    """Whether the chain holds; `broken_at` is the number of the first event that is wrong (0: the head)."""

    ok: bool
    count: int
    broken_at: int | None
    message: str


def append(
    connection: Connection,
    actor: Actor,
    action: str,
    object_: str,
    details: Mapping[str, Any],
    *,
    key: bytes,
    at: datetime,
) -> AuditEvent:
    """Link one event to the chain, as the last statement of the caller's transaction, which then holds its lock."""
    connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
    last = connection.execute(select(tables.audit_head.c.number, tables.audit_head.c.link)).one_or_none()
    event = AuditEvent(
        number=last.number + 1 if last else 1,
        at=at.astimezone(UTC),
        actor=_text(actor.name), role=actor.role.value, via=actor.via, address=_text(actor.address),
        action=action, object=_text(object_), details=_plain(dict(details)),
        key_id=key_id(key), previous=last.link if last else GENESIS,
    )  # fmt: skip
    event = replace(event, link=link(event, key))
    columns = {column.name: getattr(event, column.name) for column in tables.audit.columns}
    connection.execute(insert(tables.audit).values(columns))
    _set_head(connection, event, key)
    return event


def verify(connection: Connection, key: bytes) -> AuditVerdict:
    """Walk the whole chain, in the snapshot of the caller: finds edits, gaps, other orders, a cut tail, a lost head."""
    previous, count = GENESIS, 0
    with closing(events(connection)) as chain:
        for event in chain:
            fault = _fault(event, count + 1, previous, key)
            if fault:
                return AuditVerdict(ok=False, count=count, broken_at=count + 1, message=fault)
            previous, count = event.link, count + 1
    fault = _head_fault(connection, previous, count, key)
    if fault:
        return AuditVerdict(ok=False, count=count, broken_at=0 if not count else count + 1, message=fault)
    return AuditVerdict(ok=True, count=count, broken_at=None, message=f"The chain of {count:,} events is intact.")


def events(connection: Connection) -> Generator[AuditEvent, None, None]:
    """All events, oldest first, a thousand in memory at a time."""
    statement = select(tables.audit).order_by(tables.audit.c.number).execution_options(yield_per=1000)
    with connection.execute(statement) as result:
        for row in result:
            yield _event(row)


def newest(
    connection: Connection,
    *,
    limit: int,
    before: int | None = None,
    actor_name: str | None = None,
    action: str | None = None,
    object_: str | None = None,
) -> Sequence[AuditEvent]:
    """Events newest first; `action` matches a whole name or its noun, `actor_name` and `object_` a part."""
    table = tables.audit.c
    statement = select(tables.audit).order_by(table.number.desc()).limit(limit)
    if before is not None:
        statement = statement.where(table.number < before)
    if actor_name:
        statement = statement.where(table.actor.icontains(actor_name, autoescape=True))
    if action:
        statement = statement.where(or_(table.action == action, table.action.startswith(f"{action}.", autoescape=True)))
    if object_:
        statement = statement.where(table.object.icontains(object_, autoescape=True))
    return [_event(row) for row in connection.execute(statement)]


def _event(row: Row[Any]) -> AuditEvent:
    values = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it begins with an underscore
    return AuditEvent(**values | {"at": row.at.astimezone(UTC)})


def _fault(event: AuditEvent, number: int, previous: str, key: bytes) -> str:
    if event.number != number:
        return f"Event {number} is missing; the next one is {event.number}."
    if event.key_id != key_id(key):
        return f"Event {number} was signed with the key {event.key_id}; AUDIT_KEY is {key_id(key)}."
    if event.previous != previous:
        return f"Event {number} is not linked to the one before it."
    if not hmac.compare_digest(event.link, link(event, key)):
        return f"Event {number} is not what was written."
    return ""


def _head_fault(connection: Connection, last_link: str, count: int, key: bytes) -> str:
    head = connection.execute(select(tables.audit_head)).one_or_none()
    if head is None:
        used = connection.execute(select(or_(exists(select(tables.admin)), exists(select(tables.run))))).scalar_one()
        return "The chain's signed head is missing." if count or used else ""
    if not hmac.compare_digest(head.signature, _signature(head.number, head.link, head.key_id, key)):
        return "The chain's head is not signed with AUDIT_KEY."
    if head.number != count or head.link != last_link:
        return f"The chain ends at event {count}; its signed head says {head.number}."
    return ""


def _set_head(connection: Connection, event: AuditEvent, key: bytes) -> None:
    signature = _signature(event.number, event.link, event.key_id, key)
    connection.execute(delete(tables.audit_head))
    connection.execute(
        insert(tables.audit_head).values(
            number=event.number, link=event.link, key_id=event.key_id, signature=signature
        )
    )  # fmt: skip


def _signature(number: int, last_link: str, name: str, key: bytes) -> str:
    return hmac.new(key, f"briefly/audit-head\n{number}\n{last_link}\n{name}".encode(), sha256).hexdigest()


def _text(value: str) -> str:
    """A text that both PostgreSQL and the link can hold."""
    return storable(value)[:_LONGEST]


def _plain(value: Any) -> Any:
    """JSON that comes out of jsonb as it went in: no floats, no NUL."""
    if isinstance(value, Mapping):
        return {_text(str(name)): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | int):
        return value
    return _text(str(value))
