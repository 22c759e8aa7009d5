"""The page Me: one's own password, sessions and tokens."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from flask import Blueprint, flash, g, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from wtforms import Form, PasswordField, SelectField, StringField, ValidationError
from wtforms.validators import InputRequired, Length

from briefly_admin.domain.errors import InvalidRequest, NotAuthenticated, NotFound, TooManyRequests
from briefly_admin.domain.permissions import Actor, Permission, Role
from briefly_admin.services.access import requires
from briefly_admin.services.views import SessionView, TokenView
from briefly_admin.web.admins import PASSWORD_HELP, good_password, put_beside
from briefly_admin.web.identity import renew_session, services
from briefly_admin.web.parts import Button

blueprint: Final = Blueprint("me", __name__)
_BROWSERS: Final = (
    ("Edg", "Edge"),
    ("OPR/", "Opera"),
    ("Firefox/", "Firefox"),
    ("Chrom", "Chrome"),
    ("Safari/", "Safari"),
)
_SYSTEMS: Final = (
    ("iPhone", "iPhone"), ("iPad", "iPad"), ("Android", "Android"), ("Windows", "Windows"), ("Mac OS X", "macOS"),
    ("Linux", "Linux"),
)  # fmt: skip
_LONGEST_AGENT: Final = 40
_HASH: Final = re.compile("[0-9a-f]{64}")
_MAY: Final = {
    Role.VIEWER: "You may look at everything, and change nothing.",
    Role.OPERATOR: "You may validate, rehearse, run, pause, and verify and pin backups. Rolling back needs an admin.",
    Role.ADMIN: "You may do everything, rolling back and deciding about people included.",
}
_DAYS: Final[Any] = {"7": "in 7 days", "30": "in 30 days", "90": "in 90 days", "365": "in a year"}


class OwnPasswordForm(Form):
    """The current password, and the new one twice."""

    current = PasswordField("Current password", [InputRequired("Type your current password."), Length(max=1024)])
    password = PasswordField(
        "New password", [InputRequired("Type the new password."), good_password], description=PASSWORD_HELP
    )
    repeat = PasswordField("New password again", [InputRequired("Type the new password once more.")])

    def validate_repeat(self, field: PasswordField) -> None:
        """The same as above."""
        if field.data != self.password.data:
            raise ValidationError("This is not the same as above.")


class TokenForm(Form):
    """A new token: a name, a role up to one's own, an end."""

    name = StringField("What it is for", [InputRequired("Name it, so that you know it again."), Length(max=100)])
    role = SelectField("Role")
    expires = SelectField("It ends", choices=_DAYS, default="90")

    def __init__(self, formdata: Any = None, *, role: Role) -> None:
        super().__init__(formdata, data={"role": Role.VIEWER.value})
        known = list(Role)
        self.role.choices = {r.value: r.value for r in known[: known.index(role) + 1]}


@dataclass(frozen=True, slots=True)
class SessionPart:
    """A signed-in session; `end` ends it, unless it is this one, which the menu signs out."""

    where: str
    address: str
    created_at: datetime
    seen_at: datetime
    here: bool
    end: Button | None


@dataclass(frozen=True, slots=True)
class TokenPart:
    """A token, without the token."""

    name: str
    role: str
    owner: str
    state: str
    created_at: datetime
    expires_at: datetime | None
    used_at: datetime | None
    revoke: Button


@dataclass(frozen=True, slots=True)
class MePage:
    """One's own account; `everybody` where the tokens are those of all people."""

    email: str
    role: str
    may: str
    sessions: tuple[SessionPart, ...]
    tokens: tuple[TokenPart, ...]
    everybody: bool


@dataclass(frozen=True, slots=True)
class MadeToken:
    """A new token, shown this once."""

    name: str
    role: str
    expires_at: datetime | None
    secret: str


@blueprint.get("/me")
@requires(Permission.MANAGE_OWN)
def index() -> ResponseReturnValue:
    """One's own account."""
    return _page(OwnPasswordForm(), TokenForm(role=g.actor.role))


@blueprint.post("/me/password")
@requires(Permission.MANAGE_OWN)
def set_password() -> ResponseReturnValue:
    """Change one's own password; the other sessions end."""
    form = OwnPasswordForm(request.form)
    if not form.validate():
        return _page(form, TokenForm(role=g.actor.role), 400)
    try:
        _change_password(form)
    except (InvalidRequest, NotAuthenticated, TooManyRequests) as error:
        _tell(form, error)
        return _page(form, TokenForm(role=g.actor.role), 400)
    renew_session()
    flash("Your password is changed, and your other sessions have ended.", "success")
    return redirect(url_for(".index"), 303)


@blueprint.post("/me/sessions/<id_hash>/end")
@requires(Permission.MANAGE_OWN)
def end_session(id_hash: str) -> ResponseReturnValue:
    """End another session of one's own."""
    if not _HASH.fullmatch(id_hash):
        raise NotFound("There is no such session any more.")
    services().sessions.revoke(g.actor, id_hash)
    flash("That session has ended.", "success")
    return redirect(url_for(".index"), 303)


@blueprint.post("/me/tokens")
@requires(Permission.MANAGE_OWN)
def create_token() -> ResponseReturnValue:
    """Make a token and show it, in this answer alone."""
    form = TokenForm(request.form, role=g.actor.role)
    if not form.validate():
        return _page(OwnPasswordForm(), form, 400)
    try:
        secret, view = services().tokens.create(
            g.actor, name=form.name.data or "", role=form.role.data, expires_in_days=int(form.expires.data)
        )
    except InvalidRequest as error:
        put_beside(form, error, "name")
        return _page(OwnPasswordForm(), form, 400)
    renew_session()
    made = MadeToken(view.name, view.role.value, view.expires_at, secret)
    return render_template("me/token.html", page=made), {"Cache-Control": "no-store"}


@blueprint.post("/me/tokens/<token_id>/revoke")
@requires(Permission.MANAGE_OWN)
def revoke_token(token_id: str) -> ResponseReturnValue:
    """End a token at once."""
    services().tokens.revoke(g.actor, token_id)
    flash("The token is revoked: from now on it opens nothing.", "success")
    return redirect(url_for(".index"), 303)


def _change_password(form: OwnPasswordForm) -> None:
    services().admins.set_password(
        g.actor, g.actor.admin_id, form.password.data or "", current=form.current.data, keep=g.session.id_hash
    )


def _tell(form: OwnPasswordForm, error: InvalidRequest | NotAuthenticated | TooManyRequests) -> None:
    """Beside the field that it is about; bad credentials are no reason to be led to the sign-in page here."""
    if isinstance(error, InvalidRequest):
        put_beside(form, error, "password")
    else:
        form.current.errors = [*form.current.errors, str(error)]


def _page(password: OwnPasswordForm, token: TokenForm, code: int = 200) -> ResponseReturnValue:
    actor: Actor = g.actor
    everybody = actor.may(Permission.MANAGE_PEOPLE)
    page = MePage(
        actor.name, actor.role.value, _MAY[actor.role], _sessions(services().sessions.list(actor)),
        _tokens(services().tokens.list(actor)), everybody,
    )  # fmt: skip
    return render_template("me/index.html", page=page, password=password, token=token), code


def _sessions(views: Sequence[SessionView]) -> tuple[SessionPart, ...]:
    return tuple(
        SessionPart(
            where=agent_words(view.agent), address=view.address, created_at=view.created_at, seen_at=view.seen_at,
            here=view.id_hash == g.session.id_hash,
            end=None if view.id_hash == g.session.id_hash
            else Button("end", "End", url_for("me.end_session", id_hash=view.id_hash), icon="x"),
        )
        for view in views
    )  # fmt: skip


def _tokens(views: Sequence[TokenView]) -> tuple[TokenPart, ...]:
    """Those that are not revoked; the audit log remembers the others."""
    return tuple(
        TokenPart(
            view.name, view.role.value, view.owner, "expired" if view.expired else "active", view.created_at,
            view.expires_at, view.last_used_at,
            Button(
                "revoke", "Revoke", url_for("me.revoke_token", token_id=view.id), style="danger-quiet", icon="ban",
                confirm=f"Revoke {view.name}? What uses it stops working.",
            ),
        )
        for view in views
        if not view.revoked
    )  # fmt: skip


def agent_words(agent: str) -> str:
    """A browser's User-Agent in words: 'Firefox on Linux'; another program's as it is, cut."""
    browser = next((name for mark, name in _BROWSERS if mark in agent), "")
    system = next((name for mark, name in _SYSTEMS if mark in agent), "")
    if not browser:
        return agent[:_LONGEST_AGENT] or "unknown"
    return f"{browser} on {system}" if system else browser
