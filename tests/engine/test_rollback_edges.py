"""Hard cases of a restore on a real PostgreSQL: constraints of every kind, and databases that moved on since."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from briefly_admin.domain.errors import Busy, Refused, RunFailed, Unavailable
from briefly_admin.domain.runs import Phase
from briefly_admin.engine import fence, rollback
from briefly_admin.engine.rollback import restore
from tests.engine.sealed_target import SealedTarget, plan_of

_CATALOG = """
SELECT format('%s %s: %s %s %s', conrelid::regclass, conname, pg_get_constraintdef(oid), convalidated, obj_description(oid, 'pg_constraint'))
  FROM pg_constraint WHERE connamespace = 'public'::regnamespace
UNION ALL SELECT format('%s %s %s %s %s %s %s %s', pg_get_indexdef(c.oid), c.reloptions, c.reltablespace, indisclustered, indisreplident,
    obj_description(c.oid, 'pg_class'), indisvalid, ARRAY(SELECT attstattarget FROM pg_attribute WHERE attrelid = c.oid))
  FROM pg_index JOIN pg_class c ON c.oid = indexrelid WHERE c.relnamespace = 'public'::regnamespace
UNION ALL SELECT format('%s %s %s %s', oid::regclass, relreplident, relrowsecurity, relforcerowsecurity)
  FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
UNION ALL SELECT format('%s.%s %s %s %s', attrelid::regclass, attname, attnotnull, attidentity, attgenerated)
  FROM pg_attribute JOIN pg_class c ON c.oid = attrelid WHERE c.relnamespace = 'public'::regnamespace AND relkind = 'r' AND attnum > 0
UNION ALL SELECT format('%s %s %s', tgrelid::regclass, tgname, tgenabled) FROM pg_trigger WHERE NOT tgisinternal
UNION ALL SELECT format('%s %s', pubname, tablename) FROM pg_publication_tables
UNION ALL SELECT format('%s %s %s', tablename, policyname, qual) FROM pg_policies
"""
"""What a rollback that reverts nothing must leave alone, comments and flags too."""


def target(dsn: str, path: Path, *statements: str, tables: Sequence[str] = ("t",)) -> SealedTarget:
    """A target with these tables, backed up."""
    sealed = SealedTarget(dsn, plan_of(*tables), path / "store")
    sealed.execute(*statements)
    sealed.back_up()
    return sealed


def state(sealed: SealedTarget) -> tuple[object, object]:
    return sealed.dump(), sorted(sealed.query(_CATALOG))


def require_restored(sealed: SealedTarget, *edits: str) -> None:
    """After these edits a rollback leads back to the same bytes and the same catalog."""
    before = state(sealed)
    sealed.execute(*edits)
    assert sealed.dump() != before[0], "the edits changed nothing"
    sealed.roll_back()
    after = state(sealed)
    assert after[0] == before[0]
    assert after[1] == before[1]
    assert sealed.scratches() == []


def loosened(sealed: SealedTarget) -> bool:
    return any("second try" in line for _, line, _ in sealed.run.lines)


_SWAP = (
    "UPDATE t SET v = 'parked' WHERE id = 1",
    "UPDATE t SET v = 'v1' WHERE id = 2",
    "UPDATE t SET v = 'v2' WHERE id = 1",
)
_ROWS = "INSERT INTO t (id, v, live) SELECT i, 'v' || i, i % 5 > 0 FROM generate_series(1, 40) i"
_TABLE = "CREATE TABLE t (id int PRIMARY KEY, v text NOT NULL, live bool NOT NULL DEFAULT true)"


_UNIQUE = (
    "ALTER TABLE {t} ADD CONSTRAINT one{t} UNIQUE (v) INCLUDE (live) WITH (fillfactor = 70); COMMENT ON INDEX one{t} IS 'of the index'; COMMENT ON CONSTRAINT one{t} ON {t} IS 'of it''s'; ALTER TABLE {t} CLUSTER ON one{t}",
    "ALTER TABLE {t} ADD UNIQUE (v) DEFERRABLE; ALTER TABLE {t} ADD UNIQUE NULLS NOT DISTINCT (v, live)",
    "CREATE UNIQUE INDEX a{t} ON {t} (v); ALTER TABLE {t} ADD CONSTRAINT b{t} UNIQUE USING INDEX a{t}; ALTER TABLE {t} REPLICA IDENTITY USING INDEX b{t}; CREATE PUBLICATION p FOR TABLE {t}",
    "CREATE UNIQUE INDEX one{t} ON {t} (v) WHERE live; COMMENT ON INDEX one{t} IS 'partial %'",
    "CREATE UNIQUE INDEX one{t} ON {t} (lower(v) DESC) WITH (fillfactor = 60); ALTER INDEX one{t} ALTER COLUMN 1 SET STATISTICS 7; ALTER TABLE {t} CLUSTER ON one{t}",
    "CREATE FUNCTION whole({t}) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT $1.v'; CREATE UNIQUE INDEX ON {t} (whole({t}.*))",
    "ALTER TABLE {t} ADD w text GENERATED ALWAYS AS (v || '!') STORED; CREATE UNIQUE INDEX ON {t} (w)",
    "ALTER TABLE {t} ADD x text GENERATED ALWAYS AS (v || '?') VIRTUAL; CREATE UNIQUE INDEX ON {t} (v) INCLUDE (live)",
    "ALTER TABLE {t} ADD EXCLUDE USING gist (int4range(right(v, -1)::int, right(v, -1)::int, '[]') WITH &&) WHERE (v ~ '^v[0-9]+$')",
    "ALTER TABLE {t} ADD CONSTRAINT one{t} EXCLUDE (v WITH =); COMMENT ON CONSTRAINT one{t} ON {t} IS 'excluded'",
)


def test_swapped_values_come_back_and_so_do_the_indexes(target_database: str, tmp_path: Path) -> None:
    tables = [f"t{number}" for number in range(len(_UNIQUE))]
    statements = [
        statement.replace("{t}", table)
        for table, how in zip(tables, _UNIQUE, strict=True)
        for statement in (_TABLE.replace("t (", "{t} ("), *how.split(";"), _ROWS.replace("INTO t", "INTO {t}"))
    ]
    sealed = target(target_database, tmp_path, *statements, tables=tables)
    require_restored(sealed, *(edit.replace("UPDATE t", f"UPDATE {table}") for table in tables for edit in _SWAP))
    assert not [line for _, line, _ in sealed.run.lines if "does not step aside" in line]


def test_outside_keys_on_the_index_come_back(target_database: str, tmp_path: Path) -> None:
    actions = ("CASCADE", "SET NULL", "NO ACTION DEFERRABLE INITIALLY DEFERRED", "RESTRICT NOT VALID")
    outside = [
        f"CREATE TABLE o{number} (v text); INSERT INTO o{number} VALUES ('v7'), (NULL);"
        f"ALTER TABLE o{number} ADD CONSTRAINT mine FOREIGN KEY (v) REFERENCES t (v) ON UPDATE CASCADE ON DELETE {action};"
        f"COMMENT ON CONSTRAINT mine ON o{number} IS 'kept'"
        for number, action in enumerate(actions)
    ]
    sealed = target(target_database, tmp_path, _TABLE, "ALTER TABLE t ADD CONSTRAINT one UNIQUE (v)", _ROWS, *outside)
    require_restored(sealed, *_SWAP)
    assert loosened(sealed)
    for number in range(len(actions)):
        assert sealed.query(f"SELECT v FROM public.o{number} ORDER BY 1") == [("v7",), (None,)]


def test_what_others_depend_on_stays_and_is_named(target_database: str, tmp_path: Path) -> None:
    sealed = target(
        target_database, tmp_path, "CREATE TABLE t (id int UNIQUE NOT NULL, v text PRIMARY KEY, live bool)", _ROWS,
        "CREATE VIEW counted AS SELECT v, live, count(*) FROM t GROUP BY v",
    )  # fmt: skip
    sealed.execute(*_SWAP)
    before = state(sealed)
    with pytest.raises(Refused, match=r"t_pkey keeps apart .* something else depends on it") as caught:
        sealed.roll_back()
    assert "v1" not in caught.value.message
    assert (state(sealed), sealed.scratches()) == (before, [])
    assert any("t: t_pkey does not step aside (DependentObjectsStillExist" in line for _, line, _ in sealed.run.lines)
    sealed.execute("DROP VIEW counted")
    sealed.roll_back()
    assert sealed.query("SELECT v FROM t WHERE id = 1") == [("v1",)]


def test_a_function_that_names_a_constraint_does_no_harm(target_database: str, tmp_path: Path) -> None:
    """Its index stays where it is; what is tangled is something else."""
    sealed = target(
        target_database, tmp_path, _TABLE, "ALTER TABLE t ADD CONSTRAINT one UNIQUE (v), ADD mate int REFERENCES t", _ROWS,
        "CREATE FUNCTION put() RETURNS void LANGUAGE sql BEGIN ATOMIC INSERT INTO t (id, v) VALUES (1, 'x') ON CONFLICT ON CONSTRAINT one DO NOTHING; END",
        "UPDATE t SET mate = 41 - id",
    )  # fmt: skip
    require_restored(sealed, "UPDATE t SET mate = NULL", "DELETE FROM t WHERE id < 10", "UPDATE t SET v = v || '!'")


_FAMILY = (
    "CREATE TABLE p (id int PRIMARY KEY, code text UNIQUE, kind int NOT NULL DEFAULT 1, UNIQUE (kind, code))",
    "CREATE TABLE c (id int PRIMARY KEY, p int, code text, kind int DEFAULT 1, peer int)",
    "INSERT INTO p SELECT i, 'c' || i FROM generate_series(1, 30) i",
    "INSERT INTO c SELECT i, i, 'c' || i, 1, 31 - i FROM generate_series(1, 30) i",
)
_KEYS = (
    ("(p) REFERENCES p", "(kind, code) REFERENCES p (kind, code) ON DELETE SET NULL (code) ON UPDATE CASCADE",
     "(peer) REFERENCES c ON DELETE CASCADE"),
    ("(p) REFERENCES p ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED", "(peer) REFERENCES c NOT VALID",
     "(code) REFERENCES p (code) ON UPDATE CASCADE ON DELETE SET DEFAULT"),
    ("(p) REFERENCES p ON DELETE SET NULL ON UPDATE CASCADE", "(peer) REFERENCES c NOT ENFORCED",
     "(kind, code) REFERENCES p (kind, code) MATCH FULL ON DELETE CASCADE"),
    ("(p) REFERENCES p NOT VALID", "(code) REFERENCES p (code) ON UPDATE RESTRICT ON DELETE RESTRICT",
     "(kind, code) REFERENCES p (kind, code) DEFERRABLE"),
)  # fmt: skip


def test_keys_of_every_kind_between_the_tables(target_database: str, tmp_path: Path) -> None:
    """Values swapped on both sides, rows moved to a parent that is to go, rows gone; four times."""
    edits = (
        "INSERT INTO p VALUES (99, 'c99')", "UPDATE c SET p = 99, code = 'c99' WHERE id < 5",
        "UPDATE c SET peer = NULL WHERE id > 20 OR id = 6", "DELETE FROM c WHERE id = 25", "DELETE FROM p WHERE id = 25",
        "UPDATE c SET code = NULL, kind = NULL WHERE id IN (7, 8)", "UPDATE p SET code = 'parked' WHERE id = 7",
        "UPDATE p SET code = 'c7' WHERE id = 8", "UPDATE p SET code = 'c8' WHERE id = 7",
    )  # fmt: skip
    tables = [f"{kind}{number}" for number in range(len(_KEYS)) for kind in "pc"]
    made, edited = [], []
    for number, keys in enumerate(_KEYS):
        added = [f"ALTER TABLE c ADD CONSTRAINT k{place} FOREIGN KEY {key}" for place, key in enumerate(keys)]
        own = (*_FAMILY, *added, "COMMENT ON CONSTRAINT k0 ON c IS 'key %'")
        made += [numbered(statement, number) for statement in own]
        edited += [numbered(statement, number) for statement in edits]
    sealed = target(target_database, tmp_path, *made, tables=tables)
    require_restored(sealed, *edited)


def numbered(statement: str, number: int) -> str:
    """Of the pair of tables with that number."""
    return re.sub(r"(TABLE|INTO|FROM|UPDATE|REFERENCES|ON) ([pc])\b", rf"\1 \g<2>{number}", statement)


_NOT_VALID = (
    ("CHECK (v <> 'v3') NOT VALID", "UPDATE t SET v = 'good' WHERE id = 3"),
    ("NOT NULL w NOT VALID", "UPDATE t SET w = 'filled'"),
    ("FOREIGN KEY (w) REFERENCES t (v) NOT VALID", "UPDATE t SET w = 'v5' WHERE id = 3"),
    ("FOREIGN KEY (w) REFERENCES t (v) NOT VALID", "DELETE FROM t WHERE id = 3"),
    ("CHECK (v <> 'v3') NOT ENFORCED", "UPDATE t SET v = 'good' WHERE id = 3"),
)


def test_what_was_not_valid_refuses_no_old_row(target_database: str, tmp_path: Path) -> None:
    made, edits = [], []
    for number, (constraint, edit) in enumerate(_NOT_VALID):
        own = (
            _TABLE, "ALTER TABLE t ADD w text, ADD UNIQUE (v)", _ROWS,
            "UPDATE t SET w = 'nobody' WHERE id = 3" if "FOREIGN" in constraint else "SELECT 1",
            f"ALTER TABLE t ADD CONSTRAINT mine {constraint}", "COMMENT ON CONSTRAINT mine ON t IS 'it % is'",
        )  # fmt: skip
        made += [re.sub(r"\bt\b", f"t{number}", statement) for statement in own]
        edits.append(edit.replace(" t ", f" t{number} "))
    sealed = target(target_database, tmp_path, *made, tables=[f"t{number}" for number in range(len(_NOT_VALID))])
    require_restored(sealed, *edits)


def test_a_valid_check_of_others_is_not_set_aside(target_database: str, tmp_path: Path) -> None:
    sealed = target(target_database, tmp_path, _TABLE, _ROWS)
    sealed.execute("DELETE FROM t WHERE id = 3", "ALTER TABLE t ADD CONSTRAINT mine CHECK (v <> 'v3')")
    with pytest.raises(RunFailed, match="constraint mine"):
        sealed.roll_back()
    assert not loosened(sealed)


def test_a_constraint_comes_back_not_valid_where_old_rows_break_it(target_database: str, tmp_path: Path) -> None:
    """The migration took it away; what others left NOT VALID under the same name elsewhere is left alone."""
    sealed = target(
        target_database, tmp_path, _TABLE, _ROWS, "ALTER TABLE t ADD CONSTRAINT old CHECK (v <> 'v3') NOT VALID, ADD CONSTRAINT mine CHECK (id > 0) NOT VALID",
        "CREATE SCHEMA s", "CREATE TABLE s.t (v text)", "ALTER TABLE s.t ADD CONSTRAINT old CHECK (v <> 'x') NOT VALID",
    )  # fmt: skip
    before = state(sealed)
    sealed.changed("t", "check", "old", "ALTER TABLE t DROP CONSTRAINT old", "ALTER TABLE t ADD CONSTRAINT old CHECK (v <> 'v3') NOT VALID")  # fmt: skip
    sealed.changed("t", "index", "mine", "CREATE INDEX mine ON t (v)", "DROP INDEX mine")
    sealed.execute("UPDATE t SET v = 'good' WHERE id = 3")
    sealed.roll_back(reverts=[str(sealed.migration.run_id)])
    assert state(sealed) == before
    assert sealed.query("SELECT convalidated FROM pg_constraint WHERE connamespace = 's'::regnamespace AND conname = 'old'") == [(False,)]  # fmt: skip
    assert any("old stays not valid" in line for _, line, _ in sealed.run.lines)


def test_a_unique_index_comes_back_when_the_rows_allow_it(target_database: str, tmp_path: Path) -> None:
    """As where a rollback is rolled back: since it, rows came that the index would have refused."""
    sealed = target(target_database, tmp_path, _TABLE, _ROWS, "CREATE UNIQUE INDEX one ON t (v)")
    before = state(sealed)
    sealed.changed("t", "unique_index", "one", "DROP INDEX one", "CREATE UNIQUE INDEX CONCURRENTLY one ON t (v)")
    sealed.execute("UPDATE t SET v = 'same'")
    sealed.roll_back(reverts=[str(sealed.migration.run_id)])
    assert state(sealed) == before
    assert not loosened(sealed)


def test_a_change_that_others_build_on_is_named(target_database: str, tmp_path: Path) -> None:
    sealed = target(target_database, tmp_path, _TABLE, _ROWS)
    sealed.changed("t", "column", "tier", "ALTER TABLE t ADD tier text", "ALTER TABLE t DROP COLUMN tier")
    sealed.execute("CREATE VIEW tiers AS SELECT tier FROM t")
    before = state(sealed)
    with pytest.raises(Refused, match="t: column tier cannot be taken back: a view"):
        sealed.roll_back(reverts=[str(sealed.migration.run_id)])
    assert (state(sealed), sealed.scratches()) == (before, [])


def test_no_trigger_of_any_kind_writes(target_database: str, tmp_path: Path) -> None:
    sealed = target(
        target_database, tmp_path, _TABLE, _ROWS, "CREATE TABLE log (what text)",
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO log VALUES (TG_NAME); RETURN coalesce(NEW, OLD); END $$",
        "CREATE TRIGGER each BEFORE INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION note()",
        "CREATE TRIGGER once AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH STATEMENT EXECUTE FUNCTION note()",
        "CREATE TRIGGER emptied AFTER TRUNCATE ON t FOR EACH STATEMENT EXECUTE FUNCTION note()",
        "CREATE CONSTRAINT TRIGGER held AFTER INSERT OR UPDATE OR DELETE ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION note()",
        "ALTER TABLE t ENABLE ALWAYS TRIGGER once", "ALTER TABLE t ENABLE REPLICA TRIGGER each", "ALTER TABLE t DISABLE TRIGGER emptied",
    )  # fmt: skip
    edits = ("DELETE FROM t WHERE id = 3", "UPDATE t SET live = false", "INSERT INTO t VALUES (90, 'v90')", *_SWAP)
    require_restored(sealed, "ALTER TABLE t ADD UNIQUE (v)", "ALTER TABLE t DROP CONSTRAINT t_v_key", *edits, "DELETE FROM log")  # fmt: skip
    assert sealed.query("SELECT * FROM log") == []
    sealed.execute("UPDATE t SET live = live WHERE id = 1")
    assert sorted(sealed.query("SELECT what FROM log")) == [("held",), ("once",)]


@pytest.mark.parametrize("how", ["ALWAYS", "BY DEFAULT"])
def test_identities_generated_columns_and_shared_sequences(target_database: str, tmp_path: Path, how: str) -> None:
    sealed = target(
        target_database, tmp_path,
        f"CREATE TABLE t (id int GENERATED {how} AS IDENTITY PRIMARY KEY, v text, s text GENERATED ALWAYS AS (upper(v)) STORED UNIQUE,"
        " x text GENERATED ALWAYS AS (v || '?') VIRTUAL)",
        "CREATE SEQUENCE shared OWNED BY t.id",
        f"CREATE TABLE u (id int PRIMARY KEY DEFAULT nextval('shared'), n int GENERATED {how} AS IDENTITY)",
        "INSERT INTO t (v) SELECT 'v' || i FROM generate_series(1, 20) i", "INSERT INTO u SELECT FROM generate_series(1, 20)",
        tables=("t", "u"),
    )  # fmt: skip
    override = "OVERRIDING SYSTEM VALUE"
    require_restored(
        sealed, *_SWAP, "DELETE FROM t WHERE id = 9", f"INSERT INTO t (id, v) {override} VALUES (9, 'v99')", "DELETE FROM u WHERE id < 5",
        f"INSERT INTO u (id, n) {override} VALUES (1, 500)", "SELECT setval('shared', 3), setval('u_n_seq', 900)",
    )  # fmt: skip
    assert sealed.query("SELECT last_value FROM shared") == [(20,)]
    assert sealed.query("SELECT last_value FROM u_n_seq") == [(900,)]
    assert sealed.query("INSERT INTO u DEFAULT VALUES RETURNING id") == [(21,)]


def test_policies_neither_hide_rows_nor_get_lost(target_database: str, tmp_path: Path) -> None:
    sealed = target(
        target_database, tmp_path, _TABLE, _ROWS, "ALTER TABLE t ENABLE ROW LEVEL SECURITY", "CREATE POLICY few ON t USING (id < 5)",
    )  # fmt: skip
    require_restored(sealed, "UPDATE t SET v = 'other' WHERE id > 30", "DELETE FROM t WHERE id = 2")
    sealed.execute("ALTER TABLE t FORCE ROW LEVEL SECURITY", "ALTER TABLE t NO FORCE ROW LEVEL SECURITY")


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE child () INHERITS (t)",
        "CREATE RULE quiet AS ON UPDATE TO t DO INSTEAD NOTHING",
        "ALTER TABLE t RENAME TO was; CREATE TABLE t (LIKE was) PARTITION BY RANGE (id)",
    ],
)
def test_parents_rules_and_partitions_are_refused(target_database: str, tmp_path: Path, statement: str) -> None:
    sealed = target(target_database, tmp_path, _TABLE, _ROWS)
    sealed.execute(statement)
    with pytest.raises(Refused, match=r"public\.t is no plain table without children and rules any more"):
        sealed.roll_back()
    assert sealed.scratches() == []


def test_a_column_that_goes_between_preview_and_restore(target_database: str, tmp_path: Path) -> None:
    sealed = target(target_database, tmp_path, _TABLE, _ROWS)
    sealed.execute("UPDATE t SET v = 'other' WHERE id = 4")
    context = sealed.context()
    rollback.run_phase(context, Phase.STAGE)
    rollback.run_phase(context, Phase.PREVIEW)
    sealed.execute("ALTER TABLE t DROP live")
    before = state(sealed)
    with pytest.raises(Refused, match="column live is gone"):
        rollback.run_phase(context, Phase.RESTORE)
    assert (state(sealed), sealed.scratches()) == (before, [])


def test_a_renamed_database_is_refused_with_the_way_out(target_database: str, tmp_path: Path) -> None:
    sealed = SealedTarget(target_database, plan_of("t"), tmp_path / "store")
    sealed.execute(_TABLE, _ROWS)
    sealed.back_up(change=lambda manifest: replace(manifest, database="old %"))
    with pytest.raises(Refused, match="the backup's is old %") as caught:
        sealed.roll_back()
    assert 'RENAME TO "old %"' in str(caught.value.remedy)


def test_a_lock_that_is_never_given_up(target_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restore, "_LOCK_TRIES", 1)
    sealed = target(target_database, tmp_path, _TABLE, _ROWS)
    sealed.execute("UPDATE t SET v = 'other' WHERE id = 4")
    before = state(sealed)
    context = sealed.context()
    rollback.run_phase(context, Phase.STAGE)
    with psycopg.connect(target_database, application_name="somebody") as blocker:
        blocker.execute("LOCK TABLE t IN ROW EXCLUSIVE MODE")
        with pytest.raises(Unavailable, match="The tables are in use") as caught:
            rollback.run_phase(context, Phase.RESTORE)
    assert "End long transactions" in str(caught.value.remedy)
    assert state(sealed) == before
    rollback.run_phase(sealed.context(), Phase.RESTORE)
    assert sealed.query("SELECT v FROM t WHERE id = 4") == [("v4",)]


def test_a_second_rollback_at_once_is_turned_away(target_database: str, tmp_path: Path) -> None:
    sealed = target(target_database, tmp_path, _TABLE, _ROWS)
    other = SealedTarget(target_database, sealed.plan, sealed.root)
    lead = fence.take_over(sealed.target, sealed.run.run_id, 1)
    try:
        with pytest.raises(Busy):
            fence.take_over(other.target, other.run.run_id, 1, patience=0.1)
    finally:
        lead.release()
