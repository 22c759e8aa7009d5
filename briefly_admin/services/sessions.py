"""Sessions: a random token in the cookie, its SHA-256 in the app database, two clocks that end it."""

import secrets
from collections.abc import Callable
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Final

from briefly_admin.domain.errors import NotAuthenticated, NotFound
from briefly_admin.domain.permissions import Actor, Permission, Role
from briefly_admin.services.admins import admin_view
from briefly_admin.services.auditing import AuditService, require
from briefly_admin.services.passwords import hash_password, matches, outdated
from briefly_admin.services.throttling import Throttle
from briefly_admin.services.views import AdminView, SessionView, SignedIn
from briefly_admin.store import people
from briefly_admin.store.database import Database, Row
from briefly_admin.store.texts import storable

IDLE: Final = timedelta(minutes=30)
ABSOLUTE: Final = timedelta(hours=12)
_TOUCH_EVERY: Final = timedelta(seconds=5)
_LONGEST_AGENT: Final = 200


class SessionService:
    """Signs people in and out."""

    def __init__(
        self, database: Database, audit: AuditService, throttle: Throttle, now: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._audit = audit
        self._throttle = throttle
        self._now = now

    def sign_in(self, email: str, password: str, *, address: str, agent: str) -> SignedIn:
        """A new session. Raises NotAuthenticated (the same for unknown people and wrong passwords), TooManyRequests."""
        self._throttle.count(email, address)
        with self._database.begin() as connection:
            row = people.admin_by_email(connection, storable(email.strip()))
        usable = row is not None and row.disabled_at is None
        right = matches(row.password_hash if row is not None and usable else None, password)
        if row is None or not right:
            self._refuse(row, address)
            raise NotAuthenticated("The e-mail or the password is not right.", remedy="Try again, or ask an admin.")
        self._throttle.forgive(email, address)
        token = secrets.token_urlsafe(32)
        now = self._now()
        with self._database.begin() as connection:
            if outdated(row.password_hash):
                people.set_admin(connection, row.id, password_hash=hash_password(password))
            people.add_session(
                connection, id_hash=hash_of(token), admin_id=row.id, created_at=now, seen_at=now, address=address,
                agent=storable(agent)[:_LONGEST_AGENT],
            )  # fmt: skip
            people.set_admin(connection, row.id, last_seen_at=now)
            actor = Actor(row.email, Role(row.role), "page", address, str(row.id))
            self._audit.write(connection, actor, "admin.sign_in", f"admin {row.email}")
        return SignedIn(token, admin_view(row))

    def _refuse(self, row: Row[Any] | None, address: str) -> None:
        """What was typed is not kept: it may be a password in the wrong field."""
        stranger = Actor("nobody", Role.VIEWER, "page", address)
        with self._database.begin() as connection:
            known = f"admin {row.email}" if row is not None else "unknown account"
            self._audit.write(connection, stranger, "admin.sign_in_failed", known)

    def resolve(self, session_token: str, *, touch: bool, address: str) -> SessionView | None:
        """The living session of a cookie, or None; `touch` False for polls, which do not keep it alive."""
        now = self._now()
        with self._database.begin() as connection:
            row = people.session(connection, hash_of(session_token), **_bounds(now))
            if row is None:
                return None
            seen = row.seen_at
            if touch and now - row.seen_at >= _TOUCH_EVERY:
                people.touch_session(connection, row.id_hash, row.admin_id, at=now, address=address)
            seen = now if touch else row.seen_at
        return _view(row, seen, now, address=address)

    def sign_out(self, session_token: str) -> None:
        """End the session; nothing happens if it has ended."""
        now = self._now()
        with self._database.begin() as connection:
            row = people.session(connection, hash_of(session_token), **_bounds(now))
            if row is not None and people.revoke_session(connection, row.id_hash, at=now):
                actor = Actor(row.email, Role(row.role), "page", row.address, str(row.admin_id))
                self._audit.write(connection, actor, "admin.sign_out", f"admin {row.email}")

    def rotate(self, session_token: str) -> str:
        """A new token for the same session, at the use of a privilege. Raises NotAuthenticated."""
        new = secrets.token_urlsafe(32)
        with self._database.begin() as connection:
            living = people.session(connection, hash_of(session_token), **_bounds(self._now()))
            if living is None or not people.rename_session(connection, living.id_hash, hash_of(new)):
                raise NotAuthenticated("The session has ended.", remedy="Sign in again.")
        return new

    def list(self, actor: Actor, *, everybody: bool = False) -> tuple[SessionView, ...]:
        """One's own living sessions, newest first; `everybody`'s with the permission. Raises NotAllowed."""
        require(actor, Permission.MANAGE_PEOPLE if everybody else Permission.MANAGE_OWN)
        now = self._now()
        with self._database.begin() as connection:
            rows = people.sessions(connection, None, **_bounds(now))
        mine = [row for row in rows if everybody or str(row.admin_id) == actor.admin_id]
        return tuple(_view(row, row.seen_at, now, address=row.address) for row in mine)

    def revoke(self, actor: Actor, id_hash: str) -> None:
        """End one's own session, or with the permission anybody's. Raises NotAllowed, NotFound."""
        require(actor, Permission.MANAGE_OWN)
        with self._database.begin() as connection:
            owner = people.session_owner(connection, id_hash)
            if owner is None or str(owner) != actor.admin_id:
                require(actor, Permission.MANAGE_PEOPLE)
            if owner is None or not people.revoke_session(connection, id_hash, at=self._now()):
                raise NotFound("There is no such session any more.")
            self._audit.write(connection, actor, "session.revoke", f"session {id_hash[:12]}")


def hash_of(token: str) -> str:
    """What is kept of a session's or a bearer's token."""
    return sha256(token.encode(errors="replace")).hexdigest()


def _bounds(now: datetime) -> dict[str, datetime]:
    return {"created_after": now - ABSOLUTE, "seen_after": now - IDLE}


def _view(row: Row[Any], seen_at: datetime, now: datetime, *, address: str) -> SessionView:
    admin = AdminView(str(row.admin_id), row.email, Role(row.role), row.disabled_at is not None, row.admin_created_at,
                      row.last_seen_at)  # fmt: skip
    left = min(seen_at + IDLE, row.created_at + ABSOLUTE) - now
    return SessionView(
        id_hash=row.id_hash, admin=admin, actor=Actor(row.email, admin.role, "page", address, admin.id),
        created_at=row.created_at, seen_at=seen_at, address=row.address, agent=row.agent,
        idle_left_seconds=max(0, int(left.total_seconds())),
    )  # fmt: skip
