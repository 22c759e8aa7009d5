"""What a preview left staged: there for a rollback for an hour, and never longer than the backup can be read."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from briefly_admin.domain.errors import Refused
from briefly_admin.domain.runs import RunKind, RunState
from briefly_admin.engine import scratch
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.identity import identify
from briefly_admin.services.views import RunView
from tests.services.conftest import Stage
from tests.services.keeping import KeptBackup, keep


@pytest.fixture
def backup(stage: Stage) -> KeptBackup:
    """A small one, of the stage's target."""
    kept = keep(stage, "one")
    with psycopg.connect(stage.app_url) as connection:
        connection.execute("UPDATE briefly_admin.backup SET target_id = %s", (identify(stage.servers.target),))
    return kept


def stages(context: RunContext) -> dict[str, Any]:
    with context.target.session(bulk=True) as connection:
        scratch.create_scratch(connection, context.run_id, context.attempt)
    return {"preview": {"tables": {}}}


def previewed(stage: Stage, backup: KeptBackup, work: Callable[[RunContext], dict[str, Any]] = stages) -> RunView:
    return stage.lead(stage.services.runs.preview(stage.olga, backup.name), work)


def left(stage: Stage) -> list[str]:
    """The ids of the runs that have a scratch schema, sorted."""
    with stage.servers.target.session() as connection:
        query = "SELECT split_part(nspname, '_', 3)::uuid::text FROM pg_namespace WHERE nspname ~ '^briefly_scratch_'"
        return sorted(name for (name,) in connection.execute(query))


def swept(stage: Stage, **later: float) -> list[str]:
    """What is left when the clock was there, so much later."""
    stage.clock.move(**later)
    stage.services.sweeping.purge()
    return left(stage)


def test_it_goes_an_hour_after_the_end(stage: Stage, backup: KeptBackup) -> None:
    first = previewed(stage, backup)
    with psycopg.connect(stage.app_url) as connection:
        connection.execute("UPDATE briefly_admin.run SET completed_at = completed_at - interval '30 minutes'")
    second = previewed(stage, backup)
    assert first.state is second.state is RunState.COMPLETED
    assert swept(stage, minutes=29) == sorted([first.id, second.id])
    assert swept(stage, minutes=2) == [second.id]
    assert swept(stage, minutes=30) == []
    events = stage.services.audit.list(stage.vito, action="scratch.sweep")
    assert [(event.actor, event.object) for event in events] == [("clock", second.id), ("clock", first.id)]


def test_it_stays_for_an_active_rollback_that_names_it(stage: Stage, backup: KeptBackup) -> None:
    named, other = previewed(stage, backup), previewed(stage, backup)
    rollback = stage.services.runs.rollback(
        stage.ana, backup.name, confirm=True, preview_id=named.id, reason="Wrong tiers."
    )
    assert rollback.kind is RunKind.ROLLBACK
    assert swept(stage, hours=2) == [named.id]
    assert other.id not in left(stage)
    stage.services.runs.cancel(stage.ana, rollback.id)
    assert swept(stage) == []


@pytest.mark.parametrize("deleted", [True, False], ids=["deleted", "expired"])
def test_it_goes_with_the_key_of_its_backup(stage: Stage, backup: KeptBackup, deleted: bool) -> None:
    another = keep(stage, "two")
    with psycopg.connect(stage.app_url) as connection:
        connection.execute("UPDATE briefly_admin.backup SET target_id = %s", (identify(stage.servers.target),))
    previewed(stage, backup)
    stays = previewed(stage, another)
    if deleted:
        stage.services.backups.delete(stage.ana, backup.name)
    else:
        with psycopg.connect(stage.app_url) as connection:
            connection.execute(
                "UPDATE briefly_admin.backup SET expires_at = %s WHERE id = %s", (stage.clock.time, backup.id)
            )
    assert swept(stage, minutes=1) == [stays.id]


def test_a_failed_one_leaves_nothing(stage: Stage, backup: KeptBackup) -> None:
    def broken(context: RunContext) -> dict[str, Any]:
        stages(context)
        raise Refused("The tables do not fit.")

    assert previewed(stage, backup, broken).state is RunState.FAILED
    assert swept(stage) == []


def test_a_cancelled_one_leaves_nothing(stage: Stage, backup: KeptBackup) -> None:
    def killed(context: RunContext) -> dict[str, Any]:
        stages(context)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        previewed(stage, backup, killed)
    [run_id] = swept(stage)
    stage.services.runs.cancel(stage.olga, run_id)
    assert swept(stage) == [], "nobody goes on with it"
