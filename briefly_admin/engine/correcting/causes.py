"""All rows that have one finding now: streamed, counted nowhere, judged by marshmallow where SQL alone cannot tell."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from psycopg import sql

from briefly_admin.domain.corrections import Cause, RowOfCause
from briefly_admin.domain.errors import NotFound
from briefly_admin.domain.findings import FindingClass
from briefly_admin.engine.correcting.place import Place, checked_key, find_place
from briefly_admin.engine.correcting.verdict import stream
from briefly_admin.engine.target import Connection
from briefly_admin.engine.validate.across import declared_rules, set_rule
from briefly_admin.engine.validate.reading import reading
from briefly_admin.engine.validate.record import WHOLE_ROW, CompiledTable, FieldCheck, compile_table
from briefly_admin.engine.validate.scan import REPAIR, any_of, fails, really_fail, sample, shown
from briefly_admin.plans.base import Plan, Repair

EVERY_CLASS: Final = frozenset(FindingClass)
_KEYS_AT_ONCE: Final = 5000
Keys = Sequence[Sequence[str]]


def rows_of_cause(
    connection: Connection, plan: Plan, cause: Cause, *, limit: int | None = None,
    classes: Collection[FindingClass] = EVERY_CLASS, excluded: Keys = (),
) -> Iterator[RowOfCause]:  # fmt: skip
    """Each row with this finding, of these classes, once; rows whose keys are `excluded` left aside.

    `connection` is busy with a read-only transaction until the iterator ends or is closed. Raises NotFound where the
    plan has no such table or rule; Refused, Unavailable, RunFailed as `examine` does.
    """
    with reading(connection):
        place = find_place(connection, plan, cause.table)
        yield from islice(search(connection, place, cause, classes, excluded).rows(connection), limit)


def rows_of_keys(
    connection: Connection, plan: Plan, cause: Cause, keys: Iterable[Sequence[str]]
) -> Iterator[RowOfCause]:
    """The rows of these keys that are still there, with the value of the cause's field. Raises as `rows_of_cause`."""
    with reading(connection):
        place = find_place(connection, plan, cause.table)
        remaining = iter(keys)
        while chunk := list(islice(remaining, _KEYS_AT_ONCE)):
            yield from _of_keys(connection, place, cause, [checked_key(place.table, key) for key in chunk])


def _of_keys(connection: Connection, place: Place, cause: Cause, keys: Keys) -> Iterator[RowOfCause]:
    there = place.here.column(cause.field) is not None and any(c.name == cause.field for c in place.table.columns)
    secret = cause.field in place.table.secrets or not there
    value = sql.SQL("NULL::text") if secret else shown(sql.Identifier("o", cause.field))
    query = sql.SQL("SELECT {}, {} FROM {} AS o JOIN ({}) AS x ON {}").format(
        place.key_array("o"),
        value,
        place.here.identifier,
        typed_keys(place, given_keys(keys)),
        same_key(place, "x", "o"),
    )
    for key, text in stream(connection, query):
        yield RowOfCause(tuple(key), sample(key, text, secret=secret).get("value"))


def given_keys(keys: Keys) -> sql.Composable:
    """A query of the keys as `key text[]`."""
    width = len(keys[0]) if keys else 1
    columns = [sql.SQL("{}::text[]").format(sql.Literal([key[at] for key in keys])) for at in range(width)]
    names = [sql.Identifier(f"k{at}") for at in range(width)]
    return sql.SQL("SELECT ARRAY[{n}] AS key FROM unnest({c}) AS u({n})").format(
        n=sql.SQL(", ").join(names), c=sql.SQL(", ").join(columns)
    )


def typed_keys(place: Place, keys: sql.Composable) -> sql.Composable:
    """From a query of `key text[]` to one of `k0, k1, …` in the types of the key's columns, each key once."""
    columns = [place.here.column(name) for name in place.table.key]
    typed = (
        sql.SQL("g.key[{}]::{} AS {}").format(
            sql.Literal(at + 1), sql.SQL(column.type if column else "text"), sql.Identifier(f"k{at}")
        )
        for at, column in enumerate(columns)
    )
    return sql.SQL("SELECT DISTINCT {} FROM ({}) AS g").format(sql.SQL(", ").join(typed), keys)


def same_key(place: Place, keys: str, rows: str) -> sql.Composable:
    """Whether `keys` (k0, k1, …) names the row `rows`."""
    same = (
        sql.SQL("{} = {}").format(sql.Identifier(rows, name), sql.Identifier(keys, f"k{at}"))
        for at, name in enumerate(place.table.key)
    )
    return sql.SQL("({})").format(sql.SQL(" AND ").join(same))


@dataclass(frozen=True, slots=True)
class Search:
    """The rows of a cause as a query of `key, value`; with `judged` marshmallow has the last word on each."""

    query: sql.Composable
    secret: bool
    judged: Callable[..., bool] | None = None
    """From the query's further columns to whether the row has the finding."""

    def rows(self, connection: Connection) -> Iterator[RowOfCause]:
        """The rows, streamed."""
        for key, value, *found in stream(connection, self.query):
            if self.judged is None or self.judged(*found):
                yield RowOfCause(tuple(key), sample(key, value, secret=self.secret).get("value"))


def search(
    connection: Connection, place: Place, cause: Cause, classes: Collection[FindingClass], excluded: Keys
) -> Search:
    """As `rows_of_cause`, for the caller's transaction. Raises NotFound, Refused."""
    compiled = compile_table(connection, place.plan, place.table, place.catalog, excluded)
    for number in range(len(declared_rules(place.table))):
        rule = set_rule(place.plan, compiled, place.catalog, number)
        if rule and (rule.field, rule.name) == (cause.field, cause.rule):
            return Search(rule.keys, rule.secret) if rule.finding_class in classes else _nothing(compiled)
    check = next((check for check in compiled.fields if check.name == cause.field), None)
    rules = {c.name for c in (*check.before, *check.after)} | {REPAIR} if check else set()
    if check is not None and cause.rule in rules:
        return _of_check(compiled, check, cause.rule, classes)
    if any((_name(rule), rule_field) == (cause.rule, cause.field) for rule, rule_field in _declared(place)):
        return _nothing(compiled)  # the database itself sees to it
    raise NotFound(
        f"Validation of {cause.table} has no rule {cause.rule} of {cause.field}.",
        remedy="Take table, field and rule from a finding.",
    )


def _nothing(compiled: CompiledTable) -> Search:
    return Search(
        sql.SQL("SELECT {} AS key, NULL::text AS value FROM {} WHERE false").format(compiled.key_array, compiled.plain),
        secret=True,
    )


def _declared(place: Place) -> Iterator[tuple[object, str]]:
    table = place.table
    yield from ((key, key.column) for key in table.foreign_keys)
    yield from ((unique, ", ".join(unique.columns)) for unique in table.uniques)
    yield from ((relation, relation.field) for relation in table.relations)


def _name(rule: object) -> str:
    return str(getattr(rule, "name", "")) or {"ForeignKey": "foreign_key"}.get(type(rule).__name__, "unique")


def _of_check(compiled: CompiledTable, check: FieldCheck, rule: str, classes: Collection[FindingClass]) -> Search:
    joined = {repair.column for repair in compiled.table.repairs if not isinstance(repair, Repair)}
    source = compiled.source if check.name in joined or check.name == WHOLE_ROW else compiled.plain
    value = sql.SQL("NULL::text") if check.secret else shown(check.raw)
    where = _exactly(check, rule, classes)
    more: sql.Composable = sql.SQL("")
    if check.is_unsure:
        more = sql.SQL(", {}").format(_to_judge(check))
        if FindingClass.REPAIRABLE in classes:
            where = any_of([*fails(check.before), *fails(check.after), check.changed])
    query = sql.SQL("SELECT {} AS key, {} AS value{} FROM {} WHERE {} AND {}").format(
        compiled.key_array, value, more, source, compiled.rows, where
    )
    return Search(query, check.secret, _judge(check, rule, classes) if check.is_unsure else None)


def _judge(check: FieldCheck, rule: str, classes: Collection[FindingClass]) -> Callable[..., bool]:
    def judge(
        raw: str | None, repaired: str | None, before: Sequence[bool], after: Sequence[bool], changed: bool
    ) -> bool:  # fmt: skip
        blocking = {c.name for c in really_fail(check.after, after, repaired)}
        if blocking or not check.repair_words:
            return FindingClass.BLOCKING in classes and rule in blocking
        wrong = {c.name for c in really_fail(check.before, before, raw)} or ({REPAIR} if changed else set())
        return FindingClass.REPAIRABLE in classes and rule in wrong

    return judge


def _to_judge(check: FieldCheck) -> sql.Composable:
    flags = [
        sql.SQL("ARRAY[{}]::bool[]").format(sql.SQL(", ").join(c.fails for c in conditions))
        for conditions in (check.before, check.after)
    ]
    return sql.SQL("to_jsonb({})::text, to_jsonb({})::text, {}, {}, {}").format(
        check.raw, check.repaired, *flags, check.changed
    )


def _exactly(check: FieldCheck, rule: str, classes: Collection[FindingClass]) -> sql.Composable:
    """The condition of a rule that SQL alone decides."""
    tests: list[sql.Composable] = []
    if FindingClass.BLOCKING in classes:
        tests += fails([c for c in check.after if c.name == rule])
    if FindingClass.REPAIRABLE in classes and check.repair_words:
        cured = sql.SQL("NOT {}").format(any_of(fails(check.after)))
        tests += [
            sql.SQL("({} AND {})").format(test, cured) for test in fails([c for c in check.before if c.name == rule])
        ]
        if rule == REPAIR:
            right = sql.SQL("NOT {}").format(any_of(fails(check.before)))
            tests.append(sql.SQL("({} AND {} AND {})").format(check.changed, cured, right))
    return any_of(tests)
