"""Rollbacks, their previews and approvals by command: what is taken and refused, and what is printed."""

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest

from briefly_admin.cli.previewing import print_preview
from briefly_admin.domain.runs import RunState
from tests.cli.conftest import Command, column_of
from tests.steered import put

ORDER = ("users", "conversations", "oauth_tokens")
COUNTS = {
    "users": {"same": 5, "update": 1_200, "insert": 0, "delete": 2},
    "oauth_tokens": {"same": 1, "update": 1, "insert": 0, "delete": 0},
}
OLD = {
    "tables": COUNTS, "outside": ["3 rows of public.bills"],
    "schema_changes": ["users: index users_email_idx", "users: column\nlocale"],
}  # fmt: skip


def column(name: str, before: str | None, migrated: str | None, now: str | None, **more: Any) -> dict[str, Any]:
    return {"name": name, "before": before, "migrated": migrated, "now": now, "secret": False} | more


CLASSES = {"untouched": 4, "migrated": 1_197, "edited": 6, "created": 2, "deleted": 0}
NEW = OLD | {
    "classes": {"users": CLASSES, "oauth_tokens": CLASSES | {"edited": 0}},
    "keep": {"users": {"update": 1_197}, "oauth_tokens": {"update": 1}},
    "left_out": {"users": ["updated_at", "seen"], "oauth_tokens": []}, "derived": {"users": ["logins"]},
    "lost": [{"table": "users", "column": "locale", "rows": 1}],
    "samples": {
        "users": [
            {"class": "created", "key": ["9"], "columns": [column("name", None, None, "New")]},
            *({"class": "edited", "key": [str(n), "x"], "columns": [column("name", "", f"old {n}", f"new\x1b[2J {n}")]}
              for n in range(6)),
        ],
        "oauth_tokens": [
            {"class": "migrated", "key": ["1"], "columns": [column("access_token", "c4nary", "c4nary", None, secret=True)]}
        ],
    },
    "outside": [
        {"table": "public.bills", "action": "CASCADE", "of": "users", "rows": 3, "blocks": False,
         "text": "3 rows of public.bills would be deleted."},
        {"table": "x.y", "action": "RESTRICT", "of": "users", "rows": 1, "blocks": True, "text": "1 row of x.y holds users"},
    ],
}  # fmt: skip


def printed(capsys: pytest.CaptureFixture[str], result: dict[str, Any]) -> str:
    print_preview(result, ORDER)
    return capsys.readouterr().out


def test_a_preview_shows_classes_counts_samples_and_consequences(capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(capsys, NEW)
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[:3] == [
        "Rows since the backup", "table untouched migrated edited since created since deleted since", "users 4 1,197 6 2 0",
    ]  # fmt: skip
    assert "table as in the backup to restore to bring back to delete keep restores" in lines
    assert "users 5 1,200 0 2 1,197" in lines
    assert "users: edited since, 5 of 6 samples (all: --json)" in lines
    assert "0, x name '' old 0 new\\x1b[2J 0" in lines
    assert "5, x name '' old 5 new\\x1b[2J 5" not in lines
    assert lines.index("users: edited since, 5 of 6 samples (all: --json)") < lines.index("users: created since")
    assert "9 name – – New" in lines
    assert "1 access_token (secret) (secret) (secret)" in lines
    assert "c4nary" not in out
    assert lines[-7:] == [
        "Not compared, for triggers write it: users: updated_at, seen.", "Computed anew by keep: users: logins.",
        "Schema change that would be undone: users: index users_email_idx",
        "Schema change that would be undone: users: column locale",
        "Lost with the schema changes: users.locale, in which 1 row has something of their own.",
        "Outside: 3 rows of public.bills would be deleted (to allow it: --allow public.bills).",
        "Outside: 1 row of x.y holds users (nothing can allow it).",
    ]  # fmt: skip


def test_where_keep_cannot_be_and_older_reports(capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(capsys, NEW | {"keep": None})
    assert "keep restores" not in out
    assert "keep is not possible: no migration took this backup." in out
    out = printed(capsys, OLD)
    assert out.startswith("table ")
    assert "keep" not in out
    assert column_of(out, 0)[:2] == ["users", "oauth_tokens"]
    assert out.endswith("Outside the plan: 3 rows of public.bills\n")
    assert printed(capsys, {}) == "The backup has no tables.\n"


KEPT = '{"key": ["1"], "how": "keep"}'
BAD_FILES = [
    ("", "is not JSON: Expecting value at line 1, column 1"), ("{\n  'a': 1}", "at line 2, column 3"),
    ('{"users": [}', "at line 1, column 12"), ("[" * 100_000, "cannot be read|that can be read"), ("[]", "Must be an object"),
    ('{"users": {}}', "Must be an object: table to a list of rows"), ('{"users": ["1"]}', "users, row 1: must be an object"),
    (f'{{"users": [{KEPT}, {{"key": "1", "how": "keep"}}]}}', "users, row 2: key must be a list of texts"),
    (f'{{"users": [{KEPT}, {KEPT}]}}', "users, row 2: its key is there twice"),
    (f'{{"users": [], "users": [{KEPT}]}}', "'users' is there twice"), ('{"users": NaN}', "is not JSON in UTF-8"),
    ('{"users": [{"key": ["1"], "how": "delete"}]}', "users, row 1: how must be one of: keep, restore, edit"),
    ('{"users": [{"key": ["1"], "how": "edit"}]}', "users, row 1: values belong to edit"),
    ('{"users": [{"key": ["1"], "how": "edit", "values": {"n": 1}}]}', "users, row 1: values must be column to text"),
    ('{"users": [{"key": ["\\u0000"], "how": "keep"}]}', "users, row 1: key must be"),
    ('{"users": [{"key": ["1"], "how": "keep", "why": ""}]}', "users, row 1: must be an object of key, how"),
    (json.dumps({"users": [{"key": [str(n)], "how": "keep"} for n in range(1001)]}), "at most 1,000 rows"),
]  # fmt: skip


def test_a_bad_file_of_settled_rows_is_one_line_that_says_where(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "settled.json"

    def refused(path: Path, words: str) -> None:
        answer = command("rollback", "backup_1", "--mode", "keep", "--settle", str(path), "--confirm")
        assert (answer.code, len(answer.err.splitlines()), answer.out) == (2, 1, ""), (words, answer)
        assert f"--settle {path}: " in answer.err
        assert any(word in answer.err for word in words.split("|")), (words, answer.err)

    for text, words in BAD_FILES:
        file.write_text(text)
        refused(file, words)
    file.write_bytes(b'{"users": "\xff"}')
    refused(file, "UTF-8")
    file.write_bytes(b" " * (16 * 1024 * 1024 + 1))
    refused(file, "is larger than 16 MiB")
    refused(tmp_path / "none.json", "No such file or directory")
    refused(tmp_path, "Is a directory")


def test_wrong_words_of_a_rollback(command: Command) -> None:
    for words in (
        ("--edited", "delete"), ("--created", "restore"), ("--deleted", "bring_back"), ("--allowance", "-1"),
        ("--allowance", "x"), ("--mode", "both"), ("--preview", "--edited", "keep"), ("--preview", "--allow", "public.x"),
        ("--preview", "--settle", "x"), ("--preview", "--preview-id", "1"), ("--preview", "--allowance", "0"),
    ):  # fmt: skip
        answer = command("rollback", "backup_1", *words, "--confirm") if "--preview" not in words else command("rollback", "x", *words)  # fmt: skip
        assert answer.code == 2, words
        assert answer.err.startswith("Usage: briefly-admin rollback "), words
    answer = command("rollback", "x", "--edited", "restore", "--confirm")
    assert answer.code == 2
    assert answer.is_one_line("rules: Belong to the mode keep")
    assert command("rollback", "x", "--mode", "keep").is_one_line("Nothing was rolled back", "--confirm")


def hostile(command: Command, backup: str, migration: str, file: Path) -> None:
    """Each is one line that says what is wrong and what to do, with the contract's exit code; nothing begins."""
    file.write_text('{"users": [{"key": ["1"], "how": "edit", "values": {"nonsense": "x"}}]}')
    cases: tuple[tuple[int, tuple[str, ...], tuple[str, ...]], ...] = (
        (2, ("--tables", "users,chats"), ("Must be tables of the backup", "users")),
        (2, ("--preview-id", "not-a-uuid"), ("no such run to be the preview: 'not-a-uuid'", "Preview this backup")),
        (4, ("--preview-id", migration), ("is no finished preview of", "it is a migration", "Preview this backup")),
        (2, ("--allowance", "3"), ("allowance: Belongs to a preview",)),
        (2, ("--reason", "a\x1b[2Jb"), ("reason: Must be plain text",)),
        (2, ("--allow", "public.nothing"), ("no table public.nothing", "Write schema.table")),
        (2, ("--mode", "keep", "--settle", str(file)), ("users, row 1: nonsense cannot be edited here",)),
    )
    for code, words, expected in cases:
        answer = command("rollback", backup, *words, "--confirm")
        assert (answer.code, answer.is_one_line(*expected)) == (code, True), (words, answer)
    for words in (
        ("rollback", backup, "--preview", "--tables", ","),
        ("rollback", "../x", "--confirm"),
        ("approve", "99"),
    ):
        answer = command(*words)
        assert (answer.code, answer.is_one_line(" name them" if "../x" in words else "")) == (2, True), (words, answer)


def test_keep_from_preview_to_end(command: Command, target_database: str, tmp_path: Path) -> None:
    assert command("selftest", "create-data", "--embeddings", "none").code == 0
    done = command("run", "--json")
    assert done.code == 0, done.err
    name = done.lines[-1]["backup_id"]
    with psycopg.connect(target_database) as connection:
        ids = [str(row[0]) for row in connection.execute("SELECT id FROM users ORDER BY id LIMIT 2")]
        for each in ids:
            connection.execute("UPDATE users SET stripe_customer_id = 'By hand' WHERE id::text = %s", (each,))
    shown = command("rollback", name, "--preview")
    assert shown.code == 0, shown.err
    assert "By hand" in shown.out
    assert "keep restores" in shown.out
    assert "2 edited since." in shown.out
    preview = command("rollback", name, "--preview", "--json").lines[-1]
    assert preview["preview"]["classes"]["users"]["edited"] == 2

    file = tmp_path / "settled.json"
    hostile(command, name, done.lines[-1]["id"], file)
    file.write_text(
        json.dumps({"users": [{"key": [ids[0]], "how": "edit", "values": {"stripe_customer_id": "Settled"}}]})
    )
    words = ("--mode", "keep", "--settle", str(file), "--reason", "a test", "--confirm")
    stale = command("rollback", name, "--preview-id", done.lines[-1]["id"], *words)
    assert stale.code == 4
    assert stale.is_one_line("no finished preview")
    answer = command("rollback", name, "--preview-id", preview["id"], *words)
    assert answer.code == 0, answer.err
    assert "Rolled back by keep: " in answer.out
    assert "1 edited since kept" in answer.out
    with psycopg.connect(target_database) as connection:
        query = "SELECT id::text, stripe_customer_id FROM users WHERE id::text = ANY(%s)"
        found = {str(row[0]): row[1] for row in connection.execute(query, (ids,))}
    assert found == {ids[0]: "Settled", ids[1]: "By hand"}
    assert json.loads(command("status", done.lines[-1]["id"], "--json").out)["status"] == "rolled_back"


def test_another_admin_approves(command: Command, app_database: str) -> None:
    strict = {"REQUIRE_APPROVAL": "1", "LOGNAME": "ana"}
    assert command("selftest", "create-data", "--embeddings", "none").code == 0
    begun = command("run", "--no-wait", **strict)
    assert begun.code == 0
    assert "Waits until another admin approves it; asked by cli:ana " in begun.out
    assert "\nTo approve: migration of " in command("status", "1").out
    own = command("approve", "1", **strict)
    assert own.code == 4
    assert own.is_one_line("Run 1 was asked for by cli:ana: another admin approves it.")
    approved = command("approve", "1", "--json", **strict | {"LOGNAME": "bob"})
    assert approved.code == 0, approved.err
    assert approved.lines[-1]["status"] == "completed"
    for state in RunState:
        if state is not RunState.AWAITING_APPROVAL:
            put(app_database, state)
            assert command("approve", "1", LOGNAME="bob").is_one_line(
                f"Run 1 is {state.value}: approve is not possible"
            )
    names = {"kind": "rollback", "target": "t", "plan": "unified", "fingerprint": "f" * 64, "backup": "backup_1", "mode": "keep",
             "tables": ["users"]}  # fmt: skip
    wish = {"allow": ["a.b"], "rules": {"deleted": "bring_back"}, "settled": {"users": [{}, {}]}, "reason": "why"}
    asked = {"approval": {"names": names, "asked_until": "2100-01-01T00:00:00+00:00", "asked_by": "cli:ana"}}
    put(app_database, RunState.AWAITING_APPROVAL, options=wish | asked)
    assert (
        f"To approve: rollback of t by the plan unified ({'f' * 12}…) to backup_1, keep, users, rows of a.b may be touched,"
        " deleted: bring back, 2 rows settled one by one; reason: why.\n"
    ) in command("status", "1").out
