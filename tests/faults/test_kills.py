"""SIGKILL in the middle: whoever dies, the run ends by itself, and its data are those of an undisturbed run."""

from collections.abc import Callable

import psycopg

from tests.faults.harness import ANA, Field, Undisturbed
from tests.faults.processes import until
from tests.faults.stored import opened

_END_BACKENDS = (
    "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


def test_no_phase_of_a_run_needs_its_sessions_to_last(
    field: Field, undisturbed: Undisturbed, superuser_database: Callable[[str], str]
) -> None:
    field.use(LEASE_SECONDS="30")
    field.worker()
    field.listening(1)
    run = field.migrate()
    with psycopg.connect(superuser_database(field.environ["TARGET_DATABASE_URL"]), autocommit=True) as superuser:
        for phase in ("validate", "backup", "expand", "migrate", "constrain", "verify"):
            field.in_phase(run, phase)
            superuser.execute(_END_BACKENDS)
    assert field.ends(run).attempt == 1
    undisturbed.require_same(field, run)


def test_a_run_outlives_a_worker_in_every_other_phase(field: Field, undisturbed: Undisturbed) -> None:
    field.clock()
    field.worker()
    field.listening(1)
    with field.held("DATABASE_URL", "briefly_admin.baseline", "EXCLUSIVE"):
        run = field.migrate()
        field.worker()
        field.in_phase(run, "backup")
        field.waits_for("DATABASE_URL")
        (lost,) = field.ask("SELECT id FROM briefly_admin.backup WHERE state = 'writing'")
        field.led(run).kill()
    assert not field.services.backups.list(ANA)
    field.in_phase(run, "migrate")
    with field.held("TARGET_DATABASE_URL", "public.user_settings", "ACCESS SHARE"):
        field.worker()
        field.in_phase(run, "constrain")
        made = "SELECT name FROM briefly_admin.schema_change WHERE state = 'made' AND \"table\" = 'usage_logs' AND kind = 'not_null'"
        until(lambda: field.ask(made), what="schema changes")
        field.waits_for("TARGET_DATABASE_URL")
        field.led(run).kill()
    with field.held("DATABASE_URL", "briefly_admin.baseline", "ACCESS EXCLUSIVE"):
        field.worker()
        field.in_phase(run, "verify")
        field.waits_for("DATABASE_URL")
        field.led(run).kill()
    field.ends(run)
    undisturbed.require_same(field, run)
    (backup,) = field.services.backups.list(ANA)
    assert (backup.id == str(lost), backup.run_id, backup.restorable) == (False, run.id, True)
    opened(field, backup)
    field.services.sweeping.purge()
    assert field.ask("SELECT state FROM briefly_admin.backup WHERE shred_key IS NOT NULL") == ["proven"]
    store = field.logs / "backups"
    assert not [path for path in store.rglob("*") if str(lost) in str(path)]
