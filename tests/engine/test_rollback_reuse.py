"""A rollback that uses what its preview has staged; and stages anew where that is not whole any more."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import sql

from briefly_admin.domain.errors import BackupDamaged, Refused, Stopped
from briefly_admin.domain.runs import Phase, RunKind
from briefly_admin.engine import loading, rollback, scratch
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.sharing import help_out
from briefly_admin.engine.target import Connection, Target
from tests.engine.journal_memory import MemoryJournal, RunRecord
from tests.engine.sealed_target import SealedTarget, plan_of

Rows = list[tuple[Any, ...]]
REST = (Phase.PREVIEW, Phase.RESTORE, Phase.VERIFY)


@pytest.fixture
def sealed(target_database: str, tmp_path: Path) -> SealedTarget:
    """A backup of two tables, both of which were written to since."""
    sealed = SealedTarget(target_database, plan_of("users", "files"), tmp_path / "store")
    sealed.execute(
        "CREATE TABLE users (id int PRIMARY KEY, email text)", "CREATE TABLE files (id int PRIMARY KEY, pad text)",
        "INSERT INTO users SELECT i, 'u' || i FROM generate_series(1, 300) i",
        "INSERT INTO files SELECT i, repeat('x', i) FROM generate_series(1, 300) i",
    )  # fmt: skip
    sealed.back_up()
    sealed.execute("UPDATE users SET email = 'new' WHERE id > 290", "DELETE FROM files WHERE id <= 5")
    return sealed


def previewed(sealed: SealedTarget, **options: Any) -> UUID:
    """A preview that has ended; what is done next is another run's."""
    sealed.preview(**options)
    preview, sealed.run = sealed.run.run_id, RunRecord()
    return preview


def kept(preview: UUID) -> str:
    return scratch.scratch_schema(preview, 1)


def unread(sealed: SealedTarget) -> None:
    """From now on no stream of the backup can be read."""
    for stream in (sealed.root / str(sealed.backup_id) / "streams").glob("*.bma"):
        stream.unlink()


def finish(sealed: SealedTarget, context: RunContext, phases: Sequence[Phase] = REST) -> dict[Phase, dict[str, Any]]:
    """What comes after STAGE; then all is as it was backed up."""
    results = {phase: rollback.run_phase(context, phase) for phase in phases}
    assert sealed.query("SELECT count(*) FROM users WHERE email = 'u' || id") == [(300,)]
    assert sealed.query("SELECT count(*) FROM files WHERE pad = repeat('x', id)") == [(300,)]
    return results


def said(sealed: SealedTarget, words: str) -> bool:
    return any(words in line for _, line, _ in sealed.run.lines)


def test_no_stream_is_read_again(sealed: SealedTarget) -> None:
    preview = previewed(sealed)
    unread(sealed)
    context = sealed.context(preview_id=str(preview))
    result = rollback.run_phase(context, Phase.STAGE)
    assert (result["reused"], list(result["tables"])) == (str(preview), ["users", "files"])
    own = scratch.scratch_schema(context.run_id, 1)
    assert sorted(sealed.scratches()) == sorted([own, kept(preview)])
    tables = f"SELECT relname FROM pg_class WHERE relnamespace = '{own}'::regnamespace AND relkind = 'r' ORDER BY 1"
    assert sealed.query(tables) == [("marks",), ("parts",)]
    results = finish(sealed, context)
    assert results[Phase.RESTORE]["tables"]["users"] == {"same": 290, "update": 10, "insert": 0, "delete": 0}
    assert results[Phase.VERIFY]["verified"]
    assert sealed.scratches() == []
    assert not said(sealed, "staged again")


def test_without_a_preview_all_is_staged_by_the_rollback(sealed: SealedTarget) -> None:
    previewed(sealed)
    unread(sealed)
    with pytest.raises(BackupDamaged):
        rollback.run_phase(sealed.context(), Phase.STAGE)


def test_helpers_compare_what_is_used_again(sealed: SealedTarget) -> None:
    preview = previewed(sealed)
    context = sealed.context(preview_id=str(preview))
    others = {sealed.migration.run_id: sealed.migration}
    helper = replace(context, journal=MemoryJournal(sealed.run, 1, others, worker="test:2"))
    steps = {step.name: step for step in loading.STEPS}

    def ask_help() -> None:
        help_out(helper, steps)

    result = rollback.run_phase(replace(context, ask_help=ask_help), Phase.STAGE)
    assert result["reused"] == str(preview)
    views = [row.view for row in sealed.run.partitions.steps["stage-kept"]]
    assert [(view.partition.table, view.worker) for view in views] == [("users", "test:2"), ("files", "test:2")]
    assert [(t.table, t.total, t.done) for t in sealed.progress[-1].tables] == [
        ("users", 300, 300), ("files", 300, 300)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("TRUNCATE {0}.t0, {0}.t1, {0}.parts", "users is not there whole; files is not there whole"),
        ("UPDATE {0}.t0 SET email = 'forged' WHERE id = 1", "users is not there whole"),
        ("DROP SCHEMA {0} CASCADE", "it is gone"),
        ("UPDATE {0}.marks SET result = '{{\"backup_id\": \"x\"}}'", "it is gone"),
    ],
)  # fmt: skip
def test_what_is_not_whole_is_staged_anew(sealed: SealedTarget, statement: str, why: str) -> None:
    preview = previewed(sealed)
    sealed.execute(statement.format(kept(preview)))
    context = sealed.context(preview_id=str(preview))
    assert rollback.run_phase(context, Phase.STAGE)["reused"] is None
    assert said(sealed, f"cannot be used, and is staged anew: {why}.")
    finish(sealed, context)
    assert sealed.scratches() == []


def test_a_preview_of_some_tables(sealed: SealedTarget) -> None:
    preview = previewed(sealed, tables=["users"])
    assert rollback.run_phase(sealed.context(preview_id=str(preview)), Phase.STAGE)["reused"] is None
    assert said(sealed, "anew: files is not there whole.")
    unread(sealed)
    context = sealed.context(preview_id=str(preview), tables=["users"])
    assert rollback.run_phase(context, Phase.STAGE)["reused"] == str(preview)


@pytest.mark.parametrize("phase", REST[:2])
def test_a_crash_of_the_server_between_two_phases(sealed: SealedTarget, phase: Phase) -> None:
    preview = previewed(sealed)
    context = sealed.context(preview_id=str(preview))
    for done in (Phase.STAGE, Phase.PREVIEW)[: 1 + REST.index(phase)]:
        rollback.run_phase(context, done)
    sealed.execute(f"TRUNCATE {kept(preview)}.t0, {kept(preview)}.t1, {kept(preview)}.parts")
    finish(sealed, sealed.context(preview_id=str(preview)), REST[REST.index(phase) :])
    assert said(sealed, "staged again")
    assert sealed.scratches() == []


def test_the_next_attempt_uses_it_on(sealed: SealedTarget) -> None:
    preview = previewed(sealed)
    unread(sealed)
    context = sealed.context(preview_id=str(preview))
    with sealed.target.session(bulk=True) as connection:
        scratch.create_scratch(connection, context.run_id, context.attempt)  # and dies before it has noted it
    assert rollback.run_phase(sealed.context(preview_id=str(preview)), Phase.STAGE)["reused"] == str(preview)
    finish(sealed, sealed.context(preview_id=str(preview)))


def test_some_of_the_tables_of_one_of_two_previews(sealed: SealedTarget) -> None:
    first, second = previewed(sealed), previewed(sealed)
    unread(sealed)
    sealed.execute(f"TRUNCATE {kept(first)}.t0")
    results = sealed.roll_back(tables=["files"], preview_id=str(first))
    assert results[Phase.STAGE]["reused"] == str(first)
    assert sealed.query("SELECT count(*) FROM files WHERE pad = repeat('x', id)") == [(300,)]
    assert sealed.query("SELECT count(*) FROM users WHERE email = 'new'") == [(10,)]
    assert sealed.scratches() == [kept(second)]


def test_a_rollback_that_fails_leaves_the_previews_tables(sealed: SealedTarget) -> None:
    preview = previewed(sealed)
    sealed.execute("DELETE FROM files WHERE id = 6")
    expected = {"files": {"update": 0, "insert": 5, "delete": 0}}
    with pytest.raises(Refused, match="6 to insert"):
        sealed.roll_back(preview_id=str(preview), expected=expected)
    assert sealed.scratches() == [kept(preview)]


def test_a_preview_that_does_not_come_to_its_end_leaves_nothing(sealed: SealedTarget) -> None:
    context = sealed.context(RunKind.PREVIEW)
    rollback.run_phase(context, Phase.STAGE)
    with pytest.raises(Stopped):
        rollback.run_phase(replace(context, should_stop=lambda: "cancel"), Phase.PREVIEW)
    assert sealed.scratches() == []
    rollback.run_phase(context, Phase.STAGE)
    sealed.execute("ALTER TABLE users DROP COLUMN email")
    with pytest.raises(Refused):
        rollback.run_phase(context, Phase.PREVIEW)
    assert sealed.scratches() == []


class Losing(Target):
    """A target that is lost once, right after `when` has become true of it."""

    @classmethod
    def of(cls, target: Target, when: Callable[[Connection], bool], then: Callable[[], None]) -> Target:
        losing = cls(target.dsn)
        object.__setattr__(losing, "when", when)
        object.__setattr__(losing, "then", [then])
        return losing

    @contextmanager
    def session(self, *, bulk: bool = False) -> Iterator[Connection]:
        with super().session(bulk=bulk) as connection:
            yield connection
            if self.then and self.when(connection):  # type: ignore[attr-defined]
                self.then.pop()()  # type: ignore[attr-defined]
                raise psycopg.OperationalError("the connection is lost")


def test_a_crash_right_after_the_commit_restores_nothing_twice(sealed: SealedTarget) -> None:
    """The answer is lost, and the staged tables with it: staging them anew would drop the mark that it was done."""
    preview = previewed(sealed)
    context = sealed.context(preview_id=str(preview), expected={"users": {"update": 10, "insert": 0, "delete": 0}})
    rollback.run_phase(context, Phase.STAGE)

    def done(connection: Connection) -> bool:
        return connection.execute("SELECT count(*) FROM public.users WHERE email = 'new'").fetchall() == [(0,)]

    def crash() -> None:
        sealed.execute(f"TRUNCATE {kept(preview)}.t0, {kept(preview)}.t1")

    config = replace(context.config, max_retries=1)
    losing = replace(context, target=Losing.of(sealed.target, done, crash), read_config=lambda: config)
    assert rollback.run_phase(losing, Phase.RESTORE)["tables"]["users"]["update"] == 10
    assert said(sealed, "The connection was lost")
    finish(sealed, sealed.context(preview_id=str(preview)))


@pytest.fixture
def reader(sealed: SealedTarget, superuser_database: Callable[[str], str]) -> Iterator[Callable[[str], Rows]]:
    """Asks as a role that by default may read whatever the target's owner makes."""
    name = sql.Identifier(f'odd "%s" {{}} {uuid4().hex}')
    whom = (sql.SQL("PUBLIC"), name)
    with psycopg.connect(superuser_database(sealed.dsn), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {}").format(name))
        for role in whom:
            for what, which in (("ALL", "SCHEMAS"), ("ALL", "TABLES")):
                grant = sql.SQL("ALTER DEFAULT PRIVILEGES FOR ROLE {} GRANT {} ON {} TO {}").format(
                    sql.Identifier(owner(sealed)), sql.SQL(what), sql.SQL(which), role
                )
                connection.execute(grant)

        def ask(query: str) -> Rows:
            connection.execute(sql.SQL("SET ROLE {}").format(name))
            try:
                return connection.execute(query.encode()).fetchall()
            finally:
                connection.execute("RESET ROLE")

        yield ask
        connection.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(name))


def owner(sealed: SealedTarget) -> str:
    return str(sealed.query("SELECT current_user")[0][0])


READABLE = """
SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
WHERE starts_with(nspname, 'briefly_scratch') AND relkind = 'r' AND has_table_privilege(c.oid, 'SELECT, UPDATE, DELETE')
"""


def test_nobody_else_reads_what_is_staged(sealed: SealedTarget, reader: Callable[[str], Rows]) -> None:
    sealed.execute("CREATE TABLE daily (n int)", "INSERT INTO daily VALUES (7)", "ANALYZE daily")
    assert reader("TABLE public.daily") == [(7,)], "the privileges are given by default"
    preview = previewed(sealed)
    context = sealed.context(preview_id=str(preview))
    rollback.run_phase(context, Phase.STAGE)
    own = scratch.scratch_schema(context.run_id, 1)
    for table in (f"{kept(preview)}.t0", f"{kept(preview)}.marks", f"{own}.marks", f"{own}.parts"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            reader(f"TABLE {table}")
    assert reader("SELECT DISTINCT tablename FROM pg_stats WHERE schemaname !~ '^(pg_|inf)'") == [("daily",)]
    assert reader(READABLE) == [(0,)]
    rollback.run_phase(context, Phase.RESTORE)
    assert reader(READABLE) == [(0,)]
