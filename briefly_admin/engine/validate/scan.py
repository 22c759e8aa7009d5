"""The record rules of one table: counted in one scan, samples and disputed values fetched only where there are some."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Any, Final, LiteralString

from psycopg import sql

from briefly_admin.domain.findings import Finding, FindingClass
from briefly_admin.engine.compiler import Condition
from briefly_admin.engine.validate.parts import SAMPLES, Part
from briefly_admin.engine.validate.reading import Reading, as_json
from briefly_admin.engine.validate.record import ALIAS, WHOLE_ROW, CompiledTable, FieldCheck

_LONGEST_VALUE: Final = 120
"""Characters of a value that a finding shows."""
REPAIR: Final = "repair"
"""The rule of values that marshmallow takes and a repair would change."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What one finding will say; `where` selects its rows in SQL (those that Python judged are counted apart)."""

    check: FieldCheck
    rule: str
    words: str
    finding_class: FindingClass
    where: sql.Composable


_Key = tuple[str, str, FindingClass]
"""Field, rule, class."""


@dataclass(frozen=True, slots=True)
class RowRule:
    """A rule across rows that one row can answer, given what it is joined to; `place` is its number.

    `join` is what stands after the table's source, for at most one row each; `broken` is never NULL.
    """

    place: int
    field: str
    name: str
    words: str
    finding_class: FindingClass
    secret: bool
    value: sql.Composable
    broken: sql.Composable
    join: sql.Composable | None = None


@dataclass(slots=True)
class _Found:
    count: int = 0
    samples: list[Mapping[str, Any]] = field(default_factory=list)


def any_of(tests: Sequence[sql.Composable]) -> sql.Composable:
    """Whether one of the tests is TRUE; none of them may be NULL."""
    return sql.SQL("({})").format(sql.SQL(" OR ").join(tests)) if tests else sql.SQL("false")


def fails(conditions: Sequence[Condition]) -> list[sql.Composable]:
    """The conditions' failures, without those that cannot fail."""
    return [condition.fails for condition in conditions if condition.test is not None]


def count_rows(reading: Reading, compiled: CompiledTable) -> int:
    """The rows at hand, all of them."""
    ((count,),) = reading.rows(sql.SQL("SELECT count(*) FROM {} WHERE {}").format(compiled.plain, compiled.within))
    return int(count)


def scan_parts(
    reading: Reading, compiled: CompiledTable, rules: Sequence[RowRule] = ()
) -> tuple[list[Part], list[Part]]:  # fmt: skip
    """What the record schema and the repairs say of the rows at hand, and what `rules` say; counts are exact."""
    tallies = [tally for check in compiled.fields for tally in _tallies(check)]
    disputes = [check for check in compiled.fields if check.is_unsure]
    tests = [tally.where for tally in tallies] + [_disputed(check) for check in disputes]
    if not tests and not rules:
        return [], []
    flagged = _count(reading, compiled, tests, rules)
    of_tallies, rest = flagged[: len(tallies)], flagged[len(tallies) :]
    found = {_key(tally): _Found(one.count) for tally, one in zip(tallies, of_tallies, strict=True) if one.count}
    samples = _Samples(reading, compiled)
    for tally, one in zip(tallies, of_tallies, strict=True):
        samples.want(one, tally.check.raw, secret=tally.check.secret)
    of_rules = rest[len(disputes) :]
    for rule, one in zip(rules, of_rules, strict=True):
        samples.want(one, rule.value, secret=rule.secret)
    taken = samples.fetch()
    for tally, one in zip(tallies, of_tallies, strict=True):
        if one.count:
            found[_key(tally)].samples += taken[one.number]
    for check, one in zip(disputes, rest, strict=False):
        if one.count:
            _judge(reading, compiled, check, found, None if one.count > SAMPLES else one.places)
    across = [
        _rule_part(compiled, rule, one.count, taken[one.number])
        for rule, one in zip(rules, of_rules, strict=True) if one.count
    ]  # fmt: skip
    return _as_parts(compiled, tallies, found), across


def _rule_part(compiled: CompiledTable, rule: RowRule, count: int, samples: Sequence[Mapping[str, Any]]) -> Part:
    table = compiled.table.name
    return Part(rule.place, Finding(
        table=table, field=rule.field, rule=rule.name, finding_class=rule.finding_class, count=count,
        message=f"{table}.{rule.field}: {rule.words}", samples=samples,
    ))  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Flagged:
    """How many rows have the flag of that number, and the places of the first 100 in the table's own order."""

    number: int
    count: int
    places: Sequence[str]


_COUNT: Final = sql.SQL(
    "WITH judged AS MATERIALIZED (SELECT t.{o} AS o, t.{c} AS c, {flags} FROM {source}), "
    "counted AS MATERIALIZED (SELECT {counts} FROM judged) SELECT {names}, {places} FROM counted AS n"
)
_PLACES: Final = sql.SQL(
    "CASE WHEN n.{flag} > 0 THEN ARRAY("
    "SELECT j.o::text || j.c::text FROM judged AS j WHERE j.{flag} ORDER BY j.o, j.c LIMIT {samples}) END"
)


def _count(
    reading: Reading, compiled: CompiledTable, flags: Sequence[sql.Composable], rules: Sequence[RowRule]
) -> list[_Flagged]:  # fmt: skip
    """Every flag's rows and every rule's, in one scan."""
    names = [sql.Identifier(f"f{number}") for number in range(len(flags) + len(rules))]
    o, c, source, broken = _suspects(compiled, rules)
    (row,) = reading.rows(_COUNT.format(
        o=o, c=c, source=source, flags=_listed("{} AS {}", [*flags, *broken], names), names=_listed("n.{}", names),
        counts=_listed("count(*) FILTER (WHERE {}) AS {}", names, names),
        places=sql.SQL(", ").join(_PLACES.format(flag=name, samples=sql.Literal(SAMPLES)) for name in names),
    ))  # fmt: skip
    return [_Flagged(number, int(row[number]), row[len(names) + number] or []) for number in range(len(names))]


def _suspects(
    compiled: CompiledTable, rules: Sequence[RowRule]
) -> tuple[sql.Identifier, sql.Identifier, sql.Composable, Sequence[sql.Composable]]:
    """The rows `t`, with their repairs' joins, that a glance does not tell right: what is asked of each pays for these.

    Names of t's columns that say where the row is, what to put after FROM, and of each rule whether `t` breaks it.
    """
    broken = [rule.broken for rule in rules]
    suspects = any_of([test for check in compiled.fields for test in check.suspects] + broken)
    # Few rows are suspect, which no planner can know: of a test for a number it expects few rows, of an OR nearly all.
    few = sql.SQL("(CASE WHEN {} THEN 1 ELSE 0 END) = 1").format(suspects)
    where = sql.SQL("WHERE {} AND {} AND {}").format(compiled.within, compiled.rows, few)
    joins = sql.SQL(" ").join(rule.join for rule in rules if rule.join is not None)
    if not compiled.late:
        source = sql.SQL("{} {} {}").format(compiled.source, joins, where)
        return sql.Identifier("tableoid"), sql.Identifier("ctid"), source, broken
    # A repair's value is looked up for suspects alone: the planner, who thinks them many, would do it for every row.
    present = {column.name for column in compiled.catalog.columns}
    o, c, *names = islice((name for n in count() if (name := f"s{n}") not in present), len(rules) + 2)
    told = zip([sql.SQL("t.tableoid"), sql.SQL("t.ctid"), *broken], map(sql.Identifier, [o, c, *names]), strict=True)
    source = sql.SQL("(SELECT t.*, {} FROM {} {} {} OFFSET 0) AS t {}").format(
        sql.SQL(", ").join(sql.SQL("{} AS {}").format(*each) for each in told),
        compiled.plain, joins, where, compiled.joins,
    )  # fmt: skip
    return sql.Identifier(o), sql.Identifier(c), source, [sql.Identifier(ALIAS, name) for name in names]


def _listed(text: LiteralString, *parts: Sequence[sql.Composable]) -> sql.Composable:
    return sql.SQL(", ").join(sql.SQL(text).format(*each) for each in zip(*parts, strict=True))


def _at(places: Sequence[str]) -> sql.Composable:
    """The rows there; where the table has children, those of the same place in another of them, too."""
    return sql.SQL("t.ctid = ANY({}::tid[])").format(sql.Literal([f"({place.partition('(')[2]}" for place in places]))


def _key(tally: Tally) -> _Key:
    return tally.check.name, tally.rule, tally.finding_class


def _disputed(check: FieldCheck) -> sql.Composable:
    """Rows of which SQL does not know the field's verdict."""
    return any_of([c.fails for c in (*check.before, *check.after) if c.judge])


def _tallies(check: FieldCheck) -> Iterator[Tally]:
    """A tally a rule and class; their `where` leaves disputed rows to `_judge`."""
    known = sql.SQL("NOT {}").format(_disputed(check)) if check.is_unsure else sql.SQL("true")
    # A value that is right stays: its repair need not be computed to know it.
    doubt = any_of(check.suspects) if check.repair_words else sql.SQL("true")
    for condition in check.after:
        if condition.test is not None:
            where = sql.SQL("({} AND {} AND {})").format(doubt, condition.fails, known)
            yield Tally(check, condition.name, condition.words, FindingClass.BLOCKING, where)
    if not check.repair_words:
        return
    cured = sql.SQL("NOT {}").format(any_of(fails(check.after)))
    for condition in check.before:
        if condition.test is not None:
            where = sql.SQL("({} AND {} AND {})").format(condition.fails, known, cured)
            yield Tally(check, condition.name, check.repair_words, FindingClass.REPAIRABLE, where)
    if check.may_change is None and not check.is_unsure:
        return
    right = sql.SQL("NOT {}").format(any_of(fails(check.before)))
    where = sql.SQL("({} AND {} AND {} AND {})").format(check.changed, known, cured, right)
    yield Tally(check, REPAIR, check.repair_words, FindingClass.REPAIRABLE, where)


def shown(value: sql.Composable) -> sql.Composable:
    """A value as a short text: what its JSON is, a text without quotes."""
    return sql.SQL("left(to_jsonb({}) #>> '{{}}', {})").format(value, sql.Literal(_LONGEST_VALUE + 1))


def sample(key: Sequence[str], value: str | None, *, secret: bool) -> dict[str, Any]:
    """One sample of a finding: the key's columns as one text, the value unless it is secret."""
    text = {"key": ", ".join(key)}
    if secret:
        return text
    if value is not None and len(value) > _LONGEST_VALUE:
        value = value[:_LONGEST_VALUE] + "…"
    return text | {"value": "NULL" if value is None else value}


class _Samples:
    """The rows of all findings' samples, fetched at once by their places."""

    def __init__(self, reading: Reading, compiled: CompiledTable) -> None:
        self._reading = reading
        self._compiled = compiled
        self._wanted: list[tuple[_Flagged, sql.Composable, bool]] = []

    def want(self, flagged: _Flagged, value: sql.Composable, *, secret: bool) -> None:
        """Samples of that flag's rows, with that value over `t`."""
        if flagged.count:
            self._wanted.append((flagged, sql.SQL("NULL") if secret else shown(value), secret))

    def fetch(self) -> dict[int, list[dict[str, Any]]]:
        """Flag's number → its samples, in the table's own order."""
        places = sorted({place for flagged, _, _ in self._wanted for place in flagged.places})
        if not places:
            return {}
        self._reading.check_stop()
        query = sql.SQL("SELECT t.tableoid::text || t.ctid::text, {}, ARRAY[{}]::text[] FROM {} WHERE {}")
        rows = self._reading.rows(query.format(
            self._compiled.key_array, sql.SQL(", ").join(value for _, value, _ in self._wanted),
            self._compiled.plain, _at(places),
        ))  # fmt: skip
        there = {place: (key, values) for place, key, values in rows}
        return {
            flagged.number: [
                sample(there[place][0], there[place][1][column], secret=secret) for place in flagged.places
            ]
            for column, (flagged, _, secret) in enumerate(self._wanted)
        }


def disputed_columns(check: FieldCheck) -> sql.Composable:
    """Both values as JSON texts, which conditions SQL says fail (before, after), whether the repair changes it."""
    flags = [sql.SQL("ARRAY[{}]::bool[]").format(sql.SQL(", ").join(c.fails for c in conditions))
             for conditions in (check.before, check.after)]  # fmt: skip
    return sql.SQL("to_jsonb({})::text, to_jsonb({})::text, {}, {}, {}").format(
        check.raw, check.repaired, *flags, check.changed
    )


def really_fail(conditions: Sequence[Condition], flags: Sequence[bool], value: str | None) -> list[Condition]:
    """Of the conditions that SQL does not accept, those that marshmallow does not, either."""
    return [c for c, flag in zip(conditions, flags, strict=True) if flag and not (c.judge and c.judge(as_json(value)))]


def _judge(
    reading: Reading, compiled: CompiledTable, check: FieldCheck, found: dict[_Key, _Found],
    places: Sequence[str] | None,
) -> None:  # fmt: skip
    """Fetch the disputed rows in chunks, and let marshmallow decide. `places`: where all of them are, if known."""
    where = compiled.within if places is None else _at(places)
    query = sql.SQL("SELECT {}, {}, {} FROM {} WHERE {} AND {} AND {}").format(
        compiled.key_array, disputed_columns(check), sql.SQL("NULL") if check.secret else shown(check.raw),
        compiled.source, where, compiled.rows, _disputed(check),
    )  # fmt: skip
    for position, (key, raw, repaired, before, after, changed, value) in enumerate(reading.stream(query)):
        if position % 10_000 == 0:
            reading.check_stop()
        for rule, finding_class in _verdict(check, (raw, before), (repaired, after), changed=changed):
            entry = found.setdefault((check.name, rule, finding_class), _Found())
            entry.count += 1
            if len(entry.samples) < SAMPLES:
                entry.samples.append(sample(key, value, secret=check.secret))


def _verdict(
    check: FieldCheck, raw: tuple[str | None, Sequence[bool]], repaired: tuple[str | None, Sequence[bool]], *,
    changed: bool,
) -> list[tuple[str, FindingClass]]:  # fmt: skip
    blocking = really_fail(check.after, repaired[1], repaired[0])
    if blocking or not check.repair_words:
        return [(condition.name, FindingClass.BLOCKING) for condition in blocking]
    wrong = [condition.name for condition in really_fail(check.before, raw[1], raw[0])]
    if not wrong and changed:
        wrong = [REPAIR]
    return [(name, FindingClass.REPAIRABLE) for name in wrong]


def _as_parts(compiled: CompiledTable, tallies: Sequence[Tally], found: Mapping[_Key, _Found]) -> list[Part]:
    table = compiled.table.name
    return [
        Part(place, Finding(
            table=table, field=tally.check.name, rule=tally.rule, finding_class=tally.finding_class,
            count=found[_key(tally)].count, message=_message(table, tally),
            samples=found[_key(tally)].samples[:SAMPLES],
        ))
        for place, tally in enumerate(tallies) if _key(tally) in found
    ]  # fmt: skip


def _message(table: str, tally: Tally) -> str:
    place = table if tally.check.name == WHOLE_ROW else f"{table}.{tally.check.name}"
    if tally.finding_class is FindingClass.REPAIRABLE:
        missing = " (the column is missing)" if tally.check.missing else ""
        return f"{place}{missing}: {tally.words}"
    return f"{place} {tally.words}"
