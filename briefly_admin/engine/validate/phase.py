"""The phase validate of a run."""

from collections.abc import Mapping, Sequence
from typing import Any

from briefly_admin.domain.errors import BlockingFindings
from briefly_admin.domain.findings import Finding, FindingClass, blocking
from briefly_admin.domain.runs import Phase, RunKind
from briefly_admin.engine.batching import Work
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.skipping import skipped_rows
from briefly_admin.engine.validate.examine import Examination, read_catalog
from briefly_admin.engine.validate.shared import examine_shared


def run(context: RunContext) -> dict[str, Any]:
    """Validate the target under the run's plan and save the findings; the phase's result as JSON.

    `{valid, findings, blocking, repairable, notice, rows: {table: rows}, seconds}`, counts in findings' rows; with rows
    that are to be skipped also `skipped: {table: rows}`: those were not looked at.
    Raises BlockingFindings in a migration with onInvalid = stop; Stopped, Refused, Unavailable, RunFailed.
    """
    context.check_stop()
    began = context.monotonic()
    examination = examine_shared(context)
    context.journal.save_findings(Phase.VALIDATE, examination.findings)
    if context.kind is RunKind.VALIDATION:
        looked_at = sum(examination.rows.values())
        context.journal.totals(looked_at, looked_at)
    result = _result(examination, context.monotonic() - began) | _skipped(context)
    stops = blocking(examination.findings)
    if stops and context.kind is RunKind.MIGRATION and context.config.on_invalid == "stop":
        raise BlockingFindings(
            f"Validation found {_counted(len(stops), 'kind')} of rows that the repairs will not cure: {_named(stops)}.",
            remedy="Correct these rows, or start the run with onInvalid = skip, which leaves them alone.",
        )
    return result


def _skipped(context: RunContext) -> dict[str, dict[str, int]]:
    """{"skipped": {table: rows}}: those that somebody decided to leave alone and that are there; {} for none."""
    wanted = {row.table for row in context.journal.skipped()}
    if not wanted:
        return {}
    with context.target.session(bulk=True) as connection:
        catalog = read_catalog(connection, context.plan)
        works = [Work(context.plan, table, catalog) for table in context.plan.tables if table.name in wanted]
        counts = {name: len(rows) for name, rows in skipped_rows(context, connection, works).items()}
    return {"skipped": counts} if counts else {}


def _result(examination: Examination, seconds: float) -> dict[str, Any]:
    counts: Mapping[FindingClass, int] = {
        kind: sum(f.count for f in examination.findings if f.finding_class is kind) for kind in FindingClass
    }
    return {
        "valid": not blocking(examination.findings),
        "findings": len(examination.findings),
        **{kind.value: count for kind, count in counts.items()},
        "rows": dict(examination.rows),
        "seconds": round(seconds, 3),
    }


def _named(findings: Sequence[Finding]) -> str:
    """The three greatest, and how many more."""
    greatest = sorted(findings, key=lambda finding: -finding.count)[:3]
    named = "; ".join(f"{finding.message} ({_counted(finding.count, 'row')})" for finding in greatest)
    more = len(findings) - len(greatest)
    return f"{named}; and {more} more" if more else named


def _counted(number: int, word: str) -> str:
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"
