"""Staging a sealed backup into a scratch schema of a real PostgreSQL."""

from dataclasses import replace
from pathlib import Path

import pytest

from briefly_admin.domain.errors import BackupDamaged, BackupExpired, Fenced, NotFound, Refused, Stopped
from briefly_admin.domain.manifest import Manifest
from briefly_admin.domain.runs import Phase, RunKind
from briefly_admin.engine import rollback, scratch, staging
from briefly_admin.engine.rollback import selection
from tests.engine.sealed_target import SealedTarget, plan_of

HOSTILE = 'we"ird %s {x} table'


@pytest.fixture
def sealed(target_database: str, tmp_path: Path) -> SealedTarget:
    sealed = SealedTarget(target_database, plan_of("people", HOSTILE), tmp_path / "store")
    sealed.execute(
        "CREATE TYPE mood AS ENUM ('glad', 'sad')",
        'CREATE DOMAIN "short %" AS varchar(5) NOT NULL',
        'CREATE TABLE people (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), email varchar(40) COLLATE "C", n numeric(8,2),'
        " tags text[], mood mood, data jsonb, at timestamptz(3), e vector(3), doubled numeric GENERATED ALWAYS AS (n * 2) STORED,"
        " acl aclitem)",
        'CREATE TABLE "we""ird %s {x} table" ("id" int PRIMARY KEY, "a""b %s {}" "short %")',
        "INSERT INTO people (email, n, tags, mood, data, at, e, acl) SELECT 'p' || i, i, ARRAY['a', NULL], 'sad',"
        " '{\"a\": 1.00}', now(), ARRAY[i, 1, 2]::vector, '=r/postgres' FROM generate_series(1, 300) i",
        "INSERT INTO people VALUES (gen_random_uuid(), NULL, 'NaN', '{}', NULL, 'null', 'infinity', NULL)",
        'INSERT INTO "we""ird %s {x} table" VALUES (1, \'a%s\'), (2, \'{}\')',
    )  # fmt: skip
    return sealed


def test_stages_every_row_and_column_type(sealed: SealedTarget) -> None:
    sealed.back_up()
    context = sealed.context()
    result = rollback.run_phase(context, Phase.STAGE)
    assert {name: table["rows"] for name, table in result["tables"].items()} == {"people": 301, HOSTILE: 2}
    [schema] = sealed.scratches()
    assert schema == f"briefly_scratch_{context.run_id.hex}_1"
    assert sealed.query(f"TABLE {schema}.t1") == sealed.query('TABLE "we""ird %s {x} table"')
    assert sealed.query(
        f"SELECT count(*) FROM {schema}.t0 JOIN people USING (id, email, n, tags, mood, data, at, e, doubled) WHERE email > ''"
    ) == [(300,)]
    types = "SELECT attname, format_type(atttypid, atttypmod), attcollation FROM pg_attribute WHERE attnum > 0 AND attrelid = '{}'::regclass"
    staged, real = (sealed.query(types.format(name)) for name in (f"{schema}.t0", "people"))
    assert staged[:-1] == real[:-1]
    assert sealed.query(f"SELECT relpersistence::text FROM pg_class WHERE oid = '{schema}.t0'::regclass") == [("u",)]
    assert sealed.progress[-1].tables[0].table == "people"


def test_staging_again_replaces_the_earlier_scratch(sealed: SealedTarget) -> None:
    sealed.back_up()
    for attempt in (1, 2):
        context = sealed.context()
        rollback.run_phase(context, Phase.STAGE)
        rollback.run_phase(context, Phase.STAGE)
        assert sealed.scratches() == [scratch.scratch_schema(context.run_id, attempt)]


def test_an_older_attempt_leaves_a_newer_scratch_alone(sealed: SealedTarget) -> None:
    sealed.back_up()
    old, new = sealed.context(), sealed.context()
    rollback.run_phase(new, Phase.STAGE)
    with pytest.raises(Fenced):
        rollback.run_phase(old, Phase.STAGE)
    assert sealed.scratches() == [scratch.scratch_schema(new.run_id, new.attempt)]


def test_an_older_preview_gives_way_to_a_newer_one(sealed: SealedTarget) -> None:
    sealed.back_up()
    old, new = sealed.context(RunKind.PREVIEW), sealed.context(RunKind.PREVIEW)
    rollback.run_phase(new, Phase.STAGE)
    with pytest.raises(Fenced):
        rollback.run_phase(old, Phase.STAGE)
    assert sealed.scratches() == [scratch.scratch_schema(new.run_id, new.attempt)]


@pytest.mark.parametrize("stream", [1, 2, 3])
def test_a_damaged_stream_stops_and_leaves_nothing(sealed: SealedTarget, stream: int) -> None:
    sealed.back_up()
    sealed.damage(stream)
    before = sealed.dump()
    with pytest.raises(BackupDamaged) as caught:
        rollback.run_phase(sealed.context(), Phase.STAGE)
    assert f"stream {stream}" in str(caught.value)
    assert (sealed.scratches(), sealed.dump()) == ([], before)


def test_rows_that_are_not_the_manifests_are_damage(sealed: SealedTarget) -> None:
    def other_digest(manifest: Manifest) -> Manifest:
        first, second = manifest.tables
        wrong = replace(first.digest, words=(1, 2, 3, 4))
        return replace(manifest, tables=(replace(first, digest=wrong), second))

    sealed.back_up(change=other_digest)
    with pytest.raises(BackupDamaged, match="not those that were backed up"):
        rollback.run_phase(sealed.context(), Phase.STAGE)
    assert sealed.scratches() == []


def test_emptied_tables_are_noticed(sealed: SealedTarget) -> None:
    sealed.back_up()
    context = sealed.context()
    rollback.run_phase(context, Phase.STAGE)
    chosen = selection.choose(context)
    with sealed.target.session(bulk=True) as connection:
        arguments = (connection, context.run_id, chosen.reader.manifest, chosen.tables)
        assert staging.still_whole(*arguments) is not None
        sealed.execute(f"TRUNCATE {sealed.scratches()[0]}.t1")
        assert staging.still_whole(*arguments) is None
        sealed.execute(f"DROP TABLE {sealed.scratches()[0]}.t1")
        assert staging.still_whole(*arguments) is None


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("ALTER TABLE people DROP COLUMN data", "column data is gone"),
        ("ALTER TABLE people ALTER email TYPE text", "column email is text, and was pg_catalog"),
        ('ALTER TABLE people ALTER email TYPE varchar(41) COLLATE "C"', "column email is character varying(41)"),
        ('ALTER TABLE people ALTER email TYPE varchar(40) COLLATE "POSIX"', "column email has another collation"),
        ("ALTER TABLE people ALTER doubled DROP EXPRESSION", "column doubled is generated in another way"),
        ("ALTER TABLE people DROP CONSTRAINT people_pkey", "no unique index stands on its key"),
        ("ALTER TABLE people RENAME TO persons", "public.people is gone"),
        ("ALTER TABLE people RENAME TO persons; CREATE VIEW people AS TABLE persons", "no plain table"),
    ],
)  # fmt: skip
def test_a_table_that_does_not_fit_is_refused_before_anything(sealed: SealedTarget, statement: str, named: str) -> None:
    sealed.back_up()
    sealed.execute(statement)
    with pytest.raises(Refused) as caught:
        rollback.run_phase(sealed.context(), Phase.STAGE)
    assert named in caught.value.message
    assert sealed.scratches() == []


@pytest.mark.parametrize(
    ("change", "named"),
    [({"database": "other"}, "database"), ({"plan": "other"}, "plan"), ({"plan_fingerprint": "ab" * 32}, "version"),
     ({"encoding": "LATIN1"}, "encoding")],
)  # fmt: skip
def test_a_backup_of_something_else_is_refused(sealed: SealedTarget, change: dict[str, str], named: str) -> None:
    sealed.back_up(change=lambda manifest: replace(manifest, **change))  # type: ignore[arg-type]
    with pytest.raises(Refused, match=named):
        rollback.run_phase(sealed.context(), Phase.STAGE)
    assert sealed.scratches() == []


def test_unknown_tables_and_backups_and_shredded_ones(sealed: SealedTarget) -> None:
    sealed.back_up()
    with pytest.raises(NotFound, match="no table nothing"):
        rollback.run_phase(sealed.context(tables=["people", "nothing"]), Phase.STAGE)
    with pytest.raises(NotFound):
        rollback.run_phase(sealed.context(backup_id="00000000-0000-4000-8000-000000000000"), Phase.STAGE)
    sealed.migration.backups[sealed.backup_id]["shred_key"] = None
    with pytest.raises(BackupExpired):
        rollback.run_phase(sealed.context(), Phase.STAGE)


def test_a_stop_in_the_middle_leaves_nothing(sealed: SealedTarget) -> None:
    sealed.back_up()
    context = replace(sealed.context(), should_stop=lambda: "cancel" if sealed.progress else None)
    with pytest.raises(Stopped):
        rollback.run_phase(context, Phase.STAGE)
    assert sealed.scratches() == []
