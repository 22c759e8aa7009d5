"""Replays that are interrupted, killed or disturbed: each row is taken out once, and nothing is lost."""

from collections.abc import Callable

import psycopg
import pytest

from briefly_admin.domain.errors import Stopped
from briefly_admin.domain.progress import Progress
from briefly_admin.engine import migrate, replay
from briefly_admin.engine.checkpoints import Checkpoint
from tests.engine.shelved import Shelved, books
from tests.engine.test_replay import CURES

_NOTE = "BEGIN INSERT INTO written VALUES (NEW.id); RETURN NULL; END"
_COUNTING = (
    *CURES,
    "CREATE TABLE written (id int)",
    f"CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ {_NOTE} $$",
    'CREATE TRIGGER note AFTER UPDATE ON "boo""ks %" FOR EACH ROW EXECUTE FUNCTION note()',
)


@pytest.fixture(scope="module")
def migrated(module_databases: Callable[[str], str]) -> Shelved:
    """Migrated once; each test has a copy of the database and of the run's record."""
    shelved = Shelved(module_databases("")).fill()
    shelved.migrate(migrate.run)
    shelved.sql(*_COUNTING)
    return shelved


@pytest.fixture(scope="module")
def target_template(migrated: Shelved) -> str:
    return migrated.dsn


@pytest.fixture
def shelved(migrated: Shelved, target_database: str) -> Shelved:
    return migrated.copied(target_database)


class _Killed(Exception):
    """Stands for SIGKILL: nothing is cleaned up by whoever it hits."""


def at(number: int, work: Callable[[], None]) -> Callable[[Progress], None]:
    """Does `work` when progress is reported for that time."""
    reports = 0

    def report(_: Progress) -> None:
        nonlocal reports
        reports += 1
        if reports == number:
            work()

    return report


def end_sessions(shelved: Shelved) -> None:
    """All of the program's."""
    with psycopg.connect(shelved.dsn) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'briefly-admin'"
            " AND datname = current_database()"
        )


def assert_all_once(shelved: Shelved) -> None:
    assert shelved.rows("SELECT count(*), count(DISTINCT id) FROM written") == [(7, 7)]
    assert shelved.aside() == {}
    assert len(shelved.record.closed) == 10
    assert shelved.rows('SELECT count(*) FROM "boo""ks %" WHERE tier IS NULL OR code <> lower(code)') == [(0,)]


@pytest.mark.parametrize("number", [3, 6])
def test_a_lost_session_is_opened_again(shelved: Shelved, number: int) -> None:
    report = shelved.replay(replay.run, batch_size=2, report=at(number, lambda: end_sessions(shelved)))
    assert (report["looked"], report["changed"], report["replayed"], report["left"]) == (10, 8, 10, 0)
    assert_all_once(shelved)


def test_a_killed_attempt_goes_on_where_it_was(shelved: Shelved) -> None:
    def die() -> None:
        end_sessions(shelved)
        raise _Killed

    with pytest.raises(_Killed):
        shelved.replay(replay.run, batch_size=1, report=at(5, die))
    assert not shelved.record.closed  # the app database heard of nothing
    done = 10 - len(shelved.aside())
    assert 0 < done < 10
    report = shelved.replay(bench=shelved.last)["migrate"]
    assert (report["looked"], report["changed"], report["replayed"], report["left"]) == (10, 8, 10, 0)
    assert report["tables"][1]["changed"] == 7
    assert_all_once(shelved)


def test_a_kill_between_target_and_app_database(shelved: Shelved, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object) -> None:
        raise _Killed

    with monkeypatch.context() as patch:
        patch.setattr(replay, "copy_quarantine", die)
        with pytest.raises(_Killed):
            shelved.replay(replay.run)
    assert shelved.aside() == {}
    assert not shelved.record.closed
    report = shelved.replay(replay.run, bench=shelved.last)
    assert (report["looked"], report["changed"], report["left"]) == (10, 8, 0)
    assert_all_once(shelved)


def test_a_pause_tells_what_was_done_and_is_resumed(shelved: Shelved) -> None:
    asked: list[str] = []
    with pytest.raises(Stopped):
        shelved.replay(
            replay.run, batch_size=1, report=at(4, lambda: asked.append("pause")),
            should_stop=lambda: asked[0] if asked else None,
        )  # fmt: skip
    done = len(shelved.record.closed)
    assert 0 < done == 10 - len(shelved.aside()) < 10
    report = shelved.replay(replay.run, bench=shelved.last)
    assert (report["looked"], report["replayed"]) == (10, 10)
    assert_all_once(shelved)


def test_a_row_that_others_change_meanwhile_is_judged_again(shelved: Shelved, monkeypatch: pytest.MonkeyPatch) -> None:
    """Right when it was validated, wrong again when it is to be repaired."""
    judge, judged = replay._Replay._judge, 0

    def disturbed(self: replay._Replay, state: Checkpoint) -> bool:
        nonlocal judged
        more = judge(self, state)
        judged += 1
        if judged == 1:
            shelved.sql('UPDATE "boo""ks %" SET pages = -9 WHERE id = 3')
        return more

    monkeypatch.setattr(replay._Replay, "_judge", disturbed)
    report = shelved.replay(replay.run, table=books(3)[0][0])
    assert (report["replayed"], report["left"]) == (6, 4)
    assert shelved.aside()[books(3)[0]] == ("range", "pages")
    assert judged > 1
