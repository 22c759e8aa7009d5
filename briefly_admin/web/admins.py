"""The page Admins: people, their roles, when they were last seen; and one person with what may be changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from flask import Blueprint, flash, g, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from wtforms import Form, PasswordField, RadioField, StringField, ValidationError
from wtforms.validators import InputRequired

from briefly_admin.domain.errors import InvalidRequest, NotFound, Refused
from briefly_admin.domain.permissions import Permission, Role
from briefly_admin.services.access import requires
from briefly_admin.services.passwords import SHORTEST, fault_of
from briefly_admin.services.views import AdminView
from briefly_admin.web.identity import renew_session, services
from briefly_admin.web.parts import Button

blueprint: Final = Blueprint("admins", __name__)
PASSWORD_HELP: Final = f"At least {SHORTEST} characters; a sentence is fine."
ROLES: Final = {
    Role.VIEWER: "reads everything but tenants' data, changes nothing",
    Role.OPERATOR: "also validates, rehearses, runs, pauses, takes and verifies backups",
    Role.ADMIN: "also rolls back, deletes backups, and decides about people",
}
_CHOICES: Final[Any] = {role.value: role.value for role in Role}
"""Any: the type stubs know WTForms 3.2 alone, whose choices were tuples."""


def good_password(_: Form, field: PasswordField) -> None:
    """A WTForms validator: what the services demand of a new password."""
    fault = fault_of(field.data or "")
    if fault:
        raise ValidationError(fault)


class RoleForm(Form):
    """One of the three roles."""

    role = RadioField("Role", choices=_CHOICES, default=Role.VIEWER.value)


class PasswordForm(Form):
    """A new password for somebody else."""

    password = PasswordField(
        "New password", [InputRequired("Type a password."), good_password], description=PASSWORD_HELP
    )


class NewAdminForm(RoleForm):
    """A new person."""

    email = StringField("E-mail", [InputRequired("Type an e-mail address.")])
    password = PasswordField("Password", [InputRequired("Type a password."), good_password], description=PASSWORD_HELP)


@dataclass(frozen=True, slots=True)
class PersonPart:
    """A person; `me` for the one who looks. `switch` disables or enables, and says why not."""

    id: str
    email: str
    role: str
    url: str
    state: str
    created_at: datetime
    seen_at: datetime | None
    me: bool
    switch: Button


@dataclass(frozen=True, slots=True)
class AdminsPage:
    """All people, by e-mail, and what the roles mean."""

    people: tuple[PersonPart, ...]
    notes: dict[str, str]


@dataclass(frozen=True, slots=True)
class PersonPage:
    """One person, and what the roles mean."""

    person: PersonPart
    notes: dict[str, str]


@blueprint.get("/admins")
@requires(Permission.MANAGE_PEOPLE)
def index() -> ResponseReturnValue:
    """All people, and the form for a new one."""
    return _index(NewAdminForm())


@blueprint.post("/admins")
@requires(Permission.MANAGE_PEOPLE)
def create() -> ResponseReturnValue:
    """Let somebody new sign in."""
    form = NewAdminForm(request.form)
    if not form.validate():
        return _index(form, 400)
    try:
        made = services().admins.create(g.actor, form.email.data or "", form.role.data, form.password.data or "")
    except (InvalidRequest, Refused) as error:
        put_beside(form, error, "email")
        return _index(form, error.http_status)
    renew_session()
    flash(f"{made.email} may sign in as {made.role}. Hand over the password by another way than e-mail.", "success")
    return redirect(url_for(".index"), 303)


@blueprint.get("/admins/<admin_id>")
@requires(Permission.MANAGE_PEOPLE)
def show(admin_id: str) -> ResponseReturnValue:
    """One person."""
    return _show(admin_id, PasswordForm())


@blueprint.post("/admins/<admin_id>/role")
@requires(Permission.MANAGE_PEOPLE)
def set_role(admin_id: str) -> ResponseReturnValue:
    """Another role, from the next request on."""
    view = services().admins.set_role(g.actor, admin_id, request.form.get("role", ""))
    renew_session()
    flash(f"{view.email} is {view.role} from now on.", "success")
    mine = g.actor.admin_id == admin_id and view.role is not Role.ADMIN
    return redirect(url_for("me.index") if mine else url_for(".show", admin_id=view.id), 303)


@blueprint.post("/admins/<admin_id>/password")
@requires(Permission.MANAGE_PEOPLE)
def set_password(admin_id: str) -> ResponseReturnValue:
    """Somebody else's password; one's own is changed under Me, with the current one."""
    if admin_id == g.actor.admin_id:
        return redirect(url_for("me.index"), 303)
    form = PasswordForm(request.form)
    if not form.validate():
        return _show(admin_id, form, 400)
    services().admins.set_password(g.actor, admin_id, form.password.data or "")
    renew_session()
    flash("The password is changed, and all sessions of that person have ended.", "success")
    return redirect(url_for(".show", admin_id=admin_id), 303)


@blueprint.post("/admins/<admin_id>/disable")
@requires(Permission.MANAGE_PEOPLE)
def disable(admin_id: str) -> ResponseReturnValue:
    """Out at once, everywhere."""
    view = services().admins.disable(g.actor, admin_id)
    if admin_id != g.actor.admin_id:
        renew_session()
    flash(f"{view.email} is disabled: signed out everywhere, and cannot sign in.", "success")
    return redirect(url_for(".show", admin_id=view.id), 303)


@blueprint.post("/admins/<admin_id>/enable")
@requires(Permission.MANAGE_PEOPLE)
def enable(admin_id: str) -> ResponseReturnValue:
    """In again."""
    view = services().admins.enable(g.actor, admin_id)
    renew_session()
    flash(f"{view.email} may sign in again.", "success")
    return redirect(url_for(".show", admin_id=view.id), 303)


def put_beside(form: Any, error: InvalidRequest | Refused, otherwise: str) -> None:
    """Put what a service says beside the fields it names, else beside `otherwise`."""
    details = getattr(error, "details", {}) or {otherwise: [str(error)]}
    for name, texts in details.items():
        field = form[name if name in form else otherwise]
        field.errors = [*field.errors, *texts]


def _index(form: NewAdminForm, code: int = 200) -> ResponseReturnValue:
    views = services().admins.list(g.actor)
    page = AdminsPage(tuple(_part(view, views) for view in views), _notes())
    return render_template("admins/index.html", page=page, form=form), code


def _show(admin_id: str, form: PasswordForm, code: int = 200) -> ResponseReturnValue:
    views = services().admins.list(g.actor)
    found = next((view for view in views if view.id == admin_id), None)
    if found is None:
        raise NotFound("There is no such person.", remedy="The page Admins lists everybody.")
    page = PersonPage(_part(found, views), _notes())
    roles = RoleForm(data={"role": found.role.value})
    return render_template("admins/show.html", page=page, form=form, roles=roles), code


def _notes() -> dict[str, str]:
    return {role.value: note for role, note in ROLES.items()}


def _part(view: AdminView, everybody: Sequence[AdminView]) -> PersonPart:
    others = [v for v in everybody if v.role is Role.ADMIN and not v.disabled and v.id != view.id]
    last = view.role is Role.ADMIN and not view.disabled and not others
    if view.disabled:
        switch = Button("enable", "Enable", url_for("admins.enable", admin_id=view.id), icon="check")
    else:
        switch = Button(
            "disable", "Disable", url_for("admins.disable", admin_id=view.id), style="danger-quiet", icon="ban",
            why_not="The last admin who can sign in. Make another admin first." if last else "",
            confirm=f"Disable {view.email}? Every session ends at once.",
        )  # fmt: skip
    return PersonPart(
        view.id, view.email, view.role.value, url_for("admins.show", admin_id=view.id),
        "disabled" if view.disabled else "active", view.created_at, view.last_seen_at,
        g.actor.admin_id == view.id, switch,
    )  # fmt: skip
