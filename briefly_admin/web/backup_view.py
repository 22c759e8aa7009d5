"""Backups as their pages show them: frozen values made from the services' views; templates only print them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import quote

from flask import url_for

from briefly_admin.domain.permissions import GRANTS, Actor, Permission, Role
from briefly_admin.services.views import BackupView, BeyondView, LogLine, ProofView
from briefly_admin.web import formats
from briefly_admin.web.parts import Bar, Button, Problem
from briefly_admin.web.paths import page_path

MOST_DAMAGE: Final = 100
"""Lines of damage that a page shows."""
LEVELS: Final[Mapping[str, str]] = {
    "L0": "every object is there, of its size and sum",
    "L1": "every byte opened, every row counted and hashed",
    "L2": "restored in a drill and compared",
}
"""What each level of proof means, after "proven"."""
_IN_SHORT: Final[Mapping[str, str]] = {
    "L0": "every object there", "L1": "every byte read", "L2": "restored in a drill",
}  # fmt: skip
"""The same in a list."""
_SOON: Final = 3 * 3600
"""Seconds before its end from which a backup's bar warns."""
_OLD: Final = timedelta(hours=24)
"""From when on a backup whose time does not run is old."""
_LOG_LINES: Final = 15
"""The others are folded away."""


@dataclass(frozen=True, slots=True)
class BackupTable:
    """A table of a backup; `bytes` as sealed."""

    name: str
    rows: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """One look at a backup: what it was, what came of it, where, and the run that looked."""

    level: str
    words: str
    at: datetime
    whole: bool
    result: str
    rows: str
    took: str
    place: str
    by: str
    run_number: int | None
    run_url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupPart:
    """A backup as a row of the list, and as a page of its own."""

    name: str
    url: str
    state: str
    plan: str
    target: str
    taken_at: datetime
    rows: int
    bytes: int
    tables: tuple[BackupTable, ...]
    proven_at: datetime | None
    proven_how: str
    proven_short: str
    """'L1: every byte read'."""
    proofs: tuple[Proof, ...]
    escrowed_at: datetime | None
    pinned: bool
    left: Bar | None
    left_words: str
    """What stands where there is no bar."""
    expires_at: datetime | None
    expired: bool
    run_number: int | None
    run_url: str
    why_not: str
    damage: tuple[str, ...]
    damage_more: int
    verify: Button
    drill: Button
    actions: tuple[Button, ...]
    """What is neither verifying nor drilling nor deleting."""
    deletable: bool

    @property
    def all_actions(self) -> tuple[Button, ...]:
        """For a row of the list."""
        return (self.verify, self.drill, *self.actions)


@dataclass(frozen=True, slots=True)
class BackupPage:
    """One backup and the lines of its log, newest first; `limits`: why its role may not look again."""

    backup: BackupPart
    log: tuple[LogLine, ...]
    older_log: tuple[LogLine, ...]


@dataclass(frozen=True, slots=True)
class Outside:
    """A table beyond the plan that a backup may take along; `why_not` says why it cannot."""

    name: str
    rows: str
    size: str
    why_not: str


@dataclass(frozen=True, slots=True)
class BackUpPart:
    """The form of a new backup: the tables beyond the plan, or why it is off."""

    outside: tuple[Outside, ...]
    chosen: frozenset[str]
    unknown: str
    """Why nobody can say which tables there are beyond the plan."""
    why_not: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupsPage:
    """All backups, newest first; `limits` says what the role may not do, `warning` that no fresh backup is there."""

    backups: tuple[BackupPart, ...]
    limits: str
    warning: str
    back_up: BackUpPart
    problem: Problem | None = None


def backups_page(
    views: Sequence[BackupView], back_up: BackUpPart, actor: Actor, now: datetime, problem: Problem | None = None
) -> BackupsPage:
    """The list, and the form above it."""
    return BackupsPage(
        backups=tuple(part(view, actor, now) for view in views), limits=_limits(actor), warning=_warning(views, now),
        back_up=back_up, problem=problem,
    )  # fmt: skip


def backup_page(view: BackupView, log: Sequence[LogLine], actor: Actor, now: datetime) -> BackupPage:
    """One backup's page."""
    return BackupPage(part(view, actor, now), tuple(log[:_LOG_LINES]), tuple(log[_LOG_LINES:]))


def back_up_part(
    outside: Sequence[BeyondView], actor: Actor, *, chosen: Sequence[str] = (), unknown: str = ""
) -> BackUpPart:
    """The form "Back up now"."""
    listed = tuple(
        Outside(table.name, formats.number(table.rows), formats.size(table.bytes), table.why_not) for table in outside
    )
    return BackUpPart(listed, frozenset(chosen), unknown, role_lacks(actor, Permission.BACK_UP))


def part(view: BackupView, actor: Actor, now: datetime) -> BackupPart:
    """What the pages show of a backup."""
    left, words = _left(view, now)
    return BackupPart(
        name=view.name, url=backup_url(view.name), state=view.state, plan=view.plan, target=view.target_title,
        taken_at=view.created_at, rows=view.rows, bytes=view.bytes,
        tables=tuple(BackupTable(str(t["table"]), int(t["rows"]), int(t["bytes"])) for t in view.tables),
        proven_at=view.proven_at, proven_how=LEVELS.get(view.proven_level, ""),
        proven_short=f"{view.proven_level}: {_IN_SHORT[view.proven_level]}" if view.proven_level in _IN_SHORT else "",
        proofs=tuple(_proof(proof) for proof in view.proofs), escrowed_at=view.escrowed_at, pinned=view.pinned,
        left=left, left_words=words, expires_at=view.expires_at, expired=view.state == "expired",
        run_number=view.run_number, run_url=page_path(f"/runs/{view.run_number}") if view.run_number else "",
        why_not=view.why_not, damage=view.damage[:MOST_DAMAGE], damage_more=max(0, len(view.damage) - MOST_DAMAGE),
        verify=_deed(view, actor, "verify", "Verify", "shield-check", Permission.VERIFY_BACKUP, _gone(view)),
        drill=_deed(view, actor, "drill", "Drill", "flask", Permission.VERIFY_BACKUP, _gone(view)),
        actions=_actions(view, actor),
        deletable=view.state != "expired" and not view.pinned and actor.may(Permission.DELETE_BACKUP),
    )  # fmt: skip


def backup_url(name: str) -> str:
    """The page of a backup."""
    return page_path(f"/backups/{quote(name, safe='')}")


def role_lacks(actor: Actor, permission: Permission) -> str:
    """Why the actor's role may not, or ''."""
    if actor.may(permission):
        return ""
    needed = next(role for role in Role if permission in GRANTS[role])
    return f"This needs the role {needed}; yours is {actor.role}."


def _proof(view: ProofView) -> Proof:
    found = f"{view.damages:,} {'damage' if view.damages == 1 else 'damages'}"
    return Proof(
        level=view.level, words=LEVELS.get(view.level, ""), at=view.at, whole=view.whole,
        result="whole" if view.whole else found, rows=formats.number(None if view.level == "L0" else view.rows),
        took=formats.duration(view.seconds), place=view.place or formats.UNKNOWN, by=view.by,
        run_number=view.run_number, run_url=page_path(f"/runs/{view.run_number}") if view.run_number else "",
    )  # fmt: skip


def _limits(actor: Actor) -> str:
    """One line for the whole list, where each row would have to repeat it."""
    if actor.may(Permission.ROLL_BACK):
        return ""
    if actor.may(Permission.VERIFY_BACKUP):
        return f"Rolling back and deleting need the role admin; yours is {actor.role}."
    return (
        "Backing up, verifying, drilling and pinning need the role operator, rolling back and deleting the role admin; "
        f"yours is {actor.role}."
    )


def _warning(views: Sequence[BackupView], now: datetime) -> str:
    if not views:
        return ""
    newest = max((view for view in views if view.restorable), key=lambda view: view.created_at, default=None)
    if newest is None:
        return "None of these backups can be restored. Take a new one now."
    # A backup that is kept beyond its time is one that others should have followed.
    fresh = newest.expires_at - newest.created_at if newest.expires_at else _OLD
    if now - newest.created_at > fresh:
        age = formats.about((now - newest.created_at).total_seconds())
        return f"The newest backup that can be restored is {age} old: a rollback to it would lose what came since."
    return ""


def _left(view: BackupView, now: datetime) -> tuple[Bar | None, str]:
    """The bar of the time left, or the words in its place."""
    if view.state == "expired":
        return None, "nothing: its key is destroyed"
    if view.pinned:
        return None, "kept until it is unpinned"
    if view.expires_at is None:
        return None, "kept"
    left = max(0.0, (view.expires_at - now).total_seconds())
    whole = max(1.0, (view.expires_at - view.created_at).total_seconds())
    text = formats.about(left) if left else "over"
    return Bar(f"Time left of {view.name}", left, whole, text, "warn" if left < _SOON else "good"), ""


def _gone(view: BackupView) -> str:
    return "Its key is destroyed." if view.state == "expired" else ""


def _deed(
    view: BackupView, actor: Actor, name: str, label: str, icon: str, permission: Permission, why: str,
    *, endpoint: str = "", method: str = "post", style: str = "",
) -> Button:  # fmt: skip
    url = url_for(endpoint or f"backups.{name}", name=view.name)
    return Button(name, label, url, method, style, icon, why_not=role_lacks(actor, permission) or why)


def _actions(view: BackupView, actor: Actor) -> tuple[Button, ...]:
    """Those that are off say why."""
    blocked = f"It cannot be restored. {view.why_not}" if not view.restorable else ""
    pin = ("unpin", "Unpin") if view.pinned else ("pin", "Pin")
    steps = [_deed(view, actor, *pin, "pin", Permission.PIN_BACKUP, _gone(view))]
    if not actor.may(Permission.ROLL_BACK):
        label, endpoint = "What would a rollback do?", "rollback.preview"
        steps.append(_deed(view, actor, "preview", label, "eye", Permission.PREVIEW, blocked, endpoint=endpoint))
    steps.append(
        _deed(
            view, actor, "roll_back", "Roll back", "arrow-back-up", Permission.ROLL_BACK, blocked,
            endpoint="rollback.show", method="get", style="danger-quiet",
        )
    )  # fmt: skip
    return tuple(steps)
