"""People: who may sign in, with which role."""

import re
import secrets
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid4

from briefly_admin.domain.errors import InvalidRequest, NotAuthenticated, NotFound, Refused
from briefly_admin.domain.permissions import Actor, Permission, Role
from briefly_admin.services.auditing import AuditService, require
from briefly_admin.services.passwords import hash_password, matches
from briefly_admin.services.throttling import Throttle
from briefly_admin.services.views import AdminView
from briefly_admin.store import people
from briefly_admin.store.database import Connection, Database, Row

_EMAIL: Final = re.compile(r"[^@\s\x00]{1,64}@[^@\s\x00]{1,189}")
_SETUP: Final = Actor("setup", Role.ADMIN, "cli")


class AdminService:
    """Makes, disables and changes people; the last enabled admin stays."""

    def __init__(
        self, database: Database, audit: AuditService, throttle: Throttle, now: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._audit = audit
        self._throttle = throttle
        self._now = now

    def list(self, actor: Actor) -> tuple[AdminView, ...]:
        """All people, by e-mail. Raises NotAllowed."""
        require(actor, Permission.MANAGE_PEOPLE)
        with self._database.begin() as connection:
            return tuple(admin_view(row) for row in people.admins(connection))

    def create(self, actor: Actor, email: str, role: Role | str, password: str) -> AdminView:
        """A new person. Raises NotAllowed, InvalidRequest (field by field), Refused where the e-mail is taken."""
        require(actor, Permission.MANAGE_PEOPLE)
        known, hashed = checked_role(role), hash_password(password)
        with self._database.begin() as connection:
            return self._add(connection, actor, checked_email(email), known, hashed)

    def ensure_first(self, email: str, password: str | None) -> str | None:
        """Make the first admin where there is nobody yet; the password if one was made up, else None."""
        with self._database.begin() as connection:
            people.lock_people(connection)
            if people.admins(connection):
                return None
            made = None if password else secrets.token_urlsafe(18)
            self._add(connection, _SETUP, checked_email(email), Role.ADMIN, hash_password(password or made or ""))
            return made

    def _add(self, connection: Connection, actor: Actor, email: str, role: Role, hashed: str) -> AdminView:
        admin_id = uuid4()
        values = {"email": email, "role": role.value, "password_hash": hashed, "created_at": self._now()}
        if not people.add_admin(connection, id=admin_id, **values):
            raise Refused(
                f"There is somebody with the e-mail {email} already.", remedy="Enable or change that account."
            )
        self._audit.write(connection, actor, "admin.create", f"admin {email}", {"role": role.value})
        return admin_view(_existing(connection, str(admin_id)))

    def disable(self, actor: Actor, admin_id: str) -> AdminView:
        """Sign the person out everywhere, at once, and for good. Raises Refused for the last admin."""
        return self._change(actor, admin_id, "admin.disable", disabled_at=self._now())

    def enable(self, actor: Actor, admin_id: str) -> AdminView:
        """Let the person sign in again."""
        return self._change(actor, admin_id, "admin.enable", disabled_at=None)

    def set_role(self, actor: Actor, admin_id: str, role: Role | str) -> AdminView:
        """Give the person another role, from the next request on. Raises Refused for the last admin."""
        return self._change(actor, admin_id, "admin.set_role", role=checked_role(role).value)

    def _change(self, actor: Actor, admin_id: str, action: str, **values: Any) -> AdminView:
        require(actor, Permission.MANAGE_PEOPLE)
        with self._database.begin() as connection:
            people.lock_people(connection)
            row = _existing(connection, admin_id)
            loses = values.get("disabled_at") is not None or values.get("role", Role.ADMIN) != Role.ADMIN
            if row.role == Role.ADMIN and loses and not people.other_admins(connection, row.id):
                raise Refused(f"{row.email} is the last admin who can sign in.", remedy="Make another admin first.")
            people.set_admin(connection, row.id, **values)
            if values.get("disabled_at") is not None:
                people.revoke_sessions(connection, row.id, at=self._now())
            details = {"role": values["role"]} if "role" in values else {}
            self._audit.write(connection, actor, action, f"admin {row.email}", details)
            return admin_view(_existing(connection, admin_id))

    def set_password(
        self, actor: Actor, admin_id: str, new: str, *, current: str | None = None, keep: str = ""
    ) -> None:
        """Change a password and end the person's sessions, but the one of hash `keep`.

        One's own needs `current`; somebody else's the permission. Raises NotAllowed, InvalidRequest, NotAuthenticated,
        TooManyRequests.
        """
        own = actor.admin_id == admin_id
        require(actor, Permission.MANAGE_OWN if own else Permission.MANAGE_PEOPLE)
        hashed = hash_password(new)
        with self._database.begin() as connection:
            row = _existing(connection, admin_id)
        if own:
            self._prove(row, current or "", actor.address)
        with self._database.begin() as connection:
            people.set_admin(connection, row.id, password_hash=hashed)
            people.revoke_sessions(connection, row.id, at=self._now(), keep=keep)
            self._audit.write(connection, actor, "admin.set_password", f"admin {row.email}")

    def _prove(self, row: Row[Any], current: str, address: str) -> None:
        self._throttle.count(row.email, address)
        if not matches(row.password_hash, current):
            raise NotAuthenticated("The current password is not right.")
        self._throttle.forgive(row.email, address)


def admin_view(row: Row[Any]) -> AdminView:
    """From a row of `admin`."""
    return AdminView(
        id=str(row.id), email=row.email, role=Role(row.role), disabled=row.disabled_at is not None,
        created_at=row.created_at, last_seen_at=row.last_seen_at,
    )  # fmt: skip


def checked_email(email: str) -> str:
    """The e-mail without blanks around it. Raises InvalidRequest."""
    if not _EMAIL.fullmatch(email.strip()) or not email.strip().isprintable():
        raise InvalidRequest("This is no e-mail address.", details={"email": ["Write it as name@example.com."]})
    return email.strip()


def checked_role(role: Role | str) -> Role:
    """A role by its word. Raises InvalidRequest."""
    try:
        return Role(role)
    except ValueError:
        text = f"Must be one of: {', '.join(Role)}."
        raise InvalidRequest(f"There is no role '{role}'.", details={"role": [text]}) from None


def _existing(connection: Connection, admin_id: str) -> Row[Any]:
    row = people.admin(connection, uuid_of(admin_id, "person"))
    if row is None:
        raise NotFound("There is no such person.")
    return row


def uuid_of(text: str, what: str) -> UUID:
    """A UUID in the one form that we print: others would pass comparisons of texts. Raises NotFound."""
    try:
        found = UUID(text)
    except ValueError:
        found = None
    if found is None or str(found) != text:
        raise NotFound(f"There is no such {what}.")
    return found
