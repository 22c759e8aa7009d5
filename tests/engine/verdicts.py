"""What marshmallow says of a table's rows beside what validation found in them: each difference by name.

Nothing of how validation works is used here: rows are read as the JSON of `to_jsonb(row)`, and the record schema itself
says what is wrong with them; a field or validator that breaks over a value does not accept it.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import psycopg
from marshmallow import Schema, decorators, fields, missing, validate
from psycopg import sql

from briefly_admin.domain.findings import Finding, FindingClass
from briefly_admin.domain.records import QuarantinedRow
from briefly_admin.engine import validate as validation
from briefly_admin.plans.base import Plan, Repair, Table

Session = psycopg.Connection[Any]
Rows = Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any], Collection[str]]]
"""Key → (the row as it is, the row once repaired, columns that the repairs change), as marshmallow gets them."""
SAMPLES = 100
"""A finding has no more samples."""
_TYPE, _NULL = "type", "null"


@dataclass(frozen=True)
class Case:
    """A plan's table and what really stands in the database: column → SQL type, rows of texts (None: NULL)."""

    table: Table
    types: Mapping[str, str]
    rows: Sequence[Mapping[str, str | None]]
    """Their keys are '0', '1' …"""
    sources: Mapping[str, str] = field(default_factory=dict)
    """Column → its field, in words."""


@dataclass(frozen=True)
class Difference:
    """One field of one table."""

    table: str
    field: str
    words: str

    def __str__(self) -> str:
        return f"{self.table}.{self.field}: {self.words}"


@dataclass
class _Fault:
    """What a field's value does not satisfy: null, type, or the numbers of its validators."""

    what: str | tuple[int, ...]


@dataclass
class _Column:
    """A field's verdicts: key → fault, of the values as they are and once repaired."""

    before: dict[str, _Fault] = field(default_factory=dict)
    after: dict[str, _Fault] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)
    """Keys of rows that the repair would change."""
    too_big: set[str] = field(default_factory=set)
    """Keys of rows whose repaired value the column's type cannot hold."""
    repaired: bool = False


def load(connection: Session, case: Case) -> None:
    """Make the table and its rows, in the open transaction; with the keys 0, 1 … where no column is the key."""
    types, rows = case.types, case.rows
    if "id" not in types:
        types = {"id": "bigint", **types}
        rows = [{"id": str(number), **row} for number, row in enumerate(rows)]
    columns = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(type_)) for name, type_ in types.items()
    )
    name = sql.Identifier(case.table.schema, case.table.name)
    connection.execute(sql.SQL("CREATE TABLE {} ({}, PRIMARY KEY (id))").format(name, columns))
    copy = sql.SQL("COPY {} ({}) FROM STDIN").format(name, sql.SQL(", ").join(map(sql.Identifier, types)))
    with connection.cursor().copy(copy) as loading:
        for row in rows:
            loading.write_row([row[column] for column in types])


def differences(connection: Session, cases: Sequence[Case]) -> list[Difference]:
    """What validation says otherwise than marshmallow of the tables, which have been loaded in the open transaction."""
    try:
        findings, blocked = _validated(connection, [case.table for case in cases])
    except Exception as error:  # noqa: BLE001 - whatever breaks, its case is wanted
        if len(cases) > 1:
            return [found for case in cases for found in differences(connection, [case])]
        return [_broken(connection, cases[0], error)]
    found: list[Difference] = []
    for case in cases:
        mine = [finding for finding in findings if finding.table == case.table.name]
        keys = [row.key[0] for row in blocked if row.table == case.table.name]
        found += compare(case, read_rows(connection, case), mine, keys)
    return found


def _validated(
    connection: Session, tables: Sequence[Table], exclude: Mapping[str, Sequence[Sequence[str]]] | None = None
) -> tuple[Sequence[Finding], Sequence[QuarantinedRow]]:
    """In a savepoint: the transaction survives whatever breaks."""
    plan = Plan("generated", "Generated", "", tuple(tables))
    with connection.transaction(force_rollback=True):
        return validation.examine(connection, plan, exclude=exclude), () if exclude else list(
            validation.blocked_rows(connection, plan)
        )


def _broken(connection: Session, case: Case, error: Exception) -> Difference:
    """Which field breaks validation, and, where one row is enough, over which value."""
    name, words = "", f"validation itself breaks: {type(error).__name__}: {str(error)[:200]}"
    declared = case.table.record._declared_fields
    keys = [[str(number)] for number in range(len(case.rows))]
    for attribute, each in declared.items():
        column = each.data_key or attribute
        repairs = tuple(repair for repair in case.table.repairs if repair.column == column)
        table = replace(case.table, record=Schema.from_dict({attribute: each}), repairs=repairs)
        if not _breaks(connection, table):
            continue
        name = column
        alone = (n for n in range(len(keys)) if _breaks(connection, table, keys[:n] + keys[n + 1 :]))
        values = sorted((str(case.rows[n].get(column)) for n in alone), key=len)
        words += f" over {values[0][:200]!r}" if values else ""
        break
    return Difference(case.table.name, name, f"{_where(case, name)} {words}")


def _breaks(connection: Session, table: Table, others: Sequence[Sequence[str]] = ()) -> bool:
    return not _accepts(lambda _: _validated(connection, [table], {table.name: others} if others else None), None)


def compare(
    case: Case, rows: Rows, findings: Sequence[Finding], blocked: Sequence[str], others: Collection[str] = ()
) -> list[Difference]:
    """`findings` of the record schema, and the keys of all blocked rows, beside marshmallow's verdicts of the rows.

    `others`: keys of rows that are blocked besides, by rules across rows.
    """
    columns = _judged(case, rows)
    found = list(_unknown(case, findings, columns))
    for name, column in columns.items():
        mine = [finding for finding in findings if finding.field == name]
        found += [
            Difference(case.table.name, name, f"{_where(case, name)} {words}")
            for words in _differences_of(column, mine, rows, name)
        ]
    expected = {key for column in columns.values() for key in column.after.keys() | column.too_big} | set(others)
    twice = [key for key, count in Counter(blocked).items() if count > 1]
    if set(blocked) != expected or twice:
        wrong = sorted(set(blocked) ^ expected)[:3]
        words = f"blocked_rows: {len(blocked)} rows, not {len(expected)}: {wrong}, twice: {twice[:3]}"
        found.append(Difference(case.table.name, "", words))
    return found


def _judged(case: Case, rows: Rows) -> dict[str, _Column]:
    """marshmallow's verdicts, of each field; of the field 'row' alone where the schema looks at rows as a whole."""
    schema = case.table.record()
    names = {each.data_key or name: each for name, each in schema.load_fields.items()}
    repaired = {repair.column for repair in case.table.repairs}
    whole = _looks_at_rows(schema)
    columns = {name: _Column(repaired=name in repaired) for name in (*names, *(repaired - names.keys()))}
    if whole:
        columns = {"row": _Column(repaired=bool(repaired))}
    for key, (raw, after, changed) in rows.items():
        for place, values in (("before", raw), ("after", after)):
            wrong = faulty(schema, values)
            if whole and wrong:
                getattr(columns["row"], place)[key] = _Fault("schema")
            for name in wrong if not whole else ():
                getattr(columns[name], place)[key] = _detail(names[name], name, values)
        for name in repaired:
            column = columns["row" if whole else name]
            if name in changed:
                column.changed.add(key)
            if not whole and not _fits(case.types.get(name, ""), after.get(name)):
                column.too_big.add(key)
    return columns


_LIMITS = {"smallint": 2**15, "integer": 2**31}


def _fits(type_: str, value: Any) -> bool:
    return type_ not in _LIMITS or not isinstance(value, int) or -_LIMITS[type_] <= value < _LIMITS[type_]


def _unknown(case: Case, findings: Iterable[Finding], columns: Iterable[str]) -> Iterator[Difference]:
    known = set(columns)
    for finding in findings:
        if finding.field not in known:
            yield Difference(case.table.name, finding.field, f"a finding of a field that is none: {finding.rule}")


def _where(case: Case, name: str) -> str:
    type_ = case.types.get(name, "(missing)")
    words = "; ".join(
        f"repaired by {r.expression}" for r in case.table.repairs if isinstance(r, Repair) and r.column == name
    )
    return f"[{type_}] {case.sources.get(name, '')} {words}".strip()


def read_rows(connection: Session, case: Case) -> Rows:
    """The rows of a table whose repairs are row repairs."""
    pairs, changes = [], []
    for repair in case.table.repairs:
        assert isinstance(repair, Repair)
        there = sql.Identifier("as it is", repair.column) if repair.column in case.types else sql.SQL("NULL::text")
        value = sql.SQL(repair.expression).format(**{repair.column: there})
        pairs.append(sql.SQL("{}::text, {}").format(sql.Literal(repair.column), value))
        changes.append(sql.SQL("{}::text, {} IS DISTINCT FROM ({})").format(sql.Literal(repair.column), there, value))
    query = sql.SQL(
        'SELECT id::text, to_jsonb("as it is")::text, jsonb_build_object({})::text, jsonb_build_object({}) '
        'FROM {} AS "as it is"'
    ).format(
        *(sql.SQL(", ").join(listed) for listed in (pairs, changes)),
        sql.Identifier(case.table.schema, case.table.name),
    )
    rows = {}
    for key, raw, repaired, changes_it in connection.execute(query).fetchall():
        row, after = parsed(raw), parsed(repaired)
        # What PostgreSQL takes for equal is not changed, as 1 and 1.0 are.
        changed = {name for name, changes in changes_it.items() if changes}
        rows[key] = (row, row | {name: after[name] for name in changed}, changed)
    return rows


_MOST_DIGITS = 4000
_HUGE = int("1" + "0" * _MOST_DIGITS)


def parsed(text: str) -> Any:
    """JSON as Python's. Of an integer with more digits than Python reads, 10^4000 stands for all that is known of it."""
    return json.loads(text, parse_int=_integer)


def _integer(digits: str) -> int:
    if len(digits) <= _MOST_DIGITS:
        return int(digits)
    return -_HUGE if digits[0] == "-" else _HUGE


def faulty(schema: Schema, row: Mapping[str, Any]) -> set[str]:
    """The fields that marshmallow does not take; '_schema' for the row as a whole. A field that breaks is one of them."""
    fields_ = {each.data_key or name: each for name, each in schema.load_fields.items()}
    # A missing column is NULL, but where the field has a default for a missing key.
    given = {name: row.get(name) for name, each in fields_.items() if name in row or each.load_default is missing}
    try:
        return set(schema.validate(given))
    except Exception:  # noqa: BLE001 - a schema that breaks does not take the row
        if _looks_at_rows(schema):
            return {"_schema"}
    return {
        name
        for name, value in given.items()
        if not _accepts(partial(fields_[name].deserialize, attr=name, data=given), value)
    }


def _looks_at_rows(schema: Schema) -> bool:
    tags = (decorators.PRE_LOAD, decorators.POST_LOAD, decorators.VALIDATES, decorators.VALIDATES_SCHEMA)
    return any(schema._hooks[tag] for tag in tags)


def _accepts(check: Callable[[Any], Any], value: Any) -> bool:
    try:
        check(value)
    except Exception:  # noqa: BLE001 - breaking is no accepting
        return False
    return True


def _detail(each: fields.Field[Any], name: str, row: Mapping[str, Any]) -> _Fault:
    value = row.get(name)
    if value is None and not each.allow_none:
        return _Fault(_NULL)
    try:
        for function in each.pre_load:
            value = function(value)
        if value is None and each.allow_none:
            return _Fault(_TYPE)
        value = each._deserialize(value, name, row)
    except Exception:  # noqa: BLE001 - breaking is no accepting
        return _Fault(_TYPE)
    failing = tuple(number for number, check in enumerate(flat(each.validators)) if not _accepts(check, value))
    return _Fault(failing or _TYPE)  # post_load alone is wrong


def flat(validators: Iterable[Callable[[Any], Any]]) -> Iterator[Callable[[Any], Any]]:
    """Validators, those of an And one by one."""
    for validator in validators:
        if type(validator) is validate.And:
            yield from flat(validator.validators)
        else:
            yield validator


def _differences_of(column: _Column, findings: Sequence[Finding], rows: Mapping[str, Any], name: str) -> Iterator[str]:
    """Blocking: what is wrong once repaired. Repairable: what was, or is changed, where nothing is wrong afterwards."""

    def value(key: str, place: int) -> str:
        if key not in rows:
            return f"the row {key}, which is none,"
        whole = rows[key][place]
        return repr(whole.get(name) if name != "row" or name in whole else whole)[:300]

    blocking = [finding for finding in findings if finding.finding_class is FindingClass.BLOCKING]
    yield from _unlike(
        "blocking", column.after, [f for f in blocking if f.rule != "type_range"], lambda key: value(key, 1)
    )
    limits = [f for f in blocking if f.rule == "type_range"]
    yield from unlike("blocking: type_range", column.too_big, limits, lambda key: value(key, 1))
    repairable = [finding for finding in findings if finding.finding_class is FindingClass.REPAIRABLE]
    if not column.repaired:
        if repairable:
            yield "repairable findings without a repair"
        return
    uncured = column.after.keys() | column.too_big
    cured = {key: fault for key, fault in column.before.items() if key not in uncured}
    merely = column.changed - cured.keys() - uncured
    yield from _unlike("repairable", cured, [f for f in repairable if f.rule != "repair"], lambda key: value(key, 0))
    yield from unlike(
        "repairable: repair", merely, [f for f in repairable if f.rule == "repair"], lambda key: value(key, 0)
    )


def _unlike(
    words: str, faults: Mapping[str, _Fault], findings: Sequence[Finding], value: Callable[[str], str]
) -> Iterator[str]:
    """Null by itself; then either each rule by itself, or all that is wrong as one rule ('type' or 'schema')."""
    nulls = {key for key, fault in faults.items() if fault.what == _NULL}
    yield from unlike(f"{words}: null", nulls, [f for f in findings if f.rule in {"null", "required"}], value)
    others = {key: fault for key, fault in faults.items() if fault.what != _NULL}
    rules = [f for f in findings if f.rule not in {"null", "required"}]
    one = [f for f in rules if f.rule in {_TYPE, "schema"}]
    as_one = list(unlike(f"{words}: type (as one)", others.keys(), one, value))
    if not as_one and len(one) == len(rules):
        return
    typed = {key for key, fault in others.items() if fault.what == _TYPE}
    apart = list(unlike(f"{words}: type", typed, one, value))
    wanted: dict[int, set[str]] = defaultdict(set)
    for key, fault in others.items():
        if isinstance(fault.what, tuple):
            for number in fault.what:
                wanted[number].add(key)
    apart += _unlike_rules(words, wanted, [f for f in rules if f not in one], value)
    yield from apart if len(one) < len(rules) or not as_one else as_one


def _unlike_rules(
    words: str, wanted: Mapping[int, set[str]], rules: Sequence[Finding], value: Callable[[str], str]
) -> list[str]:
    """Each validator's rows are one finding's, whatever its rule is called."""
    left, unmatched = list(rules), []
    for number, keys in wanted.items():
        same = next((f for f in left if not list(unlike("", keys, [f], value))), None)
        if same:
            left.remove(same)
        else:
            unmatched.append((f"validator {number}", keys))
    found = []
    for position, (name, keys) in enumerate(unmatched):
        rule = left[position] if position < len(left) else None
        told = f"{words}: {name}, {f'rule {rule.rule}' if rule else 'no rule'}"
        found += list(unlike(told, keys, [rule] if rule else [], value)) or [f"{told}: no other rows, but more"]
    for rule in left[len(unmatched) :]:
        found += list(unlike(f"{words}: rule {rule.rule}, no validator", (), [rule], value))
    return found


def unlike(words: str, keys: Iterable[str], findings: Sequence[Finding], value: Callable[[str], str]) -> Iterator[str]:
    """How findings that should have these keys differ from them; one by one where the samples are all of them."""
    wanted = set(keys)
    found = {str(sample["key"]) for finding in findings for sample in finding.samples}
    count = sum(finding.count for finding in findings)
    complete = len(wanted) <= SAMPLES and all(finding.count <= SAMPLES for finding in findings)
    missed, wrong = (wanted - found if complete else set()), found - wanted
    if missed:
        yield f"{words}: marshmallow refuses {_smallest(missed, value)}, SQL takes it ({len(missed)} rows)"
    if wrong:
        yield f"{words}: marshmallow takes {_smallest(wrong, value)}, SQL refuses it ({len(wrong)} rows)"
    if count != len(wanted) and not missed and not wrong:
        yield f"{words}: {count} rows, not {len(wanted)}"


def _smallest(keys: Iterable[str], value: Callable[[str], str]) -> str:
    return min((value(key) for key in keys), key=len, default="nothing")
