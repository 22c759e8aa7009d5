"""Bearer tokens: 256 random bits, shown once, never above their owner's role."""

import secrets
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4

from briefly_admin.domain.errors import InvalidRequest, NotAllowed, NotFound
from briefly_admin.domain.permissions import Actor, Permission, Role
from briefly_admin.services.admins import checked_role, uuid_of
from briefly_admin.services.auditing import AuditService, require
from briefly_admin.services.sessions import hash_of
from briefly_admin.services.views import TokenView
from briefly_admin.store import people
from briefly_admin.store.database import Database, Row

PREFIX: Final = "bra_"
LONGEST_DAYS: Final = 366
_LONGEST_NAME: Final = 100
_RANK: Final = {role: rank for rank, role in enumerate(Role)}
_USED_EVERY: Final = timedelta(minutes=1)


class TokenService:
    """Makes, lists, revokes and recognises tokens."""

    def __init__(self, database: Database, audit: AuditService, now: Callable[[], datetime]) -> None:
        self._database = database
        self._audit = audit
        self._now = now

    def create(
        self, actor: Actor, *, name: str, role: Role | str, expires_in_days: int | None = None
    ) -> tuple[str, TokenView]:
        """A new token, shown this once, and what is kept of it. Raises NotAllowed above one's role, InvalidRequest."""
        require(actor, Permission.MANAGE_OWN)
        wanted, label = checked_role(role), _checked_name(name)
        if _RANK[wanted] > _RANK[actor.role]:
            raise NotAllowed(f"A token cannot have a higher role than yours, which is {actor.role}.")
        now = self._now()
        bearer, token_id = PREFIX + secrets.token_urlsafe(32), uuid4()
        with self._database.begin() as connection:
            people.add_token(
                connection, id=token_id, name=label, token_hash=hash_of(bearer), role=wanted.value, created_at=now,
                admin_id=UUID(actor.admin_id) if actor.admin_id else None, expires_at=_expiry(now, expires_in_days),
            )  # fmt: skip
            rows = [row for row in people.tokens(connection, None) if row.id == token_id]
            self._audit.write(connection, actor, "token.create", f"token {label}", {"role": wanted.value})
        return bearer, _view(rows[0], now)

    def list(self, actor: Actor) -> tuple[TokenView, ...]:
        """Everybody's tokens for an admin, one's own for others; newest first."""
        require(actor, Permission.MANAGE_OWN)
        with self._database.begin() as connection:
            rows = people.tokens(connection, None)
        everybody = actor.may(Permission.MANAGE_PEOPLE)
        return tuple(_view(row, self._now()) for row in rows if everybody or _owns(actor, row))

    def revoke(self, actor: Actor, token_id: str) -> None:
        """End one's own token, or with the permission anybody's. Raises NotAllowed, NotFound."""
        require(actor, Permission.MANAGE_OWN)
        with self._database.begin() as connection:
            row = people.token(connection, uuid_of(token_id, "token"))
            if row is None or not _owns(actor, row):
                require(actor, Permission.MANAGE_PEOPLE)
            if row is None or not people.set_token(connection, row.id, revoked_at=self._now()):
                raise NotFound("There is no such token any more.")
            self._audit.write(connection, actor, "token.revoke", f"token {row.name}")

    def resolve(self, bearer: str, address: str) -> Actor | None:
        """Who the bearer of a token is, or None; never more than its owner may by now."""
        if not bearer.startswith(PREFIX):
            return None
        now = self._now()
        with self._database.begin() as connection:
            row = people.live_token(connection, hash_of(bearer), now=now)
            if row is None:
                return None
            if row.last_used_at is None or now - row.last_used_at >= _USED_EVERY:
                people.set_token(connection, row.id, last_used_at=now)
        role = min(Role(row.role), Role(row.owner_role or row.role), key=_RANK.__getitem__)
        owner = f"{row.email} (token {row.name})" if row.email else f"token {row.name}"
        return Actor(owner, role, "api", address, str(row.admin_id) if row.admin_id else None)


def _owns(actor: Actor, row: Row[Any]) -> bool:
    return actor.admin_id is not None and str(row.admin_id) == actor.admin_id


def _checked_name(name: str) -> str:
    label = name.strip()
    if not 1 <= len(label) <= _LONGEST_NAME or not label.isprintable():
        text = f"It must have 1 to {_LONGEST_NAME} printable characters."
        raise InvalidRequest(f"The token's name cannot be used: {text}", details={"name": [text]})
    return label


def _expiry(now: datetime, days: int | None) -> datetime | None:
    if days is None:
        return None
    if isinstance(days, bool) or not isinstance(days, int) or not 1 <= days <= LONGEST_DAYS:
        text = f"Must be from 1 to {LONGEST_DAYS} days."
        raise InvalidRequest(f"The token cannot expire then: {text}", details={"expires_in_days": [text]})
    return now + timedelta(days=days)


def _view(row: Row[Any], now: datetime) -> TokenView:
    return TokenView(
        id=str(row.id), name=row.name, role=Role(row.role), owner=row.email or "command line",
        created_at=row.created_at, expires_at=row.expires_at, last_used_at=row.last_used_at,
        revoked=row.revoked_at is not None, expired=row.expires_at is not None and row.expires_at <= now,
    )  # fmt: skip
