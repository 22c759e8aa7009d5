import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from marshmallow import Schema, fields, validate
from psycopg import sql

from briefly_admin.domain.config import RunConfig
from briefly_admin.domain.errors import Fenced, Refused, RunFailed, Stopped, Unavailable
from briefly_admin.domain.partitions import Claimed, Partition, PartitionState, PartitionView
from briefly_admin.domain.progress import Progress
from briefly_admin.domain.records import QuarantinedRow
from briefly_admin.domain.runs import Phase, RunKind
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.sampledata import create
from briefly_admin.engine.sharing import help_out
from briefly_admin.engine.target import Target
from briefly_admin.engine.validate import AGAIN, STEP, examine_shared, examine_tables, run
from briefly_admin.engine.validate.examine import read_catalog
from briefly_admin.engine.validate.shared import partitions
from briefly_admin.plans.base import AggregateRepair, Column, ForeignKey, Plan, Relation, Repair, Table, Unique
from briefly_admin.plans.unified import UNIFIED
from briefly_admin.vault.keys import MasterKeys
from briefly_admin.vault.stores.directory import DirectoryStore
from briefly_admin.vault.vault import Vault
from tests.engine.journal_memory import MemoryJournal, RunRecord

Session = psycopg.Connection[Any]
STEPS = {step.name: step for step in (STEP, AGAIN)}
LAST = 3000
"""The greatest key of the data."""

Part = Schema.from_dict({
    "id": fields.Integer(required=True, strict=True),
    "mail": fields.Email(allow_none=True),
    "tier": fields.String(required=True, validate=validate.OneOf(["free", "pro"])),
    "parent": fields.Integer(allow_none=True, strict=True),
    "per % cent": fields.Integer(strict=True, validate=validate.Range(min=0)),
})  # fmt: skip
PARTS = Table(
    'pa "rts" %', Part,
    (Column("id", "integer"), Column("mail", "text"), Column("tier", "text"), Column("parent", "integer"),
     Column("per % cent", "integer")),
    repairs=(Repair("tier", "coalesce({tier}, 'free')", "an empty tier becomes 'free'"),),
    foreign_keys=(ForeignKey("parent", 'pa "rts" %'),),
    uniques=(Unique(("mail",)),),
    relations=(Relation("own", "parent", "notice", "parts of themselves", {"parts": 'pa "rts" %'},
                        "SELECT t.id AS key FROM {parts} AS t WHERE t.parent = t.id"),),
)  # fmt: skip
OWNERS = Table(
    "owners", Schema.from_dict({"id": fields.Integer(strict=True), "parts": fields.Integer(strict=True)}),
    (Column("id", "integer"), Column("parts", "integer")),
    repairs=(AggregateRepair("parts", PARTS.name, "parent", "count(*)", "0", "a missing count is counted"),),
)  # fmt: skip
PLAN = Plan("parts", "Parts", "", (OWNERS, PARTS))


@pytest.fixture
def connection(target_database: str) -> Iterator[Session]:
    """About 3,000 rows on dozens of pages; each rule is broken, some of them by more rows than samples are kept."""
    with Target(target_database).session(bulk=True) as session:
        session.execute('CREATE TABLE public."pa ""rts"" %" '
                        '(id int PRIMARY KEY, mail text, tier text, parent int, "per % cent" int)')  # fmt: skip
        session.execute("CREATE TABLE public.owners (id int PRIMARY KEY, parts int)")
        session.execute("INSERT INTO public.owners SELECT n, nullif(n % 3, 0) FROM generate_series(1, 300) AS n")
        session.execute(
            'INSERT INTO public."pa ""rts"" %" SELECT n, CASE WHEN n % 10 = 0 THEN \'none\' || n WHEN n % 500 = 1 THEN '
            "'twice@b.co' ELSE repeat('m', 40) || n || '@b.co' END, CASE n % 7 WHEN 0 THEN NULL ELSE 'free' END, "
            "CASE WHEN n % 900 = 5 THEN n WHEN n % 1000 = 6 THEN -1 END, CASE WHEN n % 333 = 0 THEN -n ELSE n END "
            f"FROM generate_series(1, {LAST}) AS n"
        )
        session.execute("ANALYZE")
        yield session


@pytest.fixture
def record() -> RunRecord:
    return RunRecord()


@pytest.fixture
def context(connection: Session, target_database: str, tmp_path: Path, record: RunRecord) -> RunContext:
    """The leader's, of a run with three workers."""
    assert connection
    return RunContext(
        run_id=record.run_id, attempt=1, kind=RunKind.VALIDATION, plan=PLAN, target=Target(target_database),
        vault=Vault(DirectoryStore(tmp_path), MasterKeys({"key-1": bytes(range(32))})), journal=record.next_attempt(),
        report=lambda _: None, read_config=lambda: RunConfig(workers=3),
    )  # fmt: skip


def _helper(context: RunContext, record: RunRecord, worker: str = "test:2", **changes: Any) -> RunContext:
    """Another worker of the attempt, impatient where there is nothing to do."""
    journal = MemoryJournal(record, record.attempt, worker=worker)
    return replace(context, journal=journal, sleep=lambda seconds: time.sleep(seconds / 20), **changes)


def _left(helper: RunContext) -> str:
    """A worker that cannot help: why it leaves its partition to others."""
    with pytest.raises(Unavailable) as caught:
        help_out(helper, STEPS)
    return caught.value.message


def _once(action: Callable[[], object]) -> Callable[[], None]:
    """For `ask_help`, which the leader calls before it claims anything, and again later."""
    asked: list[bool] = []

    def ask() -> None:
        if not asked:
            asked.append(True)
            action()

    return ask


def _views(record: RunRecord, step: str = "validate") -> Sequence[PartitionView]:
    return [row.view for row in record.partitions.steps.get(step, [])]


def _with_relation(query: str) -> Plan:
    relation = Relation("odd", "id", "notice", "odd", {"parts": PARTS.name}, query)
    return replace(PLAN, tables=(OWNERS, replace(PARTS, relations=(relation,))))


SLOW = _with_relation("SELECT t.id AS key FROM {parts} AS t WHERE t.id = 1 AND pg_sleep(60) IS NOT NULL")


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_findings_do_not_depend_on_workers_or_ranges(
    context: RunContext, record: RunRecord, connection: Session, workers: int
) -> None:
    helpers = [
        threading.Thread(target=help_out, args=(_helper(context, record, f"test:{n}"), STEPS))
        for n in range(2, workers + 1)
    ]
    context = replace(
        context, read_config=lambda: RunConfig(workers=workers),
        ask_help=_once(lambda: list(map(threading.Thread.start, helpers))),
    )  # fmt: skip
    shared = examine_shared(context, large=1)
    for helper in helpers:
        helper.join()
    assert shared == examine_tables(connection, PLAN)
    assert len(shared.findings) == 7
    assert max(finding.count for finding in shared.findings) > 300
    cut = sum(
        view.partition.table == PARTS.name and view.partition.range["part"] == "records" for view in _views(record)
    )
    assert cut == 1 if workers == 1 else cut >= 3 * workers


def test_the_unified_plan_in_parts(context: RunContext, record: RunRecord, target_database: str) -> None:
    create(Target(target_database), UNIFIED, scale=5, dirty=10)
    context = replace(context, plan=UNIFIED)
    helper = _helper(context, record)
    shared = examine_shared(replace(context, ask_help=_once(lambda: help_out(helper, STEPS))), large=1)
    assert {view.worker for view in _views(record)} == {"test:2"}  # the leader only gathered
    with Target(target_database).session(bulk=True) as session:
        assert shared == examine_tables(session, UNIFIED)


def test_everybody_reads_the_leaders_instant(context: RunContext, record: RunRecord, connection: Session) -> None:
    before = examine_tables(connection, PLAN)

    def ask() -> None:
        connection.execute('DELETE FROM public."pa ""rts"" %" WHERE id > 10')
        assert help_out(_helper(context, record), STEPS) == len(_views(record))

    assert examine_shared(replace(context, ask_help=_once(ask)), large=1) == before
    assert examine_tables(connection, PLAN) != before


def test_quarantined_rows_are_left_aside_by_helpers_too(
    context: RunContext, record: RunRecord, connection: Session
) -> None:
    aside = [(str(n),) for n in range(10, LAST + 1, 10)]
    context.journal.save_quarantine(QuarantinedRow(PARTS.name, key, "email", "no mail") for key in aside)
    helper = _helper(context, record)
    asking = replace(context, ask_help=_once(lambda: help_out(helper, STEPS)))
    expected = examine_tables(connection, PLAN, exclude={PARTS.name: aside})
    assert "email" not in {finding.rule for finding in expected.findings}
    assert examine_shared(asking, step=AGAIN, except_quarantined=True) == expected
    assert examine_shared(context, connection, step=AGAIN, except_quarantined=True) == expected
    assert {view.worker for view in _views(record, "revalidate")} == {"test:1"}
    assert "'10'" not in repr([row.shared for row in record.partitions.steps["revalidate"]])


def test_what_is_cut(context: RunContext, connection: Session) -> None:
    catalog = read_catalog(connection, PLAN)
    alone = partitions(PLAN, catalog, 1, large=1)
    whole = {"part": "records", "ctid_from": "", "ctid_to": "", "rules": []}
    keyed = whole | {"rules": [0]}  # one parent a row
    assert alone == [
        Partition("owners", 0, whole), Partition(PARTS.name, 0, keyed),
        Partition(PARTS.name, 1, {"part": "across", "rules": [1, 2]}),
    ]  # fmt: skip
    small = partitions(PLAN, catalog, 3)
    assert [part.range for part in small] == [
        whole, keyed, {"part": "across", "rules": [1]}, {"part": "across", "rules": [2]},
    ]  # fmt: skip
    cut = partitions(PLAN, catalog, 3, large=1)
    assert [part.range for part in cut if part.table == "owners"] == [whole]  # its aggregate reads all of the child
    bounds = [(part.range["ctid_from"], part.range["ctid_to"]) for part in cut if part.range["part"] == "records"][1:]
    assert 9 <= len(bounds) <= 12  # whole pages
    assert (bounds[0][0], bounds[-1][1]) == ("", "")
    assert [low for low, _ in bounds[1:]] == [high for _, high in bounds[:-1]]


def test_progress_names_rows_and_workers(context: RunContext, record: RunRecord) -> None:
    seen = list[Progress]()
    result = run(replace(context, report=seen.append, plan=_with_relation(
        "SELECT t.id AS key FROM {parts} AS t WHERE t.id = 1 AND pg_sleep(1.6) IS NOT NULL")))  # fmt: skip
    assert result["rows"] == {"owners": 300, PARTS.name: LAST}
    assert (seen[-1].done, seen[-1].total, seen[-1].eta_seconds, seen[-1].workers) == (3300, 3300, 0.0, 0)
    # In the middle of a long statement, too: that is also what keeps the partition's lease.
    assert sum(progress.workers == 1 for progress in seen) >= 2
    assert {progress.phase for progress in seen} == {Phase.VALIDATE}
    assert record.findings[Phase.VALIDATE]


def _laid_out(context: RunContext, record: RunRecord, shared: dict[str, Any]) -> None:
    with context.target.session() as session:
        parts = partitions(context.plan, read_catalog(session, context.plan), 3)
    context.journal.partitions.lay_out("validate", parts, shared)
    assert _views(record)


def test_a_helper_whose_snapshot_is_gone_leaves_it_to_others(
    context: RunContext, record: RunRecord, connection: Session
) -> None:
    for gone in ("00000003-0000001B-1", "no'snapshot"):
        _laid_out(context, record, {"snapshot": gone})
        assert "cannot be joined" in _left(_helper(context, record))
        assert {view.state for view in _views(record)} == {PartitionState.WAITING}
    assert examine_shared(context) == examine_tables(connection, PLAN)


def test_a_helper_that_cannot_do_it_fails_no_run(context: RunContext, record: RunRecord) -> None:
    odd = "SELECT t.id AS key FROM {parts} AS t WHERE CASE current_setting('application_name') WHEN 'odd' THEN 1 / (t.id - t.id) = 1 END"
    context = replace(context, plan=_with_relation(odd))
    helper = _helper(context, record, target=Target(context.target.dsn, "odd"))
    done = examine_shared(replace(context, ask_help=_once(lambda: _left(helper))))
    assert done.rows[PARTS.name] == LAST
    assert {view.worker for view in _views(record)} == {"test:1", "test:2"}


def test_what_no_worker_can_do_fails_the_run(context: RunContext, record: RunRecord) -> None:
    plan = _with_relation("SELECT t.id AS key FROM {parts} AS t WHERE t.mail::int = 1")
    with pytest.raises(RunFailed, match="InvalidTextRepresentation") as failed:
        run(replace(context, plan=plan))
    assert "none" not in str(failed.value)
    assert [view.state for view in _views(record)].count(PartitionState.FAILED) == 1


def test_a_missing_table_is_named_before_anything_is_laid_out(
    context: RunContext, record: RunRecord, connection: Session
) -> None:
    connection.execute("DROP TABLE public.owners")
    with pytest.raises(Refused, match=r"public\.owners"):
        run(context)
    assert not _views(record)


def test_a_dead_helpers_part_is_done_by_another(context: RunContext, record: RunRecord, connection: Session) -> None:
    lost: list[Claimed | None] = []
    dead = _helper(context, record).journal.partitions

    def ask() -> None:
        lost.append(dead.claim("validate"))
        record.partitions.expire("test:2")

    assert examine_shared(replace(context, ask_help=_once(ask)), large=1) == examine_tables(connection, PLAN)
    assert lost[0]
    with pytest.raises(Fenced):
        dead.note(lost[0], record.partitions.steps["validate"][0].view.count)


def test_a_lost_leaders_session_can_be_tried_again(context: RunContext, record: RunRecord, connection: Session) -> None:
    def kill() -> None:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE application_name = 'lost' AND datname = current_database()"
        )
        assert "cannot be joined" in _left(_helper(context, record))  # its snapshot went with it

    with pytest.raises(Unavailable):
        examine_shared(replace(context, target=Target(context.target.dsn, "lost"), ask_help=_once(kill)))
    assert PartitionState.FAILED not in {view.state for view in _views(record)}
    assert examine_shared(context) == examine_tables(connection, PLAN)


def test_a_long_transaction_outlives_the_databases_timeouts(context: RunContext, connection: Session) -> None:
    settings = ["idle_in_transaction_session_timeout"]
    if connection.info.server_version >= 170_000:
        settings.append("transaction_timeout")
    for name in settings:
        database = sql.Identifier(connection.info.dbname)
        connection.execute(sql.SQL("ALTER DATABASE {} SET {} = '500ms'").format(database, sql.Identifier(name)))
    examined = examine_shared(replace(context, ask_help=_once(lambda: time.sleep(0.9))))
    assert examined.rows == {"owners": 300, PARTS.name: LAST}


def _stopping(reason: str) -> Callable[[], str | None]:
    """Says so half a second after it was asked first."""
    asked: list[float] = []

    def should_stop() -> str | None:
        asked.append(time.monotonic())
        return reason if asked[-1] - asked[0] > 0.5 else None

    return should_stop


def test_a_stop_ends_the_leaders_statement(context: RunContext, record: RunRecord, connection: Session) -> None:
    began = time.monotonic()
    with pytest.raises(Stopped) as stopped:
        run(replace(context, plan=SLOW, should_stop=_stopping("pause")))
    assert stopped.value.reason == "pause"
    assert time.monotonic() - began < 10
    assert _states_of_slow(record) == {PartitionState.WAITING}
    assert _sleeping(connection) == 0


def test_a_stop_ends_a_helpers_statement(context: RunContext, record: RunRecord, connection: Session) -> None:
    helper = _helper(replace(context, plan=SLOW), record, should_stop=_stopping("interrupt"))
    began = time.monotonic()
    with pytest.raises(Stopped) as stopped:
        examine_shared(replace(context, plan=SLOW, ask_help=_once(lambda: help_out(helper, STEPS))))
    assert stopped.value.reason == "interrupt"
    assert time.monotonic() - began < 10
    assert _states_of_slow(record) == {PartitionState.WAITING}
    assert _sleeping(connection) == 0


def test_a_worker_that_lost_its_part_stops_its_statement(
    context: RunContext, record: RunRecord, connection: Session
) -> None:
    timer = threading.Timer(0.5, record.next_attempt)
    timer.start()
    began = time.monotonic()
    with pytest.raises(Fenced):
        run(replace(context, plan=SLOW))
    timer.join()
    assert time.monotonic() - began < 10
    assert _sleeping(connection) == 0


def _states_of_slow(record: RunRecord) -> set[PartitionState]:
    return {v.state for v in _views(record) if v.partition.range == {"part": "across", "rules": [2]}}


def _sleeping(connection: Session) -> int:
    query = sql.SQL(
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%' AND state = 'active' "
        "AND datname = current_database() AND pid <> pg_backend_pid()"
    )
    return int(connection.execute(query).fetchall()[0][0])
