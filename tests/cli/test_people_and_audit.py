"""People, tokens and the audit log from the command line."""

import csv
import io
import json

import psycopg

from tests.cli.conftest import Command, column_of

PASSWORD = "correct horse battery staple"


def test_people_are_made_changed_and_shut_out(command: Command) -> None:
    made = command("admin", "create", "ana@example.com", input=f"{PASSWORD}\n")
    assert (made.code, made.out) == (0, "ana@example.com may sign in as admin.\n")
    assert command("admin", "create", "ana@example.com", input=f"{PASSWORD}\n").code == 4
    assert command("admin", "create", "vito@example.com", "--role", "viewer", input=f"{PASSWORD}\n").code == 0
    assert command("admin", "password", "Vito@example.com", input=f"another {PASSWORD}\n").code == 0
    assert command("admin", "disable", "vito@example.com").code == 0
    last = command("admin", "disable", "ana@example.com")
    assert last.code == 4
    assert last.is_one_line("is the last admin who can sign in")
    for args, given, words in (
        (("create", "nobody"), PASSWORD, "This is no e-mail address."),
        (("create", "no\udcffbody@example.com"), PASSWORD, "This is no e-mail address."),
        (("create", "no\x1bbody@example.com"), PASSWORD, "This is no e-mail address."),
        (("create", "olga@example.com"), "short", "at least 15 characters"),
        (("create", "olga@example.com"), "", "at least 15 characters"),
        (("password", "olga@example.com"), PASSWORD, "ana@example.com, vito@example.com"),
    ):
        answer = command("admin", *args, input=f"{given}\n")
        assert answer.code == 2, args
        assert answer.is_one_line(words), answer.err
    assert PASSWORD not in command("audit", "export").out


def test_token_alone_is_printed_and_never_again(command: Command) -> None:
    answer = command("token", "create", "--role", "operator", "--name", "nightly", "--days", "30")
    assert (answer.code, answer.err) == (0, "")
    secret = answer.out.removesuffix("\n")
    assert secret.startswith("bra_")
    assert secret.split() == [secret]
    listed = command("token", "list")
    assert column_of(listed.out, 1) == ["nightly"]
    assert column_of(listed.out, 3) == ["valid"]
    data = json.loads(command("token", "list", "--json").out)
    assert (data[0]["name"], data[0]["role"], data[0]["revoked"]) == ("nightly", "operator", False)
    assert data[0]["expires_at"].endswith("Z")
    assert command("token", "revoke", data[0]["id"]).out == f"Token {data[0]['id']} is revoked.\n"
    assert command("token", "revoke", data[0]["id"]).code == 2
    assert secret not in listed.out + command("token", "list").out + command("audit", "export").out
    assert command("token", "create", "--role", "viewer", "--name", "").is_one_line("The token's name cannot be used")


def test_audit_log_is_listed_verified_and_exported(command: Command, app_database: str) -> None:
    assert command("audit", "list").out == "Nothing happened yet.\n"
    for name in ("one", "=two"):
        assert command("token", "create", "--role", "viewer", "--name", name).code == 0
    assert column_of(command("audit", "list").out, 0) == ["2", "1"]
    assert column_of(command("audit", "list", "--limit", "1").out, 0) == ["2"]
    assert json.loads(command("audit", "list", "--json").out)[0]["object"] == "token =two"
    verified = command("audit", "verify")
    assert verified.code == 0, verified.out
    assert [line["number"] for line in command("audit", "export").lines] == [1, 2, 3]
    rows = list(csv.DictReader(io.StringIO(command("audit", "export", "--format", "csv").out)))
    assert [row["action"] for row in rows] == ["token.create", "token.create", "audit.export", "audit.export"]
    assert json.loads(rows[0]["details"]) == {"role": "viewer"}
    assert rows[0]["at"].endswith("Z")
    with psycopg.connect(app_database) as connection:
        connection.execute("""ALTER TABLE briefly_admin.audit DISABLE TRIGGER USER""")
        connection.execute("""UPDATE briefly_admin.audit SET actor = 'nobody' WHERE number = 1""")
    broken = command("audit", "verify")
    assert broken.code == 1
    assert "1" in broken.out
    assert json.loads(command("audit", "verify", "--json").out)["ok"] is False
