"""The rows that migrations left alone, by cause, as their page shows them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby
from typing import Any, Final

from flask import url_for

from briefly_admin.domain.permissions import Actor, Permission
from briefly_admin.services.finding_views import QuarantineCause, QuarantineRow
from briefly_admin.web.parts import Problem
from briefly_admin.web.paths import row_url

MOST_CAUSES: Final = 100
"""Of one page."""
_NOT_FIXED: Final = frozenset({"skipped", "parent"})
"""Causes that no change of these rows cures."""


@dataclass(frozen=True, slots=True)
class Replay:
    """A form that replays: hidden fields of its scope, '' and () are all."""

    url: str
    label: str
    confirm: str
    table: str = ""
    field: str = ""
    cause: str = ""
    key: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CauseLine:
    """Rows of one migration that have one thing wrong."""

    table: str
    rule: str
    message: str
    rows: int
    corrected: int
    skipped: int
    ahead: int
    """Rows that are not to be skipped."""
    to_fix: int
    """Of these: not corrected since."""
    rows_url: str
    fix_url: str
    replay: Replay | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """A migration whose quarantine has open rows; `why_no_replay` where its state lets none begin."""

    title: str
    url: str
    rows: int
    causes: tuple[CauseLine, ...]
    more: int
    replay: Replay | None
    why_no_replay: str


@dataclass(frozen=True, slots=True)
class QuarantinePage:
    """What `quarantine/index.html` prints; `all_url` where it is narrowed to one migration."""

    migrations: tuple[Migration, ...]
    corrects: bool
    all_url: str
    problem: Problem | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RowLine:
    """One row. `state` is 'open', 'corrected' or 'skipped'."""

    key: str
    url: str
    message: str
    constraint: str
    state: str
    corrected_at: datetime | None
    reason: str
    skip_url: str
    unskip_url: str
    replay: Replay | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RowsPage:
    """A page of one cause's rows."""

    title: str
    subtitle: str
    back_url: str
    here: str
    count: int
    rows: tuple[RowLine, ...]
    corrects: bool
    fix_url: str
    replay: Replay | None
    first_url: str
    next_url: str
    range: str


def quarantine_page(causes: Sequence[QuarantineCause], actor: Actor, *, all_url: str = "") -> QuarantinePage:
    """All causes, by migration; `causes` come with those of one migration together."""
    shown = [tuple(of_one) for _, of_one in groupby(causes, key=lambda cause: cause.run_number)]
    return QuarantinePage(
        tuple(_migration(of_one, actor) for of_one in shown), actor.may(Permission.CORRECT), all_url
    )  # fmt: skip


def with_problem(page: QuarantinePage, problem: Problem) -> QuarantinePage:
    """The page with what was refused."""
    return replace(page, problem=problem)


def rows_page(
    cause: QuarantineCause, found: Sequence[QuarantineRow], actor: Actor, *, here: str, limit: int, paged: bool
) -> RowsPage:  # fmt: skip
    """A page of rows; `found` may hold one row more than `limit`, which says that there is another page."""
    shown = found[:limit]
    address: dict[str, Any] = {
        "run": cause.run_number,
        "table": cause.table,
        "field": cause.field,
        "cause": cause.cause,
    }
    line = _cause_line(cause, actor)
    return RowsPage(
        title=cause.message,
        subtitle=f"{_rows(cause.rows)} of {cause.table} in the quarantine of run {cause.run_number}",
        back_url=url_for("quarantine.index"),
        here=here,
        count=line.to_fix,
        rows=tuple(_row_line(row, cause, actor) for row in shown),
        corrects=actor.may(Permission.CORRECT),
        fix_url=line.fix_url,
        replay=line.replay,
        first_url=url_for("quarantine.index", **address) if paged else "",
        next_url=url_for("quarantine.index", **address, after=list(shown[-1].key)) if len(found) > limit else "",
        range=f"{len(shown):,} of {_rows(cause.rows)}",
    )


def _migration(causes: Sequence[QuarantineCause], actor: Actor) -> Migration:
    first = causes[0]
    rows = sum(cause.rows for cause in causes)
    ahead = sum(cause.rows - cause.skipped for cause in causes)
    what = f"Replay all {ahead:,}" if ahead > 1 else "Replay it"
    return Migration(
        title=f"Run {first.run_number}",
        url=url_for("runs.show", run_id=first.run_number),
        rows=rows,
        causes=tuple(_cause_line(cause, actor) for cause in causes[:MOST_CAUSES]),
        more=max(0, len(causes) - MOST_CAUSES),
        replay=_replay(first, actor, what, _rows(ahead)) if ahead else None,
        why_no_replay="" if first.replayable else "Its rows can be replayed once it has completed with skips.",
    )


def _cause_line(cause: QuarantineCause, actor: Actor) -> CauseLine:
    address: dict[str, Any] = {
        "run": cause.run_number,
        "table": cause.table,
        "field": cause.field,
        "cause": cause.cause,
    }
    fixable = actor.may(Permission.CORRECT) and cause.cause not in _NOT_FIXED and cause.open_to_fix > 1
    fix: dict[str, Any] = {"table": cause.table, "field": cause.field, "rule": cause.cause, "run": cause.run_number}
    replay = _replay(cause, actor, "Replay", f"{_rows(cause.rows - cause.skipped)} of this cause")
    return CauseLine(
        table=cause.table, rule=f"{cause.field}: {cause.cause}" if cause.field else cause.cause,
        message=cause.message, rows=cause.rows, corrected=cause.corrected, skipped=cause.skipped,
        ahead=cause.rows - cause.skipped, to_fix=cause.open_to_fix,
        rows_url=url_for("quarantine.index", **address),
        fix_url=url_for("fix.show", **fix, back=url_for("quarantine.index")) if fixable else "",
        replay=replace(replay, table=cause.table, field=cause.field, cause=cause.cause)
        if replay and cause.rows > cause.skipped
        else None,
    )  # fmt: skip


def _row_line(row: QuarantineRow, cause: QuarantineCause, actor: Actor) -> RowLine:
    corrects = actor.may(Permission.CORRECT)
    replay = _replay(cause, actor, "Replay", "this row") if not row.skipped else None
    state = "skipped" if row.skipped else "corrected" if row.corrected_at else "open"
    return RowLine(
        key=", ".join(row.key), url=row_url(row.table, row.key), message=row.message, constraint=row.constraint,
        state=state, corrected_at=row.corrected_at, reason=row.skipped,
        skip_url=url_for("rows.skip", table=row.table, key=list(row.key)) if corrects and not row.skipped else "",
        unskip_url=url_for("rows.unskip", table=row.table, key=list(row.key)) if corrects and row.skipped else "",
        replay=replace(replay, table=row.table, key=row.key) if replay else None,
    )  # fmt: skip


def _replay(cause: QuarantineCause, actor: Actor, label: str, what: str) -> Replay | None:
    if not cause.replayable or not actor.may(Permission.RUN):
        return None
    confirm = f"Replay {what} of run {cause.run_number}? Rows that are still wrong stay in quarantine."
    return Replay(url_for("quarantine.replay", run_id=cause.run_number), label, confirm)


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"
