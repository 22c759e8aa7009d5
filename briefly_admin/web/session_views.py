"""Sign in and out."""

from typing import Final

from flask import Blueprint, Response, make_response, render_template, request, session, url_for
from flask_wtf import FlaskForm
from wtforms import HiddenField, PasswordField, StringField
from wtforms.validators import InputRequired, Length

from briefly_admin.domain.errors import BrieflyError, NotAllowed, NotAuthenticated, TooManyRequests
from briefly_admin.domain.permissions import Permission
from briefly_admin.services.access import public, requires
from briefly_admin.web import identity
from briefly_admin.web.redirects import go, home, local_path

blueprint: Final = Blueprint("session", __name__)
_LONGEST_EMAIL: Final = 254
_LONGEST_PASSWORD: Final = 1024


class SignInForm(FlaskForm):
    """The form of the sign-in page."""

    email = StringField("E-mail", validators=[InputRequired("Type your e-mail address."), Length(max=_LONGEST_EMAIL)])
    password = PasswordField(
        "Password", validators=[InputRequired("Type your password."), Length(max=_LONGEST_PASSWORD)]
    )
    next = HiddenField()


@blueprint.get("/sign-in")
@public
def sign_in() -> Response:
    """The page."""
    wanted = local_path(request.args.get("next"), request.script_root)
    if identity.identify() is not None:
        return go(wanted or home())
    return _page(SignInForm(formdata=None, data={"next": wanted or ""}))


@blueprint.post("/sign-in")
@public
def enter() -> Response:
    """Check the password and begin a session."""
    form = SignInForm()
    if not identity.confidential():
        raise NotAllowed(
            "Passwords are not taken over plain http from another machine.",
            remedy="Use the https address; behind a proxy that speaks https, set TRUSTED_PROXIES.",
        )
    if not form.validate():
        return _page(form, status=400)
    try:
        return _begin(form)
    except TooManyRequests as error:
        return _page(form, error=error, status=429, headers={"Retry-After": str(error.retry_after)})
    except NotAuthenticated as error:
        return _page(form, error=error, status=401)


@blueprint.post("/sign-out")
@requires(Permission.MANAGE_OWN)
def sign_out() -> Response:
    """End the session."""
    _end_session()
    response = go(url_for("session.sign_in"))
    identity.forget_session(response)
    return response


def _begin(form: SignInForm) -> Response:
    agent = request.headers.get("User-Agent", "")
    signed_in = identity.services().sessions.sign_in(
        form.email.data or "", form.password.data or "", address=identity.address(), agent=agent
    )
    # Whatever the browser brought along, a session or a form's secret, it may be somebody else's.
    _end_session()
    response = go(local_path(form.next.data, request.script_root) or home())
    identity.keep_session(response, signed_in.session_token)
    return response


def _end_session() -> None:
    token = identity.session_token()
    if token:
        identity.services().sessions.sign_out(token)
    session.clear()


def _page(
    form: SignInForm, *, error: BrieflyError | None = None, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    html = render_template("session/sign_in.html", form=form, error=str(error) if error else "")
    return make_response(html, status, headers or {})
