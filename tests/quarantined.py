"""Rows with faults, and a migration's quarantine as it is kept, without a migration: for tests of its mouths."""

import json

import psycopg

from briefly_admin.domain.permissions import Actor
from briefly_admin.domain.runs import RunKind
from briefly_admin.services import Services
from briefly_admin.services.views import RunView

FAULT = "users.email must be an e-mail address"


def break_emails(target_url: str, number: int) -> list[str]:
    """Ids of so many users whose e-mails are none now, in their order as texts."""
    with psycopg.connect(target_url) as target:
        found = target.execute(
            "UPDATE users SET email = 'nonsense ' || id WHERE id IN (SELECT id FROM users ORDER BY id LIMIT %s)"
            " RETURNING id::text", [number],
        ).fetchall()  # fmt: skip
    return sorted(row[0] for row in found)


def quarantine(services: Services, app_url: str, actor: Actor, keys: list[str]) -> RunView:
    """A migration that left these users alone for their e-mails."""
    run = services.runs.start(actor, RunKind.MIGRATION)
    with psycopg.connect(app_url) as app:
        app.execute(
            "UPDATE briefly_admin.run SET state = 'completed_with_skips', completed_at = now() WHERE id = %s", [run.id]
        )
        for key in keys:
            app.execute(
                'INSERT INTO briefly_admin.quarantine (run_id, "table", key, cause, message, field)'
                " VALUES (%s, 'users', %s, 'email', %s, 'email')", [run.id, json.dumps([key]), FAULT],
            )  # fmt: skip
    return services.runs.get(actor, run.id)


def email_of(target_url: str, key: str) -> str:
    with psycopg.connect(target_url) as target:
        (found,) = target.execute("SELECT email FROM users WHERE id = %s::uuid", [key]).fetchone() or ("",)
    return str(found)
