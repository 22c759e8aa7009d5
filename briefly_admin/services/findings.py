"""What validation found, and the rows that runs left alone."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from briefly_admin.domain.findings import Finding, FindingClass
from briefly_admin.domain.permissions import Actor, Permission
from briefly_admin.services.auditing import require
from briefly_admin.services.finding_views import QuarantineRow
from briefly_admin.services.reading import find_run
from briefly_admin.services.sentences import rows
from briefly_admin.store import details
from briefly_admin.store.database import Database

Texts = list[str]


class FindingService:
    """Reads findings and quarantine of runs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(self, actor: Actor, run_id: str, *, phase: str | None = None) -> tuple[Finding, ...]:
        """Blocking, then repairable, then notices. Raises NotAllowed, NotFound."""
        require(actor, Permission.READ)
        with self._database.begin() as connection:
            found = details.findings(connection, find_run(connection, run_id).id, phase=phase)
        return tuple(_finding(row._mapping) for row in found)  # noqa: SLF001 - SQLAlchemy's public name for it begins with an underscore

    def errors_texts(self, findings: Sequence[Finding], limit: int = 100) -> Texts:
        """The blocking ones in sentences, for the JSON endpoint's `errors`."""
        blocking = [finding for finding in findings if finding.finding_class is FindingClass.BLOCKING and finding.count]
        return [f"{_named(f).rstrip('.')} ({rows(f.count)})" for f in blocking[:limit]]

    def quarantine(self, actor: Actor, run_id: str) -> tuple[QuarantineRow, ...]:
        """Rows by cause, table and key. Raises NotAllowed, NotFound."""
        require(actor, Permission.READ)
        with self._database.begin() as connection:
            found = details.quarantine(connection, find_run(connection, run_id).id)
        return tuple(
            QuarantineRow(
                table=row.table, key=tuple(json.loads(row.key)), cause=row.cause, message=row.message,
                sqlstate=row.sqlstate or "", constraint=row.constraint or "", closed=row.closed_by is not None,
            )
            for row in found
        )  # fmt: skip


def _named(finding: Finding) -> str:
    """The message, after the table's name where it does not begin with that."""
    named = finding.message.startswith(f"{finding.table}.")
    return finding.message if named else f"{finding.table}: {finding.message}"


def _finding(row: Mapping[Any, Any]) -> Finding:
    return Finding(
        table=row["table"], field=row["field"], rule=row["rule"], finding_class=FindingClass(row["class"]),
        count=row["count"], message=row["message"], samples=tuple(row["samples"]),
    )  # fmt: skip
