"""Who is in the way of a rollback: named by session, application, user, since when and on which table."""

import re
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from briefly_admin.domain.errors import Unavailable
from briefly_admin.domain.runs import Phase
from briefly_admin.engine import rollback
from briefly_admin.engine.blockers import _holder, holders
from briefly_admin.engine.rollback import restore
from briefly_admin.engine.target import Target
from tests.engine.sealed_target import SealedTarget, plan_of

ODD = 'o"dd %s'


@pytest.fixture
def sealed(target_database: str, tmp_path: Path) -> SealedTarget:
    """Of two tables with rows that differ, one is referred to by a table outside."""
    sealed = SealedTarget(target_database, plan_of("t", ODD), tmp_path / "store")
    sealed.execute(
        "CREATE TABLE t (id int PRIMARY KEY, v text)", 'CREATE TABLE "o""dd %s" (id int PRIMARY KEY)',
        "CREATE TABLE outside (t int REFERENCES t ON DELETE CASCADE)", "CREATE TABLE far (id int)",
        "INSERT INTO t VALUES (1, 'a')",
    )  # fmt: skip
    sealed.back_up()
    sealed.execute("INSERT INTO t VALUES (2, 'b')", "INSERT INTO outside VALUES (2)")
    return sealed


def tried(sealed: SealedTarget, monkeypatch: pytest.MonkeyPatch, statement: str, *, tries: int = 1) -> tuple[str, str]:
    """What a restore says while it waits ('' where it tries but once), and at its end, while 'the shop' holds locks."""
    monkeypatch.setattr(restore, "_LOCK_TRIES", tries)
    context = sealed.context(allow=["public.outside"])
    rollback.run_phase(context, Phase.STAGE)
    with psycopg.connect(sealed.dsn, application_name="the shop") as blocker:
        blocker.execute("SET search_path TO public")
        blocker.execute(statement.encode())
        with pytest.raises(Unavailable) as caught:
            rollback.run_phase(context, Phase.RESTORE)
        who = f"pid {blocker.info.backend_pid} (the shop, user {blocker.info.user}, "
        waiting = sealed.progress[-1].waiting
        assert (who in waiting, who in caught.value.message) == (tries > 1, True)
    return waiting, caught.value.message


def test_a_restore_names_who_holds_its_tables(sealed: SealedTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    statement = 'UPDATE t SET v = \'secret\'; LOCK "o""dd %s" IN SHARE MODE; LOCK outside, far IN SHARE MODE'
    waiting, message = tried(sealed, monkeypatch, statement, tries=2)
    for text in (waiting, message):
        # Not what was asked: that may hold data.
        assert re.search(rf"since [\d :-]{{19}} UTC\) on public\.{re.escape(ODD)}, public\.t\.?$", text)
        assert "secret" not in text
    assert f"others hold locks on the tables: {waiting.split(': ', 1)[1]}" == waiting
    assert "The tables are in use: no lock in 2 tries. In the way: pid " in message


def test_a_restore_names_who_may_hold_rows_around_them(sealed: SealedTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    statement = "SELECT FROM t; SELECT FROM outside FOR UPDATE"  # reading t is in nobody's way
    _, message = tried(sealed, monkeypatch, statement)
    assert message.endswith(" UTC) on public.outside.")


def test_nobody_and_somebody(target_database: str, superuser_database: Callable[[str], str]) -> None:
    target = Target(target_database)
    with psycopg.connect(superuser_database(target_database)) as other, target.session() as connection:
        connection.execute("CREATE TABLE public.t (id int)")
        tables = {("public", "t"): False, ("public", "absent"): True}
        assert holders(connection, tables) == ()
        other.execute("SELECT FROM public.t")
        assert holders(connection, tables) == ()
        [reader] = holders(connection, {("public", "t"): True})
        # Another user's session: when it began is none of our business.
        assert reader == f"pid {other.info.backend_pid} (unknown, user {other.info.user}) on public.t"


def test_a_transaction_that_waits_for_its_second_phase_is_named() -> None:
    """By the words alone: a server takes prepared transactions only where it is set up for them."""
    since = "2025-11-22 12:00:05"
    assert _holder(None, "gid 1", None, None, "shop", since, "public.t") == (
        f"prepared transaction gid 1 (user shop, since {since} UTC) on public.t"
    )
    assert _holder(None, None, None, None, None, None, "a.b, c.d") == "prepared transaction unknown on a.b, c.d"
