from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from briefly_admin.domain.checks import Check, Colour, worst
from briefly_admin.domain.config import RunConfig
from briefly_admin.domain.errors import PreflightFailed, Unavailable
from briefly_admin.domain.runs import RunKind
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.preflight import BackupFacts, PreflightInputs, check_all, phase, run
from briefly_admin.engine.preflight.servers import of_server
from briefly_admin.engine.sampledata import create
from briefly_admin.engine.target import Target
from briefly_admin.plans.unified import UNIFIED
from briefly_admin.vault.keys import MasterKeys
from briefly_admin.vault.stores.directory import DirectoryStore
from briefly_admin.vault.vault import Vault
from tests.engine.journal_memory import MemoryJournal, RunRecord

NOW = datetime(2026, 3, 1, tzinfo=UTC)
NAMES = [table.name for table in UNIFIED.tables]


@pytest.fixture
def healthy(target_database: str) -> Iterator[psycopg.Connection[Any]]:
    """A session on a target with clean sample data and usual constraints; statements are committed at once."""
    create(Target(target_database), UNIFIED)
    with psycopg.connect(target_database, autocommit=True) as connection:
        yield connection


@pytest.fixture
def inputs(target_database: str, tmp_path: Path) -> PreflightInputs:
    return PreflightInputs(
        plan=UNIFIED, target=Target(target_database), ping_app_database=lambda: None, store=DirectoryStore(tmp_path),
        key_sizes={"key-1": 32}, workers=lambda: 2, active_run="", backups=BackupFacts(newest=NOW - timedelta(hours=1)),
        now=lambda: NOW,
    )  # fmt: skip


def _by_name(checks: list[Check]) -> dict[str, Check]:
    assert len({check.name for check in checks}) == len(checks)
    return {check.name: check for check in checks}


def _only(checks: list[Check], colour: Colour) -> Check:
    """The one check that is not green; it is of this colour and says what to do."""
    (check,) = [check for check in checks if check.colour is not Colour.GREEN]
    assert check.colour is colour, check
    assert check.found
    assert check.remedy
    return check


def test_a_healthy_database_is_green(healthy: Any, inputs: PreflightInputs) -> None:
    checks = check_all(inputs)
    assert worst(checks) is Colour.GREEN, [check for check in checks if check.colour is not Colour.GREEN]
    assert len(_by_name(checks)) >= 22


@pytest.mark.parametrize(
    ("statement", "name", "named"),
    [
        ("DROP TABLE public.oauth_tokens", "tables", "public.oauth_tokens"),
        ("ALTER TABLE public.users DROP COLUMN email", "columns", "public.users.email"),
        ("ALTER TABLE public.usage_logs DROP CONSTRAINT usage_logs_pkey", "keys", "public.usage_logs (id)"),
        ("CREATE TABLE public.more () INHERITS (public.usage_logs)", "plain_tables", "public.usage_logs has inheritance children"),
        ("CREATE RULE no_deletes AS ON DELETE TO public.users DO INSTEAD NOTHING", "plain_tables", "public.users has rules"),
        ("ALTER TABLE public.users FORCE ROW LEVEL SECURITY; ALTER TABLE public.users ENABLE ROW LEVEL SECURITY", "row_security", "public.users"),
        ("ALTER TABLE public.users ALTER COLUMN usage_documents TYPE boolean USING false", "column_types", "public.users"),
        ("REVOKE SELECT ON public.usage_logs FROM CURRENT_USER", "column_types", "may not read public.usage_logs"),
        ("ALTER TABLE public.users DROP COLUMN usage_api_calls; ALTER TABLE public.users ADD COLUMN usage_api_calls int GENERATED ALWAYS AS (1) STORED",
         "column_types", "public.users.usage_api_calls is generated"),
    ],
)  # fmt: skip
def test_what_stops_a_run(healthy: Any, inputs: PreflightInputs, statement: str, name: str, named: str) -> None:
    healthy.execute(statement)
    check = _only(check_all(inputs), Colour.RED)
    assert check.name == name
    assert named in check.found


def test_a_view_in_a_tables_place_is_named(healthy: Any, inputs: PreflightInputs) -> None:
    healthy.execute(
        "ALTER TABLE public.user_settings RENAME TO kept; CREATE VIEW public.user_settings AS SELECT * FROM public.kept"
    )
    checks = _by_name(check_all(inputs))
    assert checks["plain_tables"].colour is Colour.RED
    assert "public.user_settings is a view" in checks["plain_tables"].found


def test_a_partitioned_table_is_named(healthy: Any, inputs: PreflightInputs) -> None:
    healthy.execute("DROP TABLE public.user_settings; CREATE TABLE public.user_settings (id uuid PRIMARY KEY, user_id uuid, key text, value jsonb, "
                    "created_at timestamptz, updated_at timestamptz) PARTITION BY HASH (id)")  # fmt: skip
    checks = _by_name(check_all(inputs))
    assert "public.user_settings is a partitioned table" in checks["plain_tables"].found


def test_missing_columns_with_a_repair_are_tolerated(healthy: Any, inputs: PreflightInputs) -> None:
    healthy.execute(
        "ALTER TABLE public.users DROP COLUMN settings; ALTER TABLE public.document_chunks DROP COLUMN chunk_index"
    )
    checks = check_all(inputs)
    assert worst(checks) is Colour.GREEN
    assert "public.document_chunks.chunk_index" in _by_name(checks)["columns"].found


@pytest.fixture
def stranger(target_database: str, superuser_database: Callable[[str], str]) -> Iterator[str]:
    """Another role's DSN; it may read every table, owns none, and may make schemas."""
    role, password = f"stranger_{uuid4().hex[:8]}", uuid4().hex
    superuser = superuser_database(target_database)
    name = sql.Identifier(role)
    with psycopg.connect(superuser, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(name, sql.Literal(password)))
        connection.execute(
            sql.SQL("GRANT CREATE, CONNECT ON DATABASE {} TO {}").format(
                sql.Identifier(urlsplit(target_database).path[1:]), name
            )
        )
        connection.execute(sql.SQL("ALTER DEFAULT PRIVILEGES FOR ROLE {} GRANT SELECT ON TABLES TO {}").format(
            sql.Identifier(urlsplit(target_database).username or ""), name))  # fmt: skip
    parts = urlsplit(target_database)
    yield parts._replace(netloc=f"{role}:{password}@{parts.hostname or ''}").geturl()
    with psycopg.connect(superuser, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(name))


def test_a_role_that_policies_filter_is_red(stranger: str, healthy: Any, inputs: PreflightInputs) -> None:
    healthy.execute("ALTER TABLE public.chat_messages ENABLE ROW LEVEL SECURITY")
    checks = _by_name(check_all(replace(inputs, target=Target(stranger))))
    assert checks["row_security"].colour is Colour.RED
    assert "public.chat_messages" in checks["row_security"].found
    assert checks["ownership"].colour is Colour.RED
    assert "public.users belongs to" in checks["ownership"].found


def test_a_role_without_rights_on_the_database_is_red(
    stranger: str, healthy: Any, inputs: PreflightInputs, superuser_database: Callable[[str], str]
) -> None:
    parts = urlsplit(stranger)
    with psycopg.connect(superuser_database(inputs.target.dsn), autocommit=True) as connection:
        connection.execute(
            sql.SQL("REVOKE CREATE ON DATABASE {} FROM {}").format(
                sql.Identifier(parts.path[1:]), sql.Identifier(parts.username or "")
            )
        )
        connection.execute("DROP SCHEMA IF EXISTS briefly_migration CASCADE")
    assert _by_name(check_all(replace(inputs, target=Target(stranger))))["rights"].colour is Colour.RED


def test_an_unreachable_server_is_one_red_check(inputs: PreflightInputs) -> None:
    checks = check_all(
        replace(inputs, target=Target("postgresql://someone:hidden-word@127.0.0.1:1/nowhere?connect_timeout=2"))
    )
    check = _only(checks, Colour.RED)
    assert check.name == "target_reachable"
    assert "127.0.0.1/nowhere" in check.found
    assert "hidden-word" not in repr(checks)
    assert "tables" not in _by_name(checks)


@pytest.mark.parametrize(
    ("values", "is_red"),
    [(("google", "google_drive", "azure"), True), (("google", "google_drive", "azure", "microsoft"), False)],
)
def test_a_check_that_refuses_a_repair(
    healthy: Any, inputs: PreflightInputs, values: tuple[str, ...], is_red: bool
) -> None:
    healthy.execute("UPDATE public.oauth_tokens SET provider = 'azure' WHERE provider = 'microsoft'")
    healthy.execute(
        sql.SQL('ALTER TABLE public.oauth_tokens ADD CONSTRAINT "known 100% " CHECK (provider = ANY ({}))').format(
            sql.Literal(list(values))
        )
    )
    checks = check_all(inputs)
    if is_red:
        check = _only(checks, Colour.RED)
        assert check.name == "check_constraints"
        assert "public.oauth_tokens: known 100% " in check.found
    else:
        assert worst(checks) is Colour.GREEN


def test_a_check_over_a_grouped_and_an_aggregate_repair(healthy: Any, inputs: PreflightInputs) -> None:
    healthy.execute(
        "ALTER TABLE public.document_chunks ADD CONSTRAINT few CHECK (chunk_index < 3 OR length(chunk_text) < 0) NOT VALID"
    )
    assert worst(check_all(inputs)) is Colour.GREEN  # no row would change
    healthy.execute(
        "ALTER TABLE public.document_chunks DROP CONSTRAINT few; UPDATE public.document_chunks SET chunk_index = NULL"
    )
    healthy.execute("ALTER TABLE public.document_chunks ADD CONSTRAINT few CHECK (chunk_index < 3)")
    assert _only(check_all(inputs), Colour.RED).name == "check_constraints"


def test_what_is_only_remarked(healthy: Any, inputs: PreflightInputs) -> None:
    healthy.execute("CREATE FUNCTION public.nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'")
    healthy.execute("CREATE TRIGGER touch BEFORE UPDATE ON public.users FOR EACH ROW EXECUTE FUNCTION public.nothing()")
    healthy.execute("CREATE TABLE public.invoices (id int, user_id uuid REFERENCES public.users (id))")
    healthy.execute(
        "INSERT INTO public.usage_logs (id, user_id, action, resource_type, created_at) SELECT gen_random_uuid(), user_id, 'a', 'b', now() FROM public.usage_logs LIMIT 1"
    )
    with pytest.raises(psycopg.errors.UniqueViolation):
        healthy.execute("CREATE UNIQUE INDEX CONCURRENTLY one_each ON public.usage_logs (user_id)")
    checks = [check for check in check_all(inputs) if check.colour is not Colour.GREEN]
    assert {(check.name, check.colour) for check in checks} == {
        ("triggers", Colour.AMBER), ("outside_references", Colour.AMBER), ("invalid_indexes", Colour.AMBER),
    }  # fmt: skip
    texts = " ".join(check.found for check in checks)
    assert "touch" in texts
    assert "public.invoices" in texts
    assert "one_each" in texts


def _unavailable() -> int:
    raise Unavailable("Redis does not answer.", remedy="Start it.")


def _broken() -> None:
    raise RuntimeError("hidden-word")


@pytest.mark.parametrize(
    ("change", "name", "colour"),
    [
        ({"key_sizes": {}}, "backup_keys", Colour.RED),
        ({"key_sizes": {"key-1": 32, "old": 31}}, "backup_keys", Colour.RED),
        ({"ping_app_database": _broken}, "app_database", Colour.RED),
        ({"workers": lambda: 0}, "workers", Colour.AMBER),
        ({"workers": _unavailable}, "workers", Colour.AMBER),
        ({"active_run": "Run 7"}, "active_run", Colour.AMBER),
        ({"active_run": "Run 7", "starting": True}, "active_run", Colour.RED),
        ({"backups": BackupFacts()}, "newest_backup", Colour.AMBER),
        ({"backups": BackupFacts(newest=NOW - timedelta(days=3))}, "newest_backup", Colour.AMBER),
        ({"store_is_kept": False}, "store_kept", Colour.RED),
    ],
)
def test_what_is_around(
    healthy: Any, inputs: PreflightInputs, change: dict[str, Any], name: str, colour: Colour
) -> None:
    check = _only(check_all(replace(inputs, **change)), colour)
    assert check.name == name
    assert "hidden-word" not in repr(check)


class _FullStore(DirectoryStore):
    """A directory on a disk that is almost full."""

    def free_bytes(self) -> int:
        return 1


def test_a_store_without_room_is_red(healthy: Any, inputs: PreflightInputs, tmp_path: Path) -> None:
    assert _only(check_all(replace(inputs, store=_FullStore(tmp_path))), Colour.RED).name == "store_room"


def _context(target_database: str, store: Path, journal: MemoryJournal) -> RunContext:
    vault = Vault(DirectoryStore(store), MasterKeys({"key-1": bytes(range(32))}))
    return RunContext(
        run_id=uuid4(), attempt=1, kind=RunKind.MIGRATION, plan=UNIFIED, target=Target(target_database), vault=vault,
        journal=journal, report=lambda _: None, read_config=RunConfig,
    )  # fmt: skip


def test_the_phase(healthy: Any, target_database: str, tmp_path: Path) -> None:
    journal = RunRecord().next_attempt()
    result = run(_context(target_database, tmp_path, journal))
    assert result["colour"] == "green"
    healthy.execute("DROP TABLE public.user_settings; ALTER TABLE public.users DROP COLUMN email")
    with pytest.raises(PreflightFailed, match=r"public\.user_settings.*public\.users\.email") as failed:
        run(_context(target_database, tmp_path, journal))
    assert "TARGET_DATABASE_URL" in failed.value.remedy


def test_a_session_lost_between_two_checks_is_one_red_check_and_looked_at_again(
    healthy: Any, inputs: PreflightInputs, tmp_path: Path, superuser_database: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    ends = [True, True, False]

    def end_the_session(connection: psycopg.Connection[Any], target: Target) -> Iterator[Check]:
        yield from of_server(connection, target)
        with psycopg.connect(superuser_database(target.dsn), autocommit=True) as superuser:
            if ends.pop(0):
                superuser.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))

    monkeypatch.setattr(phase, "of_server", end_the_session)
    found = [check for check in check_all(inputs) if check.colour is Colour.RED]
    assert [check.name for check in found] == ["target_lost"]
    assert "SQLSTATE 57P01" in found[0].found
    context = _context(inputs.target.dsn, tmp_path, RunRecord().next_attempt())
    assert run(replace(context, read_config=lambda: RunConfig(retry_delay=1)))["colour"] == "green"
    assert ends == []
