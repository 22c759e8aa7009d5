"""The record rules of one table: counted in one scan, samples and disputed values fetched only where there are some."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from psycopg import sql

from briefly_admin.domain.findings import Finding, FindingClass
from briefly_admin.engine.compiler import Condition
from briefly_admin.engine.validate.parts import SAMPLES, Part
from briefly_admin.engine.validate.reading import Reading, as_json
from briefly_admin.engine.validate.record import WHOLE_ROW, CompiledTable, FieldCheck

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
    ((count,),) = reading.rows(sql.SQL("SELECT count(*) FROM {}").format(compiled.plain))
    return int(count)


def record_parts(reading: Reading, compiled: CompiledTable) -> list[Part]:
    """What the record schema and the repairs say of the rows at hand; counts are exact."""
    tallies = [tally for check in compiled.fields for tally in _tallies(check)]
    disputes = [check for check in compiled.fields if check.is_unsure]
    unclean = any_of([test for check in compiled.fields for test in (*fails(check.before), check.changed)])
    counters = [tally.where for tally in tallies] + [_disputed(check) for check in disputes]
    if not counters:
        return []
    query = sql.SQL("SELECT {} FROM {} WHERE {} AND {}").format(
        sql.SQL(", ").join(sql.SQL("count(*) FILTER (WHERE {})").format(test) for test in counters),
        compiled.source, compiled.rows, unclean,
    )  # fmt: skip
    (counts,) = reading.rows(query)
    found = {_key(tally): _Found(int(count)) for tally, count in zip(tallies, counts, strict=False) if count}
    _fetch_samples(reading, compiled, [tally for tally in tallies if _key(tally) in found], found)
    for check, count in zip(disputes, counts[len(tallies) :], strict=True):
        if count:
            _judge(reading, compiled, check, found)
    return _as_parts(compiled, tallies, found)


def _key(tally: Tally) -> tuple[str, str, FindingClass]:
    return tally.check.name, tally.rule, tally.finding_class


def _disputed(check: FieldCheck) -> sql.Composable:
    """Rows of which SQL does not know the field's verdict."""
    return any_of([c.fails for c in (*check.before, *check.after) if c.judge])


def _tallies(check: FieldCheck) -> Iterator[Tally]:
    """A tally a rule and class; their `where` leaves disputed rows to `_judge`."""
    known = sql.SQL("NOT {}").format(_disputed(check)) if check.is_unsure else sql.SQL("true")
    for condition in check.after:
        if condition.test is not None:
            where = sql.SQL("({} AND {})").format(condition.fails, known)
            yield Tally(check, condition.name, condition.words, FindingClass.BLOCKING, where)
    if not check.repair_words:
        return
    cured = sql.SQL("NOT {}").format(any_of(fails(check.after)))
    for condition in check.before:
        if condition.test is not None:
            where = sql.SQL("({} AND {} AND {})").format(condition.fails, known, cured)
            yield Tally(check, condition.name, check.repair_words, FindingClass.REPAIRABLE, where)
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


def _fetch_samples(
    reading: Reading, compiled: CompiledTable, tallies: Sequence[Tally],
    found: Mapping[tuple[str, str, FindingClass], _Found],
) -> None:  # fmt: skip
    """Frequent rules end early, each by its LIMIT; the rare ones share one scan."""
    rare = [tally for tally in tallies if found[_key(tally)].count <= SAMPLES]
    groups = [[tally] for tally in tallies if tally not in rare] + ([rare] if rare else [])
    for group in groups:
        reading.check_stop()
        query = sql.SQL(
            "SELECT {key}, ARRAY[{hits}], ARRAY[{values}]::text[] FROM {source} WHERE {rows} AND {any}{limit}"
        )
        hits = sql.SQL(", ").join(tally.where for tally in group)
        rows = reading.stream(query.format(
            key=compiled.key_array, hits=hits, values=sql.SQL(", ").join(_shown_of(tally) for tally in group),
            source=compiled.source, rows=compiled.rows, any=any_of([tally.where for tally in group]),
            limit=sql.SQL(" LIMIT {}").format(sql.Literal(SAMPLES)) if group is not rare else sql.SQL(""),
        ))  # fmt: skip
        for key, flags, values in rows:
            for tally, hit, value in zip(group, flags, values, strict=True):
                if hit:
                    found[_key(tally)].samples.append(sample(key, value, secret=tally.check.secret))


def _shown_of(tally: Tally) -> sql.Composable:
    return sql.SQL("NULL") if tally.check.secret else shown(tally.check.raw)


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
    reading: Reading, compiled: CompiledTable, check: FieldCheck, found: dict[tuple[str, str, FindingClass], _Found]
) -> None:
    """Fetch the disputed rows in chunks, and let marshmallow decide."""
    query = sql.SQL("SELECT {}, {}, {} FROM {} WHERE {} AND {}").format(
        compiled.key_array, disputed_columns(check), sql.SQL("NULL") if check.secret else shown(check.raw),
        compiled.source, compiled.rows, _disputed(check),
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


def _as_parts(
    compiled: CompiledTable, tallies: Sequence[Tally], found: Mapping[tuple[str, str, FindingClass], _Found]
) -> list[Part]:
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
