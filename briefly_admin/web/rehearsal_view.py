"""What a rehearsal saw: what would change, from what to what, and what would fail."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from briefly_admin.web import formats


@dataclass(frozen=True, slots=True)
class Sample:
    """A value that a repair would change; secrets come masked from the engine."""

    key: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class RehearsedRepair:
    """A repair: in how many rows it would change something, with samples."""

    table: str
    column: str
    words: str
    rows: str
    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True)
class Failure:
    """Rows that would fail, by cause."""

    table: str
    cause: str
    rows: str
    keys: str


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """A rehearsal's part of the report."""

    projection: str
    repairs: tuple[RehearsedRepair, ...]
    failures: tuple[Failure, ...]


def rehearsal_of(migrate: Mapping[str, Any]) -> Rehearsal:
    """From the result of a rehearsed migrate phase (engine.rehearse)."""
    return Rehearsal(
        projection=_projection(migrate),
        repairs=tuple(_repair(table, item) for table, item in _items(migrate, "repairs") if item.get("count")),
        failures=tuple(_failure(table, item) for table, item in _items(migrate, "failures")),
    )


def _items(migrate: Mapping[str, Any], name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(table, item) of every table's list `name`."""
    for table in migrate.get("tables") or ():
        for item in table.get(name) or ():
            yield str(table.get("table", "")), item


def _repair(table: str, item: Mapping[str, Any]) -> RehearsedRepair:
    return RehearsedRepair(
        table=table,
        column=str(item.get("column", "")),
        words=str(item.get("words", "")),
        rows=formats.number(item.get("count")),
        samples=tuple(
            Sample(_text(sample.get("key")), _text(sample.get("before")), _text(sample.get("after")))
            for sample in item.get("samples") or ()
        ),
    )


def _failure(table: str, item: Mapping[str, Any]) -> Failure:
    keys = ", ".join(_text(key) for key in item.get("keys") or ())
    return Failure(table, str(item.get("message") or item.get("cause") or ""), formats.number(item.get("count")), keys)


def _projection(migrate: Mapping[str, Any]) -> str:
    """'21,400 rows/s; the whole would take about 2 min'."""
    tables = migrate.get("tables") or ()
    seconds = sum(table.get("seconds") or 0 for table in tables)
    projected = migrate.get("projected_seconds")
    parts = []
    if seconds:
        parts.append(f"{sum(table.get('looked') or 0 for table in tables) / seconds:,.0f} rows/s in the batches")
    if projected is not None:
        parts.append(f"over the whole tables they would take about {formats.about(projected)}")
    return "; ".join(parts)


def _text(value: Any) -> str:
    return "NULL" if value is None else str(value)
