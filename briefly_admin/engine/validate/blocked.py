"""The rows that the repairs will not cure, one by one: what a run with onInvalid = skip leaves alone."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby, islice
from typing import Any

from psycopg import sql

from briefly_admin.domain.findings import FindingClass
from briefly_admin.domain.ports import StopSignal
from briefly_admin.domain.records import QuarantinedRow
from briefly_admin.engine.catalog import CatalogTable
from briefly_admin.engine.repairs import compile_repairs
from briefly_admin.engine.target import Connection
from briefly_admin.engine.validate.across import SetRule, declared_rules, set_rule, set_rules
from briefly_admin.engine.validate.examine import read_catalog
from briefly_admin.engine.validate.reading import Reading, reading
from briefly_admin.engine.validate.record import ALIAS, CompiledTable, FieldCheck, compile_table
from briefly_admin.engine.validate.scan import any_of, fails, really_fail
from briefly_admin.plans.base import AggregateRepair, Plan, Repair, Table, Unique

Keys = Sequence[Sequence[str]]
"""Of rows of one table, as the texts of their columns."""


def blocked_rows(
    connection: Connection, plan: Plan, *, limit: int | None = None, should_stop: StopSignal | None = None,
    exclude: Mapping[str, Keys] | None = None,
) -> Iterator[QuarantinedRow]:  # fmt: skip
    """Every row with a blocking finding, once, with its first cause; at most `limit` rows (None: all).

    `exclude`: table → keys that are left aside. Tables in the plan's order, rows by key text. Memory does not grow with
    their number. `connection` is busy with a read-only transaction until the iterator ends or is closed: use another
    one to write.
    Raises Stopped, Unavailable, Refused, RunFailed as `examine` does.
    """
    with reading(connection, should_stop) as session:
        catalog = read_catalog(connection, plan)
        rows = (
            row
            for table in plan.tables
            for row in _of_table(
                session,
                plan,
                compile_table(connection, plan, table, catalog, (exclude or {}).get(table.name, ())),
                catalog,
            )
        )
        yield from islice(rows, limit)


def blocked_among(
    connection: Connection, plan: Plan, table: Table, keys: Keys, *, beside: sql.Composable,
    should_stop: StopSignal | None = None,
) -> Iterator[QuarantinedRow]:  # fmt: skip
    """As `blocked_rows`, of those rows of one table that have one of `keys`.

    `beside`: over the row `t`, whether it counts as one that they must be unique beside (they themselves do). Other
    rows are read only where a rule needs them. Keys that no row has are no rows; raises RunFailed for texts that are no
    values of the key's columns.
    """
    if not keys:
        return
    with reading(connection, should_stop) as session:
        # A few rows by their keys: what `reading` forbids for the sake of whole tables is what finds them here.
        connection.execute("SET LOCAL enable_nestloop = on")
        catalog = read_catalog(connection, plan)
        compiled = _among(plan, compile_table(connection, plan, table, catalog), catalog, keys)
        rules = [
            rule
            for number, declared in enumerate(declared_rules(table))
            if (rule := set_rule(plan, compiled, catalog, number)) and rule.finding_class is FindingClass.BLOCKING
            and not isinstance(declared, Unique)
        ]  # fmt: skip
        whole = compile_table(connection, plan, table, catalog)
        uniques = [_unique_among(whole, rule, compiled.rows, beside) for rule in table.uniques]
        yield from _blocked(session, compiled, [*rules, *(rule for rule in uniques if rule)])


def _among(plan: Plan, compiled: CompiledTable, catalog: Mapping[str, CatalogTable], keys: Keys) -> CompiledTable:
    """The table with these rows alone; aggregates and groups are computed for them alone, too."""
    table, types = compiled.table, {column.name: column.type for column in compiled.catalog.columns}
    listed = sql.SQL(", ").join(
        sql.SQL("({})").format(
            sql.SQL(", ").join(
                sql.SQL("{}::{}").format(sql.Literal(text), sql.SQL(types[name]))
                for text, name in zip(key, table.key, strict=True)
            )
        )
        for key in keys
    )
    # An aggregate is looked up by one column: where the key has more, it is read for all rows.
    narrow = len(table.key) == 1 or not any(isinstance(repair, AggregateRepair) for repair in table.repairs)
    values = sql.SQL("VALUES {}").format(listed)
    repairs = compile_repairs(plan, table, catalog, alias=ALIAS, scope=values if narrow else None)
    rows = sql.SQL("({}) IN ({})").format(
        sql.SQL(", ").join(compiled.keys), listed if len(table.key) == 1 else values
    )  # fmt: skip
    return replace(compiled, rows=rows, source=sql.SQL("{} {}").format(compiled.plain, repairs.joins))


def _unique_among(
    compiled: CompiledTable, rule: Unique, among: sql.Composable, beside: sql.Composable
) -> SetRule | None:  # fmt: skip
    """Rows at hand whose values a row beside them has, or one of them with a lesser key; None where none can."""
    table, names = compiled.catalog, set(rule.columns)
    if any(table.column(name) is None and name not in compiled.values for name in names):
        return None
    if not compiled.values.keys() & names and table.has_unique_index(rule.columns):
        return None
    joined = {repair.column for repair in compiled.table.repairs if not isinstance(repair, Repair)}
    values = [compiled.value(name) for name in rule.columns]
    listed = sql.SQL(", ").join(values)
    query = sql.SQL(
        "SELECT key, NULL::text AS value FROM (SELECT {key} AS key, {among} AS mine, row_number() OVER "
        "(PARTITION BY {values} ORDER BY {among}, {keys}) AS place FROM {source} WHERE ({among} OR {beside}) "
        "AND ({values}) IN (SELECT {values} FROM {source} WHERE {among})) AS numbered WHERE mine AND place > 1"
    ).format(
        key=compiled.key_array, among=among, values=listed, keys=sql.SQL(", ").join(compiled.keys),
        source=compiled.source if joined & names else compiled.plain, beside=beside,
    )  # fmt: skip
    words = "another row has the same value once both are repaired"
    return SetRule(", ".join(rule.columns), "unique", words, FindingClass.BLOCKING, secret=True, keys=query)


def _of_table(
    session: Reading, plan: Plan, compiled: CompiledTable, catalog: Mapping[str, CatalogTable]
) -> Iterator[QuarantinedRow]:
    session.check_stop()
    rules = [r for r in set_rules(plan, compiled, catalog) if r.finding_class is FindingClass.BLOCKING]
    return _blocked(session, compiled, rules)


def _blocked(session: Reading, compiled: CompiledTable, rules: Sequence[SetRule]) -> Iterator[QuarantinedRow]:
    branches = [_records(compiled)]
    for number, rule in enumerate(rules):
        branches.append(
            sql.SQL("SELECT s{n}.key, {n}, NULL::bool[], NULL::text[] FROM ({q}) AS s{n}").format(
                n=sql.SQL(str(number)), q=rule.keys
            )
        )
    union = sql.SQL(" UNION ALL ").join(sql.SQL("({})").format(branch) for branch in branches)
    query = sql.SQL('SELECT * FROM ({}) AS u(key, cause, flags, json) ORDER BY key COLLATE "C", cause').format(union)
    for key, rows in groupby(session.stream(query), key=lambda row: tuple(row[0])):
        row = _first_cause(compiled, rules, key, rows)
        if row:
            yield row


def _records(compiled: CompiledTable) -> sql.Composable:
    """Rows whose repaired values fail in SQL: a flag a condition, the values' JSON where marshmallow must decide."""
    flags = [condition.fails for check in compiled.fields for condition in check.after]
    json = [sql.SQL("to_jsonb({})::text").format(check.repaired) for check in compiled.fields if check.is_unsure]
    wrong = any_of([test for check in compiled.fields for test in fails(check.after)])
    return sql.SQL("SELECT {}, -1, ARRAY[{}]::bool[], ARRAY[{}]::text[] FROM {} WHERE {} AND {}").format(
        compiled.key_array, sql.SQL(", ").join(flags), sql.SQL(", ").join(json), compiled.source, compiled.rows, wrong
    )


def _first_cause(
    compiled: CompiledTable, rules: Sequence[SetRule], key: tuple[str, ...], rows: Iterator[tuple[Any, ...]]
) -> QuarantinedRow | None:
    """The record schema's word comes first, then the rules across rows in their order."""
    table = compiled.table.name
    first: QuarantinedRow | None = None
    for _, cause, flags, json in rows:  # to the end: groupby's rows come from the one cursor
        if first is not None:
            continue
        if cause >= 0:
            rule = rules[cause]
            first = QuarantinedRow(table, key, rule.name, f"{table}.{rule.field}: {rule.words}", field=rule.field)
        else:
            first = next(_record_causes(compiled, key, flags, json), None)
    return first


def _record_causes(
    compiled: CompiledTable, key: tuple[str, ...], flags: Sequence[bool], json: Sequence[str | None]
) -> Iterator[QuarantinedRow]:
    position = 0
    values = iter(json)
    for check in compiled.fields:
        value = next(values) if check.is_unsure else None
        mine = flags[position : position + len(check.after)]
        position += len(check.after)
        for condition in really_fail(check.after, mine, value):
            words = _words(compiled, check, condition.words)
            yield QuarantinedRow(compiled.table.name, key, condition.name, words, field=check.name)


def _words(compiled: CompiledTable, check: FieldCheck, words: str) -> str:
    return f"{compiled.table.name}.{check.name} {words}"
