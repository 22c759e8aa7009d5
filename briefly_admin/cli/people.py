"""Admins and tokens."""

import sys
from dataclasses import asdict
from typing import Final

import click

from briefly_admin.cli.printing import as_json, at, print_json, print_table
from briefly_admin.cli.session import session
from briefly_admin.domain.errors import NotFound
from briefly_admin.domain.permissions import Actor, Role
from briefly_admin.services import Services
from briefly_admin.services.tokens import LONGEST_DAYS
from briefly_admin.services.views import TokenView

_ROLES: Final = click.Choice([str(role) for role in Role])


def _password() -> str:
    """From standard input where it is not a terminal, else asked for twice, hidden."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    return str(click.prompt("Password", hide_input=True, confirmation_prompt=True))


def _admin_id(services: Services, actor: Actor, email: str) -> str:
    found = [admin.id for admin in services.admins.list(actor) if admin.email.lower() == email.lower()]
    if not found:
        known = ", ".join(admin.email for admin in services.admins.list(actor)) or "nobody yet"
        raise NotFound(f"There is no {email} among the people who may sign in.", remedy=f"These are: {known}.")
    return found[0]


@click.group()
def admin() -> None:
    """People who may sign in."""


@admin.command()
@click.argument("email")
@click.option("--role", type=_ROLES, default="admin", show_default=True)
def create(email: str, role: str) -> None:
    """Add somebody; the password is read from standard input or asked for."""
    with session() as active:
        active.services.admins.create(active.actor, email=email, role=Role(role), password=_password())
    click.echo(f"{email} may sign in as {role}.")


@admin.command()
@click.argument("email")
def disable(email: str) -> None:
    """Shut somebody out at once."""
    with session() as active:
        active.services.admins.disable(active.actor, _admin_id(active.services, active.actor, email))
    click.echo(f"{email} is disabled; every session has ended.")


@admin.command()
@click.argument("email")
def password(email: str) -> None:
    """Set somebody's password, read from standard input or asked for."""
    with session() as active:
        found = _admin_id(active.services, active.actor, email)
        active.services.admins.set_password(active.actor, found, _password())
    click.echo(f"The password of {email} is changed.")


@click.group()
def token() -> None:
    """Bearer tokens for scripts."""


@token.command(name="create")
@click.option("--role", type=_ROLES, required=True)
@click.option("--name", required=True, help="What it is for.")
@click.option("--days", type=click.IntRange(1, LONGEST_DAYS), help="Expires after so many days.")
def token_create(role: str, name: str, days: int | None) -> None:
    """Make a token; it alone is printed, once."""
    with session() as active:
        secret, _ = active.services.tokens.create(active.actor, name=name, role=Role(role), expires_in_days=days)
    click.echo(secret)


@token.command(name="list")
@as_json
def token_list(*, as_json: bool) -> None:
    """List the tokens; none can be shown again."""
    with session() as active:
        views = active.services.tokens.list(active.actor)
    if as_json:
        print_json([asdict(view) for view in views])
        return
    print_table(
        ("id", "name", "role", "state", "made", "expires", "last used"),
        ((v.id, v.name, v.role, _state(v), at(v.created_at), at(v.expires_at), at(v.last_used_at)) for v in views),
        empty="There are no tokens.",
    )


def _state(view: TokenView) -> str:
    if view.revoked:
        return "revoked"
    return "expired" if view.expired else "valid"


@token.command(name="revoke")
@click.argument("token_id", metavar="TOKEN_ID")
def token_revoke(token_id: str) -> None:
    """End a token at once."""
    with session() as active:
        active.services.tokens.revoke(active.actor, token_id)
    click.echo(f"Token {token_id} is revoked.")


COMMANDS: Final = (admin, token)
