"""Findings against the validation before, in lines; the quarantine by cause, counted and turned over in SQL."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import psycopg
import pytest

from briefly_admin.domain.errors import BlockingFindings, NotFound, RunFailed
from briefly_admin.domain.findings import Finding, FindingClass
from briefly_admin.domain.permissions import Actor, Role
from briefly_admin.domain.records import QuarantinedRow
from briefly_admin.domain.runs import Phase, RunKind
from briefly_admin.engine.context import RunContext
from briefly_admin.services.views import RunView
from briefly_admin.store import skips
from tests.services.conftest import Stage

Work = Callable[[RunContext], Mapping[str, Any]]


def finding(rule: str, count: int, kind: FindingClass = FindingClass.BLOCKING, field: str = "email") -> Finding:
    return Finding("users", field, rule, kind, count, f"users.{field} breaks {rule}")


def validated(stage: Stage, found: Sequence[Finding], *, ends: Exception | None = None) -> RunView:
    def work(context: RunContext) -> Mapping[str, Any]:
        context.journal.phase_started(Phase.VALIDATE)
        if found or ends is None:
            context.journal.save_findings(Phase.VALIDATE, found)
        if ends is not None:
            context.journal.phase_failed(Phase.VALIDATE, str(ends))
            raise ends
        context.journal.phase_finished(Phase.VALIDATE, {})
        return {}

    return stage.lead(stage.services.runs.start(stage.olga, RunKind.VALIDATION), work)


def test_a_trend_is_against_the_newest_validation_that_was_saved(stage: Stage) -> None:
    trend = stage.services.findings.trend
    first = validated(stage, [finding("email", 5), finding("length", 2), finding("range", 1, FindingClass.NOTICE)])
    assert (trend(stage.vito, first.id).number, trend(stage.vito, first.id).gone) == (None, ())

    blocked = validated(stage, [finding("email", 3), finding("range", 1)], ends=BlockingFindings("Two."))
    found = trend(stage.vito, str(blocked.number))
    assert found.number == first.number
    assert found.before[("users", "email", "email", "blocking")] == 5
    assert found.before[("users", "email", "range", "notice")] == 1
    assert [(gone.rule, gone.finding_class, gone.count) for gone in found.gone] == [
        ("length", "blocking", 2), ("range", "notice", 1),
    ]  # fmt: skip

    validated(stage, [], ends=RunFailed("No disk."))
    clean = validated(stage, [])
    found = trend(stage.vito, clean.id)
    assert (found.number, len(found.gone)) == (blocked.number, 2)
    assert trend(stage.vito, validated(stage, [finding("email", 1)]).id).number == clean.number
    assert trend(stage.vito, clean.id, Phase.VERIFY).number is None


def test_a_trend_is_of_one_plan_and_one_target(stage: Stage) -> None:
    first, second = validated(stage, [finding("email", 5)]), validated(stage, [finding("email", 4)])
    for column in ("plan", "target_id"):
        with psycopg.connect(stage.app_url) as app:
            app.execute(f"UPDATE briefly_admin.run SET {column} = 'other' WHERE number = {first.number}")
        assert stage.services.findings.trend(stage.vito, second.id).number is None
        with psycopg.connect(stage.app_url) as app:
            app.execute(f"UPDATE briefly_admin.run r SET {column} = s.{column} FROM briefly_admin.run s"
                        f" WHERE r.number = {first.number} AND s.number = {second.number}")  # fmt: skip
        assert stage.services.findings.trend(stage.vito, second.id).number == first.number


def test_errors_are_lines_and_the_last_one_says_how_many(stage: Stage) -> None:
    texts = stage.services.findings.errors_texts
    found = [finding(f"rule{number}", 1_000) for number in range(123)]
    lines = texts([*found, finding("email", 7, FindingClass.NOTICE)])
    assert (len(lines), lines[0]) == (101, "users.email breaks rule0 (1,000 rows)")
    assert lines[-1] == "… and 23 more findings; 123 in all."
    assert texts(found[:101])[-1] == "… and 1 more finding; 101 in all."
    assert len(texts(found[:100])) == 100
    hostile = Finding("a\nb\x1b[2J", "c", "null", FindingClass.BLOCKING, 1, "x" * 9_000 + "\r\n")
    (line,) = texts([hostile])
    assert line.isprintable()
    assert line.startswith("a b [2J: xxx")
    assert line.endswith("… (1 row)")
    assert len(line) < 600


def migrated(stage: Stage, rows: Sequence[QuarantinedRow]) -> RunView:
    def work(context: RunContext) -> Mapping[str, Any]:
        context.journal.save_quarantine(rows)
        return {"migrate": {"skipped": len(rows)}}

    return stage.lead(stage.services.runs.start(stage.olga, RunKind.MIGRATION), work)


def row(key: str, cause: str = "email", table: str = "users") -> QuarantinedRow:
    return QuarantinedRow(table, (key,), cause, f"{table}: {cause} of {key}")


def change(stage: Stage, statement: str) -> None:
    with psycopg.connect(stage.app_url) as app:
        app.execute(f"UPDATE briefly_admin.quarantine SET {statement}")


def test_causes_are_counted_with_corrections_and_skips(stage: Stage) -> None:
    first = migrated(stage, [row("a"), row("b"), row("c"), row("d", "null"), row("e", "null", "tags")])
    second = migrated(stage, [row("a")])
    assert {each.closed for each in stage.services.findings.quarantine(stage.vito, first.id)} == {True}, (
        "looked at anew"
    )
    change(stage, "field = 'email', closed_by = NULL")
    change(stage, "corrected_at = now() WHERE key IN ('[\"a\"]', '[\"b\"]')")
    change(stage, "closed_by = gen_random_uuid() WHERE key = '[\"d\"]'")
    with stage.servers.database.begin() as app:
        for plan, reason in (("unified", "they asked for it"), ("other", "not here")):
            skips.put(app, target_id=_target_of(stage), plan=plan, table="users", key=("c",), reason=reason, by="ana")
    found = stage.services.findings.causes(stage.vito)
    assert [(c.run_number, c.table, c.field, c.cause, c.rows, c.corrected, c.skipped) for c in found] == [
        (second.number, "users", "email", "email", 1, 1, 0),
        (first.number, "tags", "email", "null", 1, 0, 0),
        (first.number, "users", "email", "email", 3, 2, 1),
    ]
    assert found[2].message == "users: email of a"
    assert all(cause.replayable for cause in found)
    assert stage.services.findings.causes(stage.vito, str(first.number)) == found[1:]
    change(stage, "closed_by = gen_random_uuid()")
    assert stage.services.findings.causes(stage.vito) == ()
    assert {(r.key, r.skipped, r.closed) for r in stage.services.findings.quarantine(stage.vito, first.id)} >= {
        (("c",), "they asked for it", True), (("a",), "", True),
    }  # fmt: skip


def test_causes_are_of_this_target_and_of_migrations_that_can_be_replayed(stage: Stage) -> None:
    run = migrated(stage, [row("a")])
    with psycopg.connect(stage.app_url) as app:
        app.execute("UPDATE briefly_admin.run SET state = 'rolled_back'")
    assert not stage.services.findings.causes(stage.vito)[0].replayable
    with psycopg.connect(stage.app_url) as app:
        app.execute("UPDATE briefly_admin.run SET target_id = 'another'")
    assert stage.services.findings.causes(stage.vito) == ()
    assert len(stage.services.findings.causes(stage.vito, run.id)) == 1


def test_rows_of_a_cause_are_turned_over_by_key(stage: Stage) -> None:
    keys = [f"k{number:02}" for number in range(7)] + ["ü\0", 'a"b', "B"]
    run = migrated(stage, [*(row(key) for key in keys), row("z", "null"), row("y", table="tags")])
    change(stage, "closed_by = gen_random_uuid() WHERE key = '[\"k03\"]'")
    turn = stage.services.findings.quarantine_rows
    of: dict[str, Any] = {"table": "users", "field": "", "cause": "email"}
    seen: list[str] = []
    after: tuple[str, ...] | None = None
    while len(seen) < 99 and (page := turn(stage.vito, run.id, **of, after=after, limit=4)):
        assert len(page) <= 4
        seen += [each.key[0] for each in page]
        after = page[-1].key
    assert sorted(seen) == sorted(set(keys) - {"k03"})
    assert len(turn(stage.vito, run.id, **of, limit=0)) == 1
    assert turn(stage.vito, run.id, table="no\0\ud800where", field="", cause="email") == ()
    assert turn(stage.vito, run.id, **of, after=("\udfff", "\0")) is not None


def test_a_run_that_is_not_there_is_said_to_be_so(stage: Stage) -> None:
    findings = stage.services.findings
    nobody = Actor("nobody", Role.VIEWER, "page")
    asked: list[Callable[[Actor], Any]] = [
        lambda actor: findings.trend(actor, "99"),
        lambda actor: findings.causes(actor, "99"),
        lambda actor: findings.quarantine_rows(actor, "99", table="users", field="", cause="email"),
        lambda actor: findings.quarantine(actor, "99"),
    ]
    for ask in asked:
        with pytest.raises(NotFound):
            ask(nobody)
    assert findings.causes(nobody) == ()


def test_many_rows_of_a_cause_are_turned_over_anywhere(stage: Stage) -> None:
    run = migrated(stage, [row("a")])
    with psycopg.connect(stage.app_url) as app:
        app.execute(
            'INSERT INTO briefly_admin.quarantine (run_id, "table", key, cause, message, field)'
            " SELECT id, 'users', '[\"' || n || '\"]', 'email', 'users: email of ' || n, 'email'"
            " FROM briefly_admin.run, generate_series(1, 10000) n WHERE number = %s", [run.number],
        )  # fmt: skip
    found = stage.services.findings.causes(stage.vito)
    pages = [
        stage.services.findings.quarantine_rows(
            stage.vito, run.id, table="users", field="email", cause="email", after=(str(n),), limit=50
        )
        for n in (5, 5_000, 9_000)
    ]
    assert {cause.field: cause.rows for cause in found} == {"": 1, "email": 10_000}
    assert [len(page) for page in pages] == [50, 50, 50]


def _target_of(stage: Stage) -> str:
    with psycopg.connect(stage.app_url) as app:
        (found,) = app.execute("SELECT target_id FROM briefly_admin.run LIMIT 1").fetchone() or ("",)
    return str(found)
