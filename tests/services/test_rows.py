"""Rows by hand: who may, what the record says and to whom, and that each deed is recorded exactly once."""

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from threading import Thread
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import sql

from briefly_admin.domain.corrections import Cause, Deed, ShownRow
from briefly_admin.domain.errors import BrieflyError, InvalidRequest, NotAllowed, NotFound, Refused
from briefly_admin.domain.findings import FindingClass
from briefly_admin.domain.records import QuarantinedRow
from briefly_admin.domain.runs import RunKind
from briefly_admin.engine import correcting
from briefly_admin.engine.context import RunContext
from briefly_admin.services.rows import RowService
from briefly_admin.store.kept import HELD
from tests.services.conftest import Stage

Target = psycopg.Connection[Any]
SIZE = Cause("file_metadata", "file_size", "range")


@pytest.fixture
def target(stage: Stage, sample_data: dict[str, int]) -> Iterator[Target]:
    assert sample_data
    with psycopg.connect(stage.servers.target.dsn, autocommit=True) as connection:
        yield connection


@pytest.fixture
def rows(stage: Stage) -> RowService:
    return stage.services.rows


def _one(connection: Target, query: str) -> Any:
    row = connection.execute(query.encode()).fetchone()
    return row[0] if row else None


def _key(connection: Target, table: str = "users") -> str:
    return str(_one(connection, f"SELECT id FROM {table} ORDER BY id LIMIT 1"))


def _app(stage: Stage, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(stage.app_url, autocommit=True) as connection:
        return connection.execute(query.encode()).fetchall()


def _crash(stage: Stage, table: str, key: str, **changes: str | None) -> Deed:
    """A correction whose process died just after the target's commit."""
    deed = Deed(uuid4(), stage.olga.name, stage.olga.role.value, "page", "127.0.0.1")
    row = stage.services.rows.get(stage.olga, table, [key])
    correcting.correct_row(
        stage.servers.target, stage.servers.plan, table, [key], version=row.version, changes=changes, deed=deed
    )
    return deed


def _quarantine(stage: Stage, *found: QuarantinedRow) -> str:
    """A migration that left these rows alone; its id."""

    def work(context: RunContext) -> Mapping[str, Any]:
        context.journal.save_quarantine(found)
        return {"migrate": {"skipped": len(found)}}

    return stage.lead(stage.services.runs.start(stage.olga, RunKind.MIGRATION), work).id


def test_who_may(stage: Stage, target: Target, rows: RowService) -> None:
    key = [_key(target)]
    shown = rows.get(stage.vito, "users", key)
    assert list(rows.causes_rows(stage.vito, SIZE)) == []
    deeds: list[Callable[[], object]] = [
        lambda: rows.check(stage.vito, "users", key, {"email": "x@y.co"}),
        lambda: rows.correct(stage.vito, "users", key, version=shown.version, changes={"email": "x@y.co"}),
        lambda: rows.preview_fix(stage.vito, SIZE, {"file_size": "1"}),
        lambda: rows.fix(stage.vito, SIZE, {"file_size": "1"}, expected=1),
        lambda: rows.skip(stage.vito, "users", key, reason="no"),
        lambda: rows.unskip(stage.vito, "users", key),
    ]
    for deed in deeds:
        with pytest.raises(NotAllowed, match="needs the role operator"):
            deed()
    assert rows.get(stage.vito, "users", key) == shown
    assert stage.actions() == ["test.begin"]


def test_a_correction_is_recorded_without_values_in_the_trail(stage: Stage, target: Target, rows: RowService) -> None:
    key = _key(target, "oauth_tokens")
    row = rows.get(stage.olga, "oauth_tokens", [key])
    changes = {"expires_at": "2030-01-02 00:00:00+00", "access_token": "canary-4711"}
    done = rows.correct(stage.olga, "oauth_tokens", [key], version=row.version, changes=changes)
    assert done.recorded
    assert _one(target, "SELECT count(*) FROM briefly_migration.correction") == 0
    event = stage.services.audit.list(stage.ana)[0]
    assert (event.actor, event.role, event.via, event.address) == ("olga@example.com", "operator", "page", "127.0.0.1")
    assert (event.action, event.object) == ("row.correct", f"oauth_tokens/{key}")
    assert (event.details["fields"], event.details["secret_fields"]) == (["expires_at"], ["access_token"])
    seals = event.details["values"]["expires_at"]
    assert seals["after"] == stage.services.audit.seal("oauth_tokens.expires_at", "2030-01-02 00:00:00+00")
    assert seals["before"] not in {None, seals["after"]}
    assert "2030" not in json.dumps(event.details["values"])
    ((changed, by, table, kept_key),) = _app(
        stage, 'SELECT changes, by_whom, "table", key FROM briefly_admin.correction'
    )
    assert (by, table, json.loads(kept_key)) == ("olga@example.com", "oauth_tokens", [key])
    assert changed["expires_at"]["after"] == "2030-01-02 00:00:00+00"
    assert changed["access_token"] == {"secret": True}
    everything = (
        repr(_app(stage, "SELECT a::text FROM briefly_admin.audit AS a")) + repr(changed) + repr(done) + repr(row)
    )
    assert "canary" not in everything
    assert _one(target, "SELECT access_token FROM oauth_tokens ORDER BY id LIMIT 1") == "canary-4711"


def test_a_refused_correction_leaves_no_trace_and_tells_no_secret(
    stage: Stage, target: Target, rows: RowService
) -> None:
    key = _key(target, "oauth_tokens")
    row = rows.get(stage.olga, "oauth_tokens", [key])
    for version, changes in (
        ("1:(0,1)", {"access_token": "canary-4711"}),
        (row.version, {"access_token": "canary-4711", "provider": "canary-4711"}),
        (row.version, {"access_token": None}),
        (row.version, {"user_id": str(uuid4())}),
    ):
        with pytest.raises((Refused, InvalidRequest)) as raised:
            rows.correct(stage.olga, "oauth_tokens", [key], version=version, changes=changes)
        error = raised.value
        assert "canary" not in f"{error}{getattr(error, 'details', '')}"
    with pytest.raises(InvalidRequest):
        rows.correct(stage.olga, "oauth_tokens", [key], version=row.version, changes={"provider": 7})  # type: ignore[dict-item] # what JSON may bring
    assert rows.get(stage.olga, "oauth_tokens", [key]) == row
    assert stage.actions() == ["test.begin"]


def test_what_a_crash_left_is_settled_once(stage: Stage, target: Target, rows: RowService) -> None:
    deed = _crash(stage, "users", _key(target), email="x@y.co")
    outbox = target.execute(
        'SELECT deed, "table", key, at, by, changes::text FROM briefly_migration.correction'
    ).fetchall()
    assert (stage.actions(), len(outbox)) == (["test.begin"], 1)
    assert rows.settle() == 1
    assert rows.settle() == 0
    event = stage.services.audit.list(stage.ana)[0]
    assert (event.action, event.actor, event.details["deed"]) == ("row.correct", "olga@example.com", str(deed.id))
    # It died after the app database's commit, before the outbox was emptied.
    values = [*outbox[0][:4], json.dumps(outbox[0][4]), outbox[0][5]]
    target.execute("INSERT INTO briefly_migration.correction VALUES (%s, %s, %s, %s, %s::jsonb, %s::jsonb)", values)
    assert rows.settle() == 1
    assert _one(target, "SELECT count(*) FROM briefly_migration.correction") == 0
    assert stage.actions() == ["test.begin", "row.correct"]
    assert len(_app(stage, "SELECT FROM briefly_admin.correction")) == 1


@pytest.mark.parametrize("odd", ["[]", "1", '{"role": "king", "cause": 3, "by": null}', '{"cause": {"table": 1}}'])
def test_an_odd_record_holds_up_no_other(stage: Stage, target: Target, rows: RowService, odd: str) -> None:
    _crash(stage, "users", _key(target), email="x@y.co")
    target.execute(
        "INSERT INTO briefly_migration.correction VALUES (gen_random_uuid(), 't', ARRAY['1', NULL], '2000-01-01', %s, %s)",
        (odd, odd),
    )
    stage.services.sweeping.sweep()
    assert len(stage.actions()) == 3
    assert stage.actions()[2] == "row.correct"
    assert _one(target, "SELECT count(*) FROM briefly_migration.correction") == 0


def test_many_settle_at_once(stage: Stage, target: Target, rows: RowService) -> None:
    _crash(stage, "users", _key(target), email="x@y.co")
    threads = [Thread(target=rows.settle) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stage.actions() == ["test.begin", "row.correct"]


def test_the_sweep_and_the_next_correction_settle(stage: Stage, target: Target, rows: RowService) -> None:
    first, second = (str(key) for (key,) in target.execute("SELECT id FROM users ORDER BY id LIMIT 2").fetchall())
    _crash(stage, "users", first, email="x@y.co")
    stage.services.sweeping.sweep()
    assert stage.actions()[1:] == ["row.correct"]
    _crash(stage, "users", first, email="x@z.co")
    rows.correct(
        stage.ana,
        "users",
        [second],
        version=rows.get(stage.ana, "users", [second]).version,
        changes={"email": "a@z.co"},
    )
    assert [(e.actor, e.object) for e in stage.services.audit.list(stage.ana)[:2]] == [
        ("ana@example.com", f"users/{second}"), ("olga@example.com", f"users/{first}"),
    ]  # fmt: skip


def test_the_change_stands_where_the_app_database_is_lost_just_then(
    stage: Stage, target: Target, rows: RowService, superuser_database: Callable[[str], str]
) -> None:
    key = [_key(target)]
    row = rows.get(stage.olga, "users", key)
    name = sql.Identifier(urlsplit(stage.app_url).path[1:])
    with psycopg.connect(superuser_database(stage.servers.target.dsn), autocommit=True) as superuser:
        superuser.execute(sql.SQL("ALTER DATABASE {} CONNECTION LIMIT 0").format(name))
        stage.servers.database.close()
        try:
            done = rows.correct(stage.olga, "users", key, version=row.version, changes={"email": "x@y.co"})
            # Nothing is changed that could not be recorded after it.
            with pytest.raises(BrieflyError, match="app database does not answer"):
                rows.correct(stage.olga, "users", key, version=done.version, changes={"email": "y@y.co"})
        finally:
            superuser.execute(sql.SQL("ALTER DATABASE {} CONNECTION LIMIT -1").format(name))
    assert not done.recorded
    assert _one(target, "SELECT email FROM users ORDER BY id LIMIT 1") == "x@y.co"
    stage.services.sweeping.sweep()
    assert stage.actions()[1:] == ["row.correct"]


def test_a_change_that_stands_is_not_told_as_refused(stage: Stage, target: Target, rows: RowService) -> None:
    key = [_key(target)]
    _crash(stage, "users", key[0], email="x@y.co")
    rows.settle()
    target.execute("REVOKE DELETE ON briefly_migration.correction FROM CURRENT_USER")
    version = rows.get(stage.olga, "users", key).version
    done = rows.correct(stage.olga, "users", key, version=version, changes={"email": "y@y.co"})
    assert (done.recorded, _one(target, "SELECT email FROM users ORDER BY id LIMIT 1")) == (False, "y@y.co")


def test_a_row_that_is_gone_hides_no_other_of_its_cause(stage: Stage, target: Target, rows: RowService) -> None:
    keys = [str(UUID(int=0)), _key(target, "file_metadata")]
    run_id = _quarantine(
        stage, *(QuarantinedRow("file_metadata", (key,), "range", "too small", field="file_size") for key in keys)
    )
    found = rows.causes_rows(stage.vito, Cause("file_metadata", "file_size", "range", run_id), limit=1)
    assert [row.key for row in found] == [(keys[1],)]


def test_a_fix_is_one_event_and_each_row_has_its_record(stage: Stage, target: Target, rows: RowService) -> None:
    target.execute(
        "INSERT INTO usage_logs (id, user_id, action, resource_type, metadata, created_at)"
        " SELECT gen_random_uuid(), (SELECT id FROM users LIMIT 1), 'chat', 'x', '[]', now() FROM generate_series(1, 6000)"
    )
    cause = Cause("usage_logs", "metadata", "type")
    seen = rows.preview_fix(stage.olga, cause, {"metadata": "{}"})
    assert (seen.rows, seen.cured, seen.refused) == (6000, 6000, {})
    assert stage.actions() == ["test.begin"]
    with pytest.raises(Refused, match="another number"):
        rows.fix(stage.olga, cause, {"metadata": "{}"}, expected=5999)
    done = rows.fix(stage.olga, cause, {"metadata": "{}"}, expected=6000)
    assert (done.cured, done.recorded) == (6000, True)
    assert stage.actions() == ["test.begin", "row.fix"]
    event = stage.services.audit.list(stage.ana)[0]
    assert (event.object, event.details["rows"]) == ("usage_logs (6,000 rows)", 6000)
    assert event.details["cause"] == {"field": "metadata", "rule": "type", "run": None}
    assert event.details["values"] == {"metadata": {"after": stage.services.audit.seal("usage_logs.metadata", "{}")}}
    assert _app(stage, "SELECT count(*), min(changes::text) FROM briefly_admin.correction") == [
        (6000, '{"metadata": {"after": "{}", "before": "[]"}}')
    ]
    assert _one(target, "SELECT count(*) FROM briefly_migration.correction") == 0
    assert list(rows.causes_rows(stage.vito, cause)) == []


def test_a_fixs_event_tells_no_value(stage: Stage, target: Target, rows: RowService) -> None:
    target.execute(
        "CREATE FUNCTION each_its_own() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN NEW.expires_at = now() + random() * interval '1 day'; IF NEW.id = (SELECT id FROM oauth_tokens ORDER BY id LIMIT 1)"
        " THEN NEW.refresh_token := 'canary-4712'; END IF; RETURN NEW; END $$;"
        "CREATE TRIGGER own BEFORE UPDATE ON oauth_tokens FOR EACH ROW EXECUTE FUNCTION each_its_own()"
    )
    keys = [str(key) for (key,) in target.execute("SELECT id FROM oauth_tokens ORDER BY id LIMIT 2").fetchall()]
    run_id = _quarantine(stage, *(QuarantinedRow("oauth_tokens", (key,), "expired", "expired") for key in keys))
    cause = Cause("oauth_tokens", "", "expired", run_id)
    changes = {"access_token": "canary-4711", "expires_at": "2030-01-02 00:00:00+00"}
    assert rows.fix(stage.olga, cause, changes, expected=2).recorded
    details = stage.services.audit.list(stage.ana)[0].details
    assert (details["fields"], details["secret_fields"]) == (["expires_at"], ["access_token", "refresh_token"])
    assert details["values"] == {"expires_at": {"differs": True}}
    assert "canary" not in json.dumps(details)


def test_the_quarantine_knows_of_corrections(stage: Stage, target: Target, rows: RowService) -> None:
    target.execute("UPDATE file_metadata SET file_size = -1")
    keys = [str(key) for (key,) in target.execute("SELECT id FROM file_metadata ORDER BY id LIMIT 3").fetchall()]
    run_id = _quarantine(
        stage, *(QuarantinedRow("file_metadata", (key,), "range", "too small", field="file_size") for key in keys),
        QuarantinedRow("file_metadata", (str(uuid4()),), "range", "gone by now", field="file_size"),
    )  # fmt: skip
    cause = Cause("file_metadata", "file_size", "range", run_id)
    rows.skip(stage.olga, "file_metadata", [keys[0]], reason="the customer knows")
    assert {row.key for row in rows.causes_rows(stage.vito, cause)} == {(keys[1],), (keys[2],)}
    assert len(list(rows.causes_rows(stage.vito, SIZE, classes={FindingClass.BLOCKING}))) == 9
    assert len(list(rows.causes_rows(stage.vito, SIZE, limit=4))) == 4
    assert rows.fix(stage.olga, cause, {"file_size": "0"}, expected=2).cured == 2
    found = _app(stage, "SELECT key FROM briefly_admin.quarantine WHERE corrected_at IS NOT NULL ORDER BY key")
    assert [json.loads(key) for (key,) in found] == [[keys[1]], [keys[2]]]
    row = rows.get(stage.olga, "file_metadata", [keys[0]])
    rows.correct(stage.olga, "file_metadata", [keys[0]], version=row.version, changes={"file_size": "0"})
    assert len(_app(stage, "SELECT FROM briefly_admin.quarantine WHERE corrected_at IS NULL")) == 1


def test_a_fix_of_the_quarantine_spares_rows_corrected_since(stage: Stage, target: Target, rows: RowService) -> None:
    target.execute("UPDATE file_metadata SET file_size = -1")
    keys = [str(key) for (key,) in target.execute("SELECT id FROM file_metadata ORDER BY id LIMIT 4").fetchall()]
    run_id = _quarantine(
        stage, *(QuarantinedRow("file_metadata", (key,), "range", "too small", field="file_size") for key in keys)
    )
    cause = Cause("file_metadata", "file_size", "range", run_id)
    for key in keys[:2]:
        row = rows.get(stage.olga, "file_metadata", [key])
        rows.correct(stage.olga, "file_metadata", [key], version=row.version, changes={"file_size": "77"})
    rows.skip(stage.olga, "file_metadata", [keys[1]], reason="corrected and skipped")
    (line,) = stage.services.findings.causes(stage.vito, run_id)
    assert (line.rows, line.corrected, line.skipped, line.open_to_fix) == (4, 2, 1, 2)
    assert rows.preview_fix(stage.olga, cause, {"file_size": "0"}).rows == 2
    assert rows.fix(stage.olga, cause, {"file_size": "0"}, expected=2).cured == 2
    sizes = [_one(target, f"SELECT file_size FROM file_metadata WHERE id = '{key}'") for key in keys]
    assert sizes == [77, 77, 0, 0]
    with pytest.raises(Refused, match="No row has this any more"):
        rows.fix(stage.olga, cause, {"file_size": "0"}, expected=0)
    assert len(list(rows.causes_rows(stage.vito, cause))) == 3


def test_a_cause_of_a_run_that_is_not_there_or_not_of_this_target(
    stage: Stage, target: Target, rows: RowService
) -> None:
    assert target
    with pytest.raises(NotFound):
        rows.causes_rows(stage.vito, Cause("users", "email", "email", "999"))
    with pytest.raises(NotFound):
        rows.causes_rows(stage.vito, Cause("nobody", "email", "email"))
    run_id = _quarantine(stage, QuarantinedRow("users", ("1",), "email", "no e-mail", field="email"))
    with psycopg.connect(stage.app_url, autocommit=True) as app:
        app.execute("UPDATE briefly_admin.run SET target_id = 'other'")
    for call in (rows.preview_fix, lambda a, c, v: rows.fix(a, c, v, expected=1)):
        with pytest.raises(Refused, match="another database"):
            call(stage.olga, Cause("users", "email", "email", run_id), {"email": "x@y.co"})


def test_rows_that_may_not_be_read_are_refused(stage: Stage, target: Target, rows: RowService) -> None:
    target.execute("REVOKE SELECT ON file_metadata FROM CURRENT_USER")
    with pytest.raises(Refused, match="InsufficientPrivilege"):
        rows.causes_rows(stage.vito, SIZE)
    with pytest.raises(Refused, match="may not do this"):
        rows.preview_fix(stage.olga, SIZE, {"file_size": "0"})


def test_skipping_needs_a_reason_and_a_row(stage: Stage, target: Target, rows: RowService) -> None:
    key = _key(target)
    for reason in ("", "  ", "x" * 501, "two\nlines", "nul\0"):
        with pytest.raises(InvalidRequest) as raised:
            rows.skip(stage.olga, "users", [key], reason=reason)
        assert list(raised.value.details) == ["reason"]
    for table, wrong in (("users", "abc"), ("users", str(uuid4())), ("nobody", key)):
        with pytest.raises(NotFound):
            rows.skip(stage.olga, table, [wrong], reason="why not")
    with pytest.raises(InvalidRequest):
        rows.skip(stage.olga, "users", [key, key], reason="why not")
    rows.skip(stage.olga, "users", [key.upper()], reason=" the customer knows ")
    assert _app(stage, 'SELECT "table", key, reason, by_whom, plan FROM briefly_admin.skip') == [
        ("users", json.dumps([key]), "the customer knows", "olga@example.com", "unified")
    ]
    with pytest.raises(NotFound, match="not one to be left alone"):
        rows.unskip(stage.olga, "users", [str(uuid4())])
    for table, odd in (("users", "\udc80"), ("no\0body", key), ("\udc80", key)):
        with pytest.raises(NotFound):
            rows.unskip(stage.olga, table, [odd])
    target.execute("DELETE FROM users WHERE id = %s", (UUID(key),))
    rows.unskip(stage.olga, "users", [key])  # though the row is gone
    with pytest.raises(NotFound):
        rows.unskip(stage.olga, "users", [key])
    assert _app(stage, "SELECT FROM briefly_admin.skip") == []
    assert stage.actions() == ["test.begin", "row.skip", "row.unskip"]
    event = stage.services.audit.list(stage.ana)[1]
    assert (event.object, event.details["reason"]) == (f"users/{key}", "the customer knows")


def test_skipped_rows_are_no_rows_of_a_fix(stage: Stage, target: Target, rows: RowService) -> None:
    target.execute("UPDATE file_metadata SET file_size = -1")
    rows.skip(stage.olga, "file_metadata", [_key(target, "file_metadata")], reason="let it be")
    assert rows.preview_fix(stage.olga, SIZE, {"file_size": "0"}).rows == 9


def test_old_values_go_with_the_backups(stage: Stage, target: Target, rows: RowService) -> None:
    key = [_key(target)]
    rows.correct(
        stage.olga, "users", key, version=rows.get(stage.olga, "users", key).version, changes={"email": "x@y.co"}
    )
    stage.services.sweeping.purge()
    assert len(_app(stage, "SELECT FROM briefly_admin.correction")) == 1
    with psycopg.connect(stage.app_url, autocommit=True) as app:
        app.execute("UPDATE briefly_admin.correction SET at = %s", (stage.clock() - timedelta(days=2),))
        app.execute(
            "INSERT INTO briefly_admin.backup (id, name, state, plan, target_id, target_title, created_at, pinned)"
            " SELECT gen_random_uuid(), 'old', %s, 'unified', target_id, '', at - interval '1 day', true"
            " FROM briefly_admin.correction",
            (HELD[0],),
        )
        stage.services.sweeping.purge()
        assert len(_app(stage, "SELECT FROM briefly_admin.correction")) == 1
        app.execute("UPDATE briefly_admin.backup SET state = 'expired'")
        stage.services.sweeping.purge()
    assert _app(stage, "SELECT FROM briefly_admin.correction") == []


def test_what_is_typed_is_judged_for_operators(stage: Stage, target: Target, rows: RowService) -> None:
    key = [_key(target)]
    typed = rows.check(stage.olga, "users", key, {"email": "no e-mail", "usage_documents": "x"})
    faults = {field.name: field.faults for field in typed.fields if field.faults}
    assert faults == {
        "email": ("must be an e-mail address",),
        "usage_documents": ("is not a whole number, or is out of the range of integer",),
    }  # fmt: skip
    assert isinstance(typed, ShownRow)
    assert typed.blocks
