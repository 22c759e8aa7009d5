"""The page Backups: what is kept, for how long, how it was proven; and one backup with what may be done with it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from flask import Blueprint, flash, g, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from wtforms import Form, StringField, ValidationError

from briefly_admin.domain.errors import BackupDamaged
from briefly_admin.domain.permissions import GRANTS, Actor, Permission, Role
from briefly_admin.services.access import requires
from briefly_admin.services.views import BackupView
from briefly_admin.web.formats import about
from briefly_admin.web.identity import services
from briefly_admin.web.parts import Bar, Button
from briefly_admin.web.paths import page_path

blueprint: Final = Blueprint("backups", __name__)
_SOON: Final = 3 * 3600
"""Seconds before its end from which a backup's bar warns."""
_MOST_DAMAGE: Final = 100
"""Lines of damage that a page shows."""
_PROVEN: Final[Mapping[str, str]] = {
    "L0": "every object is there, of its size and sum",
    "L1": "every byte opened, every row counted and hashed",
    "L2": "restored and compared",
}


@dataclass(frozen=True, slots=True)
class BackupTable:
    """A table of a backup; `bytes` as sealed."""

    name: str
    rows: int
    bytes: int


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
    pinned: bool
    left: Bar | None
    left_words: str
    """What stands where there is no bar."""
    expires_at: datetime | None
    run_number: int | None
    run_url: str
    why_not: str
    damage: tuple[str, ...]
    damage_more: int
    actions: tuple[Button, ...]
    deletable: bool


@dataclass(frozen=True, slots=True)
class BackupsPage:
    """All backups, newest first; `limits` says what the role may not do, `start_url` where the first one comes from."""

    backups: tuple[BackupPart, ...]
    limits: str
    start_url: str


class DeleteForm(Form):
    """The backup's name, typed."""

    name = StringField("The backup's name")

    def __init__(self, formdata: Any = None, *, expected: str) -> None:
        super().__init__(formdata)
        self._expected = expected

    def validate_name(self, field: StringField) -> None:
        """Nothing but the whole name."""
        if field.data != self._expected:
            raise ValidationError(
                f"Type the backup's name, {self._expected}, exactly as it stands. Nothing was deleted."
            )


@blueprint.get("/backups")
@requires(Permission.READ)
def index() -> ResponseReturnValue:
    """All backups."""
    views = services().backups.list(g.actor)
    now = datetime.now(UTC)
    parts = tuple(part(view, g.actor, now) for view in views)
    start_url = page_path("/runs/new") if g.actor.may(Permission.VALIDATE) else ""
    page = BackupsPage(parts, _limits(g.actor), start_url)
    return render_template("backups/index.html", page=page)


@blueprint.get("/backups/<name>")
@requires(Permission.READ)
def show(name: str) -> ResponseReturnValue:
    """One backup."""
    view = services().backups.get(g.actor, name)
    return _page(view, DeleteForm(expected=view.name))


@blueprint.post("/backups/<name>/verify")
@requires(Permission.VERIFY_BACKUP)
def verify(name: str) -> ResponseReturnValue:
    """Open every byte now, and say what was found."""
    try:
        view = services().backups.verify(g.actor, name)
    except BackupDamaged as error:
        flash(f"{error.message} {error.remedy}".strip(), "error")
    else:
        text = f"{view.name} is whole: every byte was opened, {view.rows:,} rows were counted and hashed."
        flash(text, "success")
    return redirect(url_for(".show", name=name), 303)


@blueprint.post("/backups/<name>/pin")
@requires(Permission.PIN_BACKUP)
def pin(name: str) -> ResponseReturnValue:
    """Keep it until it is unpinned."""
    view = services().backups.pin(g.actor, name)
    flash(f"{view.name} is pinned: it is kept until somebody unpins it.", "success")
    return redirect(url_for(".show", name=view.name), 303)


@blueprint.post("/backups/<name>/unpin")
@requires(Permission.PIN_BACKUP)
def unpin(name: str) -> ResponseReturnValue:
    """Let its time run again."""
    view = services().backups.unpin(g.actor, name)
    flash(f"{view.name} is no longer pinned: it expires when its time is over.", "success")
    return redirect(url_for(".show", name=view.name), 303)


@blueprint.post("/backups/<name>/delete")
@requires(Permission.DELETE_BACKUP)
def delete(name: str) -> ResponseReturnValue:
    """Destroy its key, then its objects, if its name was typed."""
    view = services().backups.get(g.actor, name)
    form = DeleteForm(request.form, expected=view.name)
    if not form.validate():
        return _page(view, form, 400)
    services().backups.delete(g.actor, view.name)
    flash(f"{view.name} is deleted: its key is destroyed, and nobody can read it any more.", "success")
    return redirect(url_for(".index"), 303)


def part(view: BackupView, actor: Actor, now: datetime) -> BackupPart:
    """What the pages show of a backup."""
    left, words = _left(view, now)
    buttons = _buttons(view, actor)
    return BackupPart(
        name=view.name, url=url_for("backups.show", name=view.name), state=view.state, plan=view.plan,
        target=view.target_title, taken_at=view.created_at, rows=view.rows, bytes=view.bytes,
        tables=tuple(BackupTable(str(t["table"]), int(t["rows"]), int(t["bytes"])) for t in view.tables),
        proven_at=view.proven_at, proven_how=_PROVEN.get(view.proven_level, ""), pinned=view.pinned, left=left,
        left_words=words, expires_at=view.expires_at, run_number=view.run_number,
        run_url=page_path(f"/runs/{view.run_number}") if view.run_number else "", why_not=view.why_not,
        damage=view.damage[:_MOST_DAMAGE], damage_more=max(0, len(view.damage) - _MOST_DAMAGE), actions=buttons,
        deletable=view.state != "expired" and not view.pinned and actor.may(Permission.DELETE_BACKUP),
    )  # fmt: skip


def role_lacks(actor: Actor, permission: Permission) -> str:
    """Why the actor's role may not, or ''."""
    if actor.may(permission):
        return ""
    needed = next(role for role in Role if permission in GRANTS[role])
    return f"This needs the role {needed}; yours is {actor.role}."


def _page(view: BackupView, form: DeleteForm, code: int = 200) -> ResponseReturnValue:
    page = part(view, g.actor, datetime.now(UTC))
    return render_template("backups/show.html", page=page, form=form), code


def _limits(actor: Actor) -> str:
    if actor.may(Permission.ROLL_BACK):
        return ""
    return f"Rolling back and deleting need the role admin; yours is {actor.role}."


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
    text = about(left) if left else "over"
    return Bar(f"Time left of {view.name}", left, whole, text, "warn" if left < _SOON else "good"), ""


def _buttons(view: BackupView, actor: Actor) -> tuple[Button, ...]:
    """Every deed but Delete, which is a form of its own; those that are off say why."""
    gone = "Its key is destroyed." if view.state == "expired" else ""
    blocked = f"It cannot be restored. {view.why_not}" if not view.restorable else ""

    def deed(name: str, label: str, icon: str, permission: Permission, why: str, **look: str) -> Button:
        return Button(
            name, label, url_for(look.pop("endpoint", f"backups.{name}"), name=view.name), icon=icon,
            why_not=role_lacks(actor, permission) or why, **look,
        )  # fmt: skip

    pinned = ("unpin", "Unpin") if view.pinned else ("pin", "Pin")
    steps = [
        deed("verify", "Verify", "shield-check", Permission.VERIFY_BACKUP, gone),
        deed(*pinned, "pin", Permission.PIN_BACKUP, gone),
    ]
    if not actor.may(Permission.ROLL_BACK):
        steps.append(
            deed(
                "preview", "What would a rollback do?", "eye", Permission.PREVIEW, blocked, endpoint="rollback.preview"
            )
        )
    look = {"endpoint": "rollback.show", "method": "get", "style": "danger-quiet"}
    steps.append(deed("roll_back", "Roll back", "arrow-back-up", Permission.ROLL_BACK, blocked, **look))
    return tuple(steps)
