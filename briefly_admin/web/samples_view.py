"""Rows that a preview shows, before / as migrated / now: no more of them than a page can hold."""

import hashlib
import html
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Final

CLASSES: Final = {
    "untouched": "untouched", "migrated": "changed by the migration alone", "edited": "edited since",
    "created": "created since", "deleted": "deleted since",
}  # fmt: skip
"""What became of a row since the backup → in words."""
LONGEST: Final = 200
"""Characters of a value in a sample, as the engine cuts it: one of just so many may have been longer."""
_SAMPLED: Final = {"edited": 20, "migrated": 5, "created": 5, "deleted": 5}
"""Class → rows of a table on the page, at most; those that can be settled stand first."""
_STATES: Final = {"created": ("now",), "deleted": ("before", "migrated")}
_ROOM: Final = 100_000
"""Bytes of HTML that all samples of a page may take, about."""
_BYTES_A_ROW: Final = {"edited": 1_000}
"""Class → what a row takes beside its columns; the edited ones bring fields."""
_BYTES_A_COLUMN: Final = {"edited": 900}
_BYTES_ELSE: Final = 300


@dataclass(frozen=True, slots=True)
class Value:
    """A column's value: `kind` 'text', or what stands in its place: 'null', 'empty', 'hidden', 'absent' (no row)."""

    kind: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class SampleColumn:
    """A column before, as migrated, and now; `raw` is what it is now, None for NULL."""

    name: str
    before: Value
    migrated: Value
    now: Value
    secret: bool
    raw: str | None

    @property
    def cut(self) -> bool:
        """Whether what it is now may be longer than what is shown."""
        return self.raw is not None and len(self.raw) >= LONGEST

    @property
    def editable(self) -> bool:
        """Neither is a secret typed into a page, nor the rest of a value lost with what was cut."""
        return not self.secret and not self.cut


@dataclass(frozen=True, slots=True)
class Sample:
    """A row by its key; `name` tells it from all others of the preview, and is safe in an id."""

    name: str
    table: str
    key: tuple[str, ...]
    title: str
    columns: tuple[SampleColumn, ...]

    @property
    def cut(self) -> tuple[str, ...]:
        """Columns that are too long to be edited on a page."""
        return tuple(column.name for column in self.columns if column.cut)


@dataclass(frozen=True, slots=True)
class SampleGroup:
    """Rows of one table that fared alike; `left` says how many are not shown, and how they are reached."""

    id: str
    table: str
    kind: str
    title: str
    samples: tuple[Sample, ...]
    left: str
    keyed: bool
    """Whether the rows have keys that may be shown; those without cannot be settled one by one."""

    @property
    def states(self) -> tuple[str, ...]:
        """Of "before", "migrated" and "now" those in which its rows were there."""
        return _STATES.get(self.kind, ("before", "migrated", "now"))


def sample_groups(
    by_table: Mapping[str, Any], classes: Mapping[str, Any], names: Sequence[str]
) -> tuple[SampleGroup, ...]:  # fmt: skip
    """Of `report["preview"]["samples"]`, with the counts of the classes, tables in the order of the names."""
    listed = {
        (name, kind): [_sample(name, n, row) for n, row in enumerate(_list(by_table.get(name))) if row["class"] == kind]
        for name in names
        for kind in _SAMPLED
    }
    shown = _fitting(listed)
    return tuple(
        _group(name, kind, shown[name, kind], len(samples), int(_map(classes.get(name)).get(kind, len(samples))))
        for (name, kind), samples in listed.items()
        if samples
    )


def _group(table: str, kind: str, shown: Sequence[Sample], listed: int, rows: int) -> SampleGroup:
    title = f"{table}: {rows:,} {CLASSES[kind]}"
    left = ""
    keyed = all(sample.key for sample in shown)
    if rows > len(shown):
        left = f"{len(shown):,} of {rows:,} rows are shown." if shown else "The page has no room for any of them."
        if kind == "edited":
            left += " The others go by the rule"
            left += (
                f"; {listed:,} are named in the preview’s JSON, where they can be settled, too."
                if listed > len(shown) and keyed
                else "."
            )
    if not keyed:
        left = f"{left} Their key is secret: rows are shown without it, and the rule decides about all.".lstrip()
    # Made of a number and not of the name, which may hold anything.
    return SampleGroup(f"samples-{_short(table)}-{kind}", table, kind, title, tuple(shown), left, keyed)


def _fitting(listed: Mapping[tuple[str, str], Sequence[Sample]]) -> dict[tuple[str, str], list[Sample]]:
    """As many as the page has room for, always the same ones: first one of each group, then row by row of each table
    in turn, the edited ones before all others.
    """
    room = _ROOM
    shown: dict[tuple[str, str], list[Sample]] = {place: [] for place in listed}
    for place, sample in (*_firsts(listed), *_others(listed)):
        weight = _weight(sample, place[1])
        if weight <= room:
            room -= weight
            shown[place].append(sample)
    return shown


_Placed = Iterator[tuple[tuple[str, str], Sample]]


def _firsts(listed: Mapping[tuple[str, str], Sequence[Sample]]) -> _Placed:
    for kind in _SAMPLED:
        yield from ((place, samples[0]) for place, samples in listed.items() if place[1] == kind and samples)


def _others(listed: Mapping[tuple[str, str], Sequence[Sample]]) -> _Placed:
    for kind, most in _SAMPLED.items():
        of_kind = [(place, samples[1:most]) for place, samples in listed.items() if place[1] == kind]
        for row in zip_longest(*(samples for _, samples in of_kind)):
            yield from ((place, sample) for (place, _), sample in zip(of_kind, row, strict=True) if sample is not None)


def _weight(sample: Sample, kind: str) -> int:
    values = [value.text for column in sample.columns for value in (column.before, column.migrated, column.now)]
    if kind == "edited":
        values += [column.raw or "" for column in sample.columns]
    texts = sum(len(html.escape(text).encode()) for text in (*values, sample.title))
    columns = _BYTES_A_COLUMN.get(kind, _BYTES_ELSE) * len(sample.columns)
    return _BYTES_A_ROW.get(kind, _BYTES_ELSE) + columns + texts


def _sample(table: str, number: int, item: Mapping[str, Any]) -> Sample:
    key = tuple(str(text) for text in item["key"])
    columns = tuple(_column(column, str(item["class"])) for column in item["columns"])
    name = _short(table, *(key or (str(number),)))
    return Sample(name, table, key, ", ".join(key) if key else "key hidden", columns)


def _column(column: Mapping[str, Any], kind: str) -> SampleColumn:
    secret = bool(column.get("secret"))
    texts = [None if secret else column.get(name) for name in ("before", "migrated", "now")]
    absent = {"created": (True, True, False), "deleted": (False, False, True)}.get(kind, (False, False, False))
    before, migrated, now = (
        _value(text, secret=secret, absent=gone) for text, gone in zip(texts, absent, strict=True)
    )  # fmt: skip
    raw = None if texts[2] is None else str(texts[2])
    return SampleColumn(str(column["name"]), before, migrated, now, secret, raw)


def _value(text: Any, *, secret: bool, absent: bool) -> Value:
    if absent:
        return Value("absent")
    if secret:
        return Value("hidden")
    if text is None:
        return Value("null")
    if text == "":
        return Value("empty")
    return Value("text", f"{text}…" if len(text) >= LONGEST else str(text))


def _short(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()
