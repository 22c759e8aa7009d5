"""Admins, their sessions, tokens, and the throttle of sign-ins."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, Row, case, delete, func, literal, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert

from briefly_admin.store import tables

_ADMIN: Final = tables.admin.c
_SESSION: Final = tables.session.c
_TOKEN: Final = tables.token.c
_THROTTLE: Final = tables.throttle.c


def lock_people(connection: Connection) -> None:
    """Until the transaction ends, nobody else makes, disables or re-roles an admin."""
    connection.execute(text("SELECT pg_advisory_xact_lock(7090, 2)"))


def admins(connection: Connection) -> Sequence[Row[Any]]:
    """All admins, by e-mail."""
    return connection.execute(select(tables.admin).order_by(func.lower(_ADMIN.email))).all()


def admin(connection: Connection, admin_id: UUID) -> Row[Any] | None:
    """The admin of that id."""
    return connection.execute(select(tables.admin).where(_ADMIN.id == admin_id)).one_or_none()


def admin_by_email(connection: Connection, email: str) -> Row[Any] | None:
    """The admin with that e-mail, whatever its case."""
    return connection.execute(select(tables.admin).where(func.lower(_ADMIN.email) == email.lower())).one_or_none()


def add_admin(connection: Connection, **values: Any) -> bool:
    """Insert an admin; False where the e-mail is taken."""
    statement = insert(tables.admin).values(**values).on_conflict_do_nothing().returning(_ADMIN.id)
    return connection.execute(statement).scalar() is not None


def set_admin(connection: Connection, admin_id: UUID, **values: Any) -> bool:
    """Change an admin."""
    return connection.execute(update(tables.admin).where(_ADMIN.id == admin_id).values(**values)).rowcount == 1


def other_admins(connection: Connection, admin_id: UUID) -> int:
    """How many enabled people with the role admin there are besides this one."""
    statement = select(func.count()).where(_ADMIN.role == "admin", _ADMIN.disabled_at.is_(None), _ADMIN.id != admin_id)
    return connection.execute(statement).scalar_one()


def add_session(connection: Connection, **values: Any) -> None:
    """Insert a session."""
    connection.execute(insert(tables.session).values(**values))


def session(connection: Connection, id_hash: str, *, created_after: datetime, seen_after: datetime) -> Row[Any] | None:
    """A session that is neither revoked nor too old, of an admin who is not disabled; with the admin's columns."""
    statement = (
        select(tables.session, *_admin_columns())
        .join(tables.admin, _ADMIN.id == _SESSION.admin_id)
        .where(
            _SESSION.id_hash == id_hash, _SESSION.revoked_at.is_(None), _ADMIN.disabled_at.is_(None),
            _SESSION.created_at > created_after, _SESSION.seen_at > seen_after,
        )
    )  # fmt: skip
    return connection.execute(statement).one_or_none()


def sessions(
    connection: Connection, admin_id: UUID | None, *, created_after: datetime, seen_after: datetime
) -> Sequence[Row[Any]]:
    """Living sessions of one admin, or of all, newest first; with the admin's columns."""
    statement = (
        select(tables.session, *_admin_columns())
        .join(tables.admin, _ADMIN.id == _SESSION.admin_id)
        .where(_SESSION.revoked_at.is_(None), _ADMIN.disabled_at.is_(None))
        .where(_SESSION.created_at > created_after, _SESSION.seen_at > seen_after)
        .order_by(_SESSION.seen_at.desc())
    )
    if admin_id is not None:
        statement = statement.where(_SESSION.admin_id == admin_id)
    return connection.execute(statement).all()


def _admin_columns() -> list[Any]:
    return [_ADMIN.email, _ADMIN.role, _ADMIN.disabled_at, _ADMIN.last_seen_at,
            _ADMIN.created_at.label("admin_created_at")]  # fmt: skip


def touch_session(connection: Connection, id_hash: str, admin_id: UUID, *, at: datetime, address: str) -> None:
    """The session was used just now."""
    statement = update(tables.session).where(_SESSION.id_hash == id_hash)
    connection.execute(statement.values(seen_at=at, address=address))
    connection.execute(update(tables.admin).where(_ADMIN.id == admin_id).values(last_seen_at=at))


def rename_session(connection: Connection, id_hash: str, new_hash: str) -> bool:
    """Give a living session a new id."""
    statement = update(tables.session).where(_SESSION.id_hash == id_hash, _SESSION.revoked_at.is_(None))
    return connection.execute(statement.values(id_hash=new_hash)).rowcount == 1


def session_owner(connection: Connection, id_hash: str) -> UUID | None:
    """Whose session it is."""
    return connection.execute(select(_SESSION.admin_id).where(_SESSION.id_hash == id_hash)).scalar()


def revoke_session(connection: Connection, id_hash: str, *, at: datetime) -> bool:
    """End a session; False if it was ended."""
    statement = update(tables.session).where(_SESSION.id_hash == id_hash, _SESSION.revoked_at.is_(None))
    return connection.execute(statement.values(revoked_at=at)).rowcount == 1


def revoke_sessions(connection: Connection, admin_id: UUID, *, at: datetime, keep: str = "") -> None:
    """End all sessions of an admin, but the one of hash `keep`."""
    mine = _SESSION.admin_id == admin_id, _SESSION.revoked_at.is_(None), _SESSION.id_hash != keep
    connection.execute(update(tables.session).where(*mine).values(revoked_at=at))


def forget_sessions(connection: Connection, *, before: datetime) -> None:
    """Delete sessions and throttles that nothing needs any more."""
    connection.execute(delete(tables.session).where(_SESSION.created_at < before))
    idle = _THROTTLE.since < before, or_(_THROTTLE.blocked_until.is_(None), _THROTTLE.blocked_until < before)
    connection.execute(delete(tables.throttle).where(*idle))


def add_token(connection: Connection, **values: Any) -> None:
    """Insert a token."""
    connection.execute(insert(tables.token).values(**values))


def tokens(connection: Connection, admin_id: UUID | None) -> Sequence[Row[Any]]:
    """Tokens of one admin, or of all, newest first, with `email` of the owner."""
    statement = select(tables.token, _ADMIN.email).outerjoin(tables.admin, _ADMIN.id == _TOKEN.admin_id)
    if admin_id is not None:
        statement = statement.where(_TOKEN.admin_id == admin_id)
    return connection.execute(statement.order_by(_TOKEN.created_at.desc())).all()


def token(connection: Connection, token_id: UUID) -> Row[Any] | None:
    """The token of that id."""
    return connection.execute(select(tables.token).where(_TOKEN.id == token_id)).one_or_none()


def live_token(connection: Connection, token_hash: str, *, now: datetime) -> Row[Any] | None:
    """A token that is neither revoked nor expired, nor its owner disabled; with `email` and `owner_role`."""
    statement = (
        select(tables.token, _ADMIN.email, _ADMIN.role.label("owner_role"))
        .outerjoin(tables.admin, _ADMIN.id == _TOKEN.admin_id)
        .where(_TOKEN.token_hash == token_hash, _TOKEN.revoked_at.is_(None), _ADMIN.disabled_at.is_(None))
        .where(or_(_TOKEN.expires_at.is_(None), _TOKEN.expires_at > now))
    )
    return connection.execute(statement).one_or_none()


def set_token(connection: Connection, token_id: UUID, **values: Any) -> bool:
    """Change a token that is not revoked."""
    statement = update(tables.token).where(_TOKEN.id == token_id, _TOKEN.revoked_at.is_(None))
    return connection.execute(statement.values(**values)).rowcount == 1


def count_try(connection: Connection, key: str, *, now: datetime, free: int, longest: int, forget: timedelta) -> bool:
    """Count one more try under `key` before its outcome is known; False while the key is blocked.

    Beyond `free` tries in a row each one blocks for 1, 2, 4 … up to `longest` seconds; after `forget` without a try
    the count begins anew.
    """
    table = tables.throttle
    failures = case((_THROTTLE.since < now - forget, literal(1)), else_=_THROTTLE.failures + 1)
    seconds = func.least(literal(float(longest)), func.power(2.0, func.least(failures - free, 30) - 1))
    until = case((failures > free, literal(now, _THROTTLE.since.type) + seconds * text("interval '1 second'")))
    statement = insert(table).values(key=key, failures=1, since=now)
    statement = statement.on_conflict_do_update(
        index_elements=["key"],
        set_={"failures": failures, "since": now, "blocked_until": until},
        where=or_(_THROTTLE.blocked_until.is_(None), _THROTTLE.blocked_until <= now),
    )
    return connection.execute(statement.returning(_THROTTLE.key)).scalar() is not None


def blocked_until(connection: Connection, keys: Sequence[str]) -> datetime | None:
    """Until when the longest of the keys is blocked."""
    return connection.execute(select(func.max(_THROTTLE.blocked_until)).where(_THROTTLE.key.in_(keys))).scalar()


def forgive(connection: Connection, *, account: str, address: str) -> None:
    """The try succeeded: the account starts anew, the address gets its try back."""
    connection.execute(delete(tables.throttle).where(_THROTTLE.key == account))
    back = update(tables.throttle).where(_THROTTLE.key == address)
    connection.execute(back.values(failures=func.greatest(_THROTTLE.failures - 1, 0), blocked_until=None))
