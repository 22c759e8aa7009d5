"""Rules that no row can answer for itself: foreign keys, uniqueness over repaired rows, a plan's relations."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Final

from psycopg import sql

from briefly_admin.domain.findings import Finding, FindingClass
from briefly_admin.engine.catalog import CatalogTable
from briefly_admin.engine.validate.parts import SAMPLES, Part
from briefly_admin.engine.validate.reading import Reading
from briefly_admin.engine.validate.record import ALIAS, CompiledTable
from briefly_admin.engine.validate.scan import RowRule, sample, shown
from briefly_admin.plans.base import ForeignKey, Plan, Relation, Repair, Table, Unique

_INTEGERS = {"int2", "int4", "int8"}


@dataclass(frozen=True, slots=True)
class SetRule:
    """`keys` selects each row that breaks the rule, once, as `key text[], value text`."""

    field: str
    name: str
    words: str
    finding_class: FindingClass
    secret: bool
    keys: sql.Composable
    first: sql.Composable | None = None
    """Where that is cheaper to ask: `n, keys text[]`, how many there are and at most _FEW of their keys."""
    among: Callable[[Sequence[str]], sql.Composable] | None = None
    """`keys` of those keys alone."""


def declared_rules(table: Table) -> Sequence[ForeignKey | Unique | Relation]:
    """All that the plan says of the table across rows; a rule's place here is its number."""
    return [*table.foreign_keys, *table.uniques, *table.relations]


def set_rule(plan: Plan, compiled: CompiledTable, catalog: Mapping[str, CatalogTable], number: int) -> SetRule | None:
    """A declared rule compiled; None where the database cannot break it."""
    rule = declared_rules(compiled.table)[number]
    if isinstance(rule, ForeignKey):
        there = compiled.catalog.column(rule.column) and catalog[rule.parent].column(rule.parent_column)
        return _foreign_key(compiled, rule, catalog[rule.parent]) if there else None
    if isinstance(rule, Unique):
        return None if _already_unique(compiled, rule) else _unique(compiled, rule)
    return _relation(plan, compiled, rule, catalog) if _is_askable(rule, compiled.catalog) else None


def set_rules(plan: Plan, compiled: CompiledTable, catalog: Mapping[str, CatalogTable]) -> Iterator[SetRule]:
    """The table's rules across rows that the database could break."""
    for number in range(len(declared_rules(compiled.table))):
        rule = set_rule(plan, compiled, catalog, number)
        if rule:
            yield rule


def in_one_scan(table: Table, catalog: Mapping[str, CatalogTable], *, joined: bool = True) -> list[int]:
    """Numbers of the rules that the scan of the table's records can answer. `joined`: also those that need a parent."""
    parents = {key.column: key.parent for key in table.foreign_keys if joined and _joins_one(table, key, catalog)}
    return [
        number for number, rule in enumerate(declared_rules(table))
        if (isinstance(rule, ForeignKey) and rule.column in parents)
        or (isinstance(rule, Relation) and _asks_one_row(table, rule, catalog, parents))
    ]  # fmt: skip


def _asks_one_row(
    table: Table, relation: Relation, catalog: Mapping[str, CatalogTable], parents: Mapping[str, str]
) -> bool:
    if not relation.test or (relation.through and relation.through not in parents):
        return False
    known = {column.name for column in catalog[table.name].columns}
    if relation.through:
        known |= {f"parent.{column.name}" for column in catalog[parents[relation.through]].columns}
    asked = {name for _, name, _, _ in Formatter().parse(relation.test) if name}
    return asked <= known and _is_askable(relation, catalog[table.name])


def _joins_one(table: Table, key: ForeignKey, catalog: Mapping[str, CatalogTable]) -> bool:
    """Whether a row has at most one parent, whose column compares with the row's own value."""
    parent = catalog[key.parent]
    derived = {repair.column for repair in table.repairs if not isinstance(repair, Repair)}
    return (
        key.column not in derived and parent.has_unique_index([key.parent_column])
        and _comparable(catalog[table.name], key.column, parent, key.parent_column)
    )  # fmt: skip


def row_rules(compiled: CompiledTable, catalog: Mapping[str, CatalogTable], numbers: Iterable[int]) -> list[RowRule]:
    """Those rules, each of them one of `in_one_scan`, for the scan; the foreign keys come first."""
    declared = declared_rules(compiled.table)
    parents = {key.column: (f"p{number}", catalog[key.parent])
               for number, key in enumerate(compiled.table.foreign_keys)}  # fmt: skip
    found = []
    for number in sorted(numbers):
        rule = declared[number]
        if isinstance(rule, ForeignKey):
            found.append(_row_key(compiled, rule, number, *parents[rule.column]))
        elif isinstance(rule, Relation):
            found.append(_row_relation(compiled, rule, number, *parents.get(rule.through, ("", None))))
    return found


def _row_key(compiled: CompiledTable, key: ForeignKey, number: int, alias: str, parent: CatalogTable) -> RowRule:
    value, there = compiled.value(key.column), sql.Identifier(alias, key.parent_column)
    return RowRule(
        number, key.column, "foreign_key", _no_parent(key), FindingClass.BLOCKING,
        _is_secret(compiled.table, key.column), value,
        sql.SQL("({} IS NOT NULL AND {} IS NULL)").format(value, there),
        sql.SQL("LEFT JOIN {} AS {} ON {} = {}").format(parent.identifier, sql.Identifier(alias), there, value),
    )  # fmt: skip


def _row_relation(
    compiled: CompiledTable, relation: Relation, number: int, alias: str, parent: CatalogTable | None
) -> RowRule:
    columns = {column.name: sql.Identifier(ALIAS, column.name) for column in compiled.catalog.columns}
    for column in parent.columns if parent else ():
        columns[f"parent.{column.name}"] = sql.Identifier(alias, column.name)
    test = sql.SQL(relation.test).format(**columns)  # a plan's SQL: code, not input
    return RowRule(
        number, relation.field, relation.name, relation.words, FindingClass(relation.finding_class),
        _is_secret(compiled.table, relation.field), columns.get(relation.field, sql.SQL("NULL")),
        sql.SQL("(({}) IS TRUE)").format(test),
    )  # fmt: skip


def _no_parent(key: ForeignKey) -> str:
    return f"no row of {key.parent} has this {key.parent_column}"


def set_parts(
    reading: Reading, plan: Plan, compiled: CompiledTable, catalog: Mapping[str, CatalogTable], numbers: Iterable[int]
) -> Iterator[Part]:
    """What breaks the rules of these numbers; counts are exact."""
    for number in numbers:
        rule = set_rule(plan, compiled, catalog, number)
        reading.check_stop()
        keys = _keys(reading, rule) if rule else None
        if rule is None or keys is None:
            continue
        # One reading of the rule for both: a foreign key or a relation can be dear.
        query = sql.SQL("SELECT s.key, s.value, count(*) OVER () FROM ({}) AS s LIMIT {}")
        rows = reading.rows(query.format(keys, sql.Literal(SAMPLES)))
        if rows:
            yield Part(number, Finding(
                table=compiled.table.name, field=rule.field, rule=rule.name, finding_class=rule.finding_class,
                count=int(rows[0][2]), message=f"{compiled.table.name}.{rule.field}: {rule.words}",
                samples=[sample(key, value, secret=rule.secret) for key, value, _ in rows],
            ))  # fmt: skip


_FEW: Final = 1000
"""Keys that are looked up one by one; for more the table is read."""


def _keys(reading: Reading, rule: SetRule) -> sql.Composable | None:
    """The rows that break the rule, by the cheapest query; None where there are none."""
    if rule.first is None or rule.among is None:
        return rule.keys
    ((count, keys),) = reading.rows(rule.first)
    if not count:
        return None
    return rule.among(keys) if count <= _FEW else rule.keys


def _source(compiled: CompiledTable, *columns: str) -> sql.Composable:
    """The cheapest relation that has the columns' repaired values: without joins where row repairs alone make them."""
    joined = {r.column for r in compiled.table.repairs if not isinstance(r, Repair)}
    return compiled.source if joined & set(columns) else compiled.plain


def _is_secret(table: Table, *columns: str) -> bool:
    return bool(table.secrets & set(columns))


def _foreign_key(compiled: CompiledTable, key: ForeignKey, parent: CatalogTable) -> SetRule:
    value = compiled.value(key.column)
    there = sql.Identifier("p", key.parent_column)
    same = sql.SQL("{} = {}")
    if not _comparable(compiled.catalog, key.column, parent, key.parent_column):
        same = sql.SQL("{}::text = {}::text")
    broken = sql.SQL("FROM {} LEFT JOIN {} AS p ON {} WHERE {} AND {} IS NOT NULL AND {} IS NULL").format(
        _source(compiled, key.column), parent.identifier, same.format(there, value), compiled.rows, value, there
    )
    return SetRule(
        key.column, "foreign_key", _no_parent(key), FindingClass.BLOCKING,
        _is_secret(compiled.table, key.column),
        sql.SQL("SELECT {} AS key, {} AS value {}").format(compiled.key_array, shown(value), broken),
    )  # fmt: skip


def _comparable(child: CatalogTable, column: str, parent: CatalogTable, parent_column: str) -> bool:
    here, there = child.column(column), parent.column(parent_column)
    if here is None or there is None:
        return False
    types = {here.base_type, there.base_type}
    return len(types) == 1 or types <= _INTEGERS or types <= {"text", "varchar", "bpchar"}


def _already_unique(compiled: CompiledTable, unique: Unique) -> bool:
    """An existing unique index answers where no repair touches the columns; a missing column repeats nothing."""
    if any(compiled.catalog.column(column) is None and column not in compiled.values for column in unique.columns):
        return True
    return not compiled.values.keys() & set(unique.columns) and compiled.catalog.has_unique_index(unique.columns)


def _unique(compiled: CompiledTable, unique: Unique) -> SetRule:
    """The first row of equals stays: one that no repair changes, by key among those; the others are counted."""
    values = [compiled.value(column) for column in unique.columns]
    listed = sql.SQL(", ").join(values)
    changed = [
        sql.SQL("({} IS DISTINCT FROM {})").format(sql.Identifier(ALIAS, column), compiled.values[column])
        for column in unique.columns if column in compiled.values and compiled.catalog.column(column)
    ]  # fmt: skip
    order = sql.SQL(", ").join([*changed, *compiled.keys])
    rows = sql.SQL("FROM {} WHERE {} AND {}").format(
        _source(compiled, *unique.columns), compiled.rows,
        sql.SQL(" AND ").join(sql.SQL("{} IS NOT NULL").format(value) for value in values),
    )  # fmt: skip
    text = sql.SQL("concat_ws(', ', {})").format(sql.SQL(", ").join(shown(value) for value in values))
    # Only values that are there twice are sorted.
    numbered = sql.SQL(
        "SELECT {} AS key, {} AS value, row_number() OVER (PARTITION BY {} ORDER BY {}) AS place {} "
        "AND ({}) IN (SELECT {} {} GROUP BY {} HAVING count(*) > 1)"
    ).format(compiled.key_array, text, listed, order, rows, listed, listed, rows, listed)
    return SetRule(
        ", ".join(unique.columns), "unique", "another row has the same value once both are repaired",
        FindingClass.BLOCKING, _is_secret(compiled.table, *unique.columns),
        sql.SQL("SELECT key, value FROM ({}) AS numbered WHERE place > 1").format(numbered),
    )  # fmt: skip


def _is_askable(relation: Relation, catalog: CatalogTable) -> bool:
    """A relation over a column that is missing, or of another type, has nothing to say."""
    for name, types in relation.needs:
        column = catalog.column(name)
        if column is None or (types and column.base_type not in types):
            return False
    settled = ((catalog.column(name), modifier) for name, modifier in relation.settled)
    return not any(column and column.typmod == modifier for column, modifier in settled)


def _relation(plan: Plan, compiled: CompiledTable, relation: Relation, catalog: Mapping[str, CatalogTable]) -> SetRule:
    names = {name: catalog[plan.table(table).name].identifier for name, table in relation.tables.items()}
    query = sql.SQL(relation.query).format(**names)  # a plan's SQL: code, not input
    (key,) = compiled.keys  # relations are declared over tables with a key of one column
    found = compiled.catalog.column(compiled.table.key[0])
    of_type = sql.SQL(found.type if found else "text")  # as the catalog prints it, quoted and qualified
    column = compiled.catalog.column(relation.field)
    value = shown(sql.Identifier(ALIAS, relation.field)) if column else sql.SQL("NULL")
    finding_class = FindingClass(relation.finding_class)
    rows = sql.SQL("SELECT {} AS key, {} AS value FROM {} WHERE {}").format(
        compiled.key_array, value, compiled.plain, compiled.rows
    )
    return SetRule(
        relation.field, relation.name, relation.words, finding_class, _is_secret(compiled.table, relation.field),
        _and(rows, sql.SQL("{} IN (SELECT broken.key FROM ({}) AS broken)").format(key, query)),
        sql.SQL(
            "WITH broken AS MATERIALIZED ({}) SELECT (SELECT count(*) FROM broken), "
            "ARRAY(SELECT b.key::text FROM broken AS b LIMIT {})"
        ).format(query, sql.Literal(_FEW)),
        lambda keys: _and(rows, sql.SQL("{} = ANY({}::{}[])").format(key, sql.Literal(list(keys)), of_type)),
    )  # fmt: skip


def _and(rows: sql.Composable, condition: sql.Composable) -> sql.Composable:
    return sql.SQL("{} AND {}").format(rows, condition)
