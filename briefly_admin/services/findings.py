"""What validation found, against what it found before; and the rows that runs left alone, by cause."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from briefly_admin.domain.findings import Finding, FindingClass, blocking
from briefly_admin.domain.permissions import Actor, Permission
from briefly_admin.domain.runs import Phase, RunState
from briefly_admin.engine.identity import identify
from briefly_admin.services.auditing import require
from briefly_admin.services.config import Servers
from briefly_admin.services.finding_views import QuarantineCause, QuarantineRow, Trend
from briefly_admin.services.reading import find_run
from briefly_admin.services.sentences import rows
from briefly_admin.services.views import utc
from briefly_admin.store import details
from briefly_admin.store import findings as store
from briefly_admin.store.database import Row

Texts = list[str]
MOST_ROWS: Final = 1000
"""Rows of one page of a cause."""
_LONGEST: Final = 500
"""Characters of one line; a name of the database may be longer than anybody reads."""


class FindingService:
    """Reads findings and quarantine of runs."""

    def __init__(self, servers: Servers) -> None:
        self._database = servers.database
        self._target = servers.target

    def list(self, actor: Actor, run_id: str, *, phase: str | None = None) -> tuple[Finding, ...]:
        """Blocking, then repairable, then notices. Raises NotAllowed, NotFound."""
        require(actor, Permission.READ)
        with self._database.begin() as connection:
            found = details.findings(connection, find_run(connection, run_id).id, phase=phase)
        return tuple(map(_finding, found))

    def trend(self, actor: Actor, run_id: str, phase: str = Phase.VALIDATE) -> Trend:
        """The run's findings against those of the newest run before it that looked at the same target by the same
        plan. Raises NotAllowed, NotFound.
        """
        require(actor, Permission.READ)
        with self._database.begin() as connection:
            run = find_run(connection, run_id)
            earlier = store.earlier(connection, run, phase)
            if earlier is None:
                return Trend(None)
            before = [_finding(row) for row in details.findings(connection, earlier.id, phase=phase)]
            now = {_named(_finding(row)) for row in details.findings(connection, run.id, phase=phase)}
        gone = tuple(finding for finding in before if _named(finding) not in now)
        return Trend(earlier.number, {_named(finding): finding.count for finding in before}, gone)

    def errors_texts(self, findings: Sequence[Finding], limit: int = 100) -> Texts:
        """The blocking ones, one readable line each, for the JSON endpoint's `errors`; beyond `limit` a last line that
        says how many there are.
        """
        found = blocking(findings)
        lines = [_line(finding) for finding in found[:limit]]
        left = len(found) - len(lines)
        if left:
            lines.append(f"… and {left:,} more {'finding' if left == 1 else 'findings'}; {len(found):,} in all.")
        return lines

    def quarantine(self, actor: Actor, run_id: str) -> tuple[QuarantineRow, ...]:
        """Rows by cause, table and key, closed ones among them. Raises NotAllowed, NotFound."""
        require(actor, Permission.READ)
        with self._database.begin() as connection:
            found = store.quarantine(connection, find_run(connection, run_id).id)
        return tuple(map(_quarantined, found))

    def causes(self, actor: Actor, run_id: str | None = None) -> tuple[QuarantineCause, ...]:
        """The open rows of a run, or of all runs of the target, by what is wrong with them; the newest run first.

        Raises NotAllowed, NotFound; Unavailable where no run is named and the target does not answer.
        """
        require(actor, Permission.READ)
        target_id = identify(self._target) if run_id is None else None
        with self._database.begin() as connection:
            run = None if run_id is None else find_run(connection, run_id).id
            found = store.causes(connection, run_id=run, target_id=target_id)
        return tuple(
            QuarantineCause(
                run_id=str(row.id), run_number=row.number, table=row.table, field=row.field, cause=row.cause,
                message=row.message, rows=row.rows, corrected=row.corrected, skipped=row.skipped,
                open_to_fix=row.open_to_fix, replayable=RunState(row.state) is RunState.COMPLETED_WITH_SKIPS,
            )
            for row in found
        )  # fmt: skip

    def quarantine_rows(
        self, actor: Actor, run_id: str, *, table: str, field: str, cause: str, after: Sequence[str] | None = None,
        limit: int = 50,
    ) -> tuple[QuarantineRow, ...]:  # fmt: skip
        """A page of a cause's open rows by key, at most MOST_ROWS; `after` is the last key of the page before.

        Raises NotAllowed, NotFound.
        """
        require(actor, Permission.READ)
        most = min(max(limit, 1), MOST_ROWS)
        with self._database.begin() as connection:
            run = find_run(connection, run_id).id
            found = store.rows_of_cause(
                connection, run, table=table, field=field, cause=cause, after=after, limit=most
            )  # fmt: skip
        return tuple(map(_quarantined, found))


def _line(finding: Finding) -> str:
    """'users: the e-mail is missing (3 rows)': names of tables may hold line breaks, and be long."""
    named = finding.message.startswith(f"{finding.table}.")
    text = finding.message if named else f"{finding.table}: {finding.message}"
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split()).rstrip(".")
    short = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    return f"{short} ({rows(finding.count)})"


def _named(finding: Finding) -> tuple[str, str, str, str]:
    return finding.table, finding.field, finding.rule, finding.finding_class.value


def _finding(found: Row[Any]) -> Finding:
    row: Mapping[Any, Any] = found._mapping  # noqa: SLF001 - SQLAlchemy's public name for it begins with an underscore
    return Finding(
        table=row["table"], field=row["field"], rule=row["rule"], finding_class=FindingClass(row["class"]),
        count=row["count"], message=row["message"], samples=tuple(row["samples"]),
    )  # fmt: skip


def _quarantined(row: Row[Any]) -> QuarantineRow:
    return QuarantineRow(
        table=row.table, key=tuple(json.loads(row.key)), cause=row.cause, message=row.message,
        sqlstate=row.sqlstate or "", constraint=row.constraint or "", closed=row.closed_by is not None,
        field=row.field, corrected_at=utc(row.corrected_at), skipped=row.skipped or "",
    )  # fmt: skip
