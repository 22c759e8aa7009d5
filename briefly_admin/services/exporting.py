"""Findings, causes and rows as plain JSON; and as CSV and NDJSON a line at a time, never held as a whole."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC
from typing import Any, Final

from briefly_admin.domain.corrections import Fixed, RowField, RowOfCause, ShownRow
from briefly_admin.domain.findings import Finding
from briefly_admin.services.finding_views import QuarantineCause, QuarantineRow, Trend

FORMS: Final = {"csv": "text/csv; charset=utf-8", "ndjson": "application/x-ndjson"}
"""Form → its content type."""
_FINDING: Final = ("table", "field", "rule", "class", "rows", "rows_before", "message", "sample_keys")
_ROW: Final = ("key", "value")
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


def finding_json(finding: Finding, trend: Trend) -> dict[str, Any]:
    """The finding, and as `before` how many rows the validation before it found so; None where there was none."""
    named = (finding.table, finding.field, finding.rule, finding.finding_class.value)
    before = None if trend.number is None else trend.before.get(named, 0)
    return finding.to_json() | {"before": before}


def cause_json(cause: QuarantineCause) -> dict[str, Any]:
    """Rows in quarantine that have one thing wrong; `run` is the migration's id, `number` its number."""
    return {
        "run": cause.run_id, "number": cause.run_number, "table": cause.table, "field": cause.field,
        "cause": cause.cause, "message": cause.message, "rows": cause.rows, "corrected": cause.corrected,
        "skipped": cause.skipped, "replayable": cause.replayable,
    }  # fmt: skip


def quarantined_json(row: QuarantineRow) -> dict[str, Any]:
    """A row in quarantine; `corrected_at` is ISO 8601 in UTC, `skipped` the reason."""
    at = row.corrected_at
    return {
        "table": row.table, "key": list(row.key), "field": row.field, "cause": row.cause, "message": row.message,
        "sqlstate": row.sqlstate or None, "constraint": row.constraint or None, "closed": row.closed,
        "corrected_at": at.astimezone(UTC).isoformat().replace("+00:00", "Z") if at else None,
        "skipped": row.skipped or None,
    }  # fmt: skip


def row_json(row: ShownRow) -> dict[str, Any]:
    """A row with what is wrong with it; of secret columns the value is null."""
    return {
        "table": row.table, "key": list(row.key), "version": row.version,
        "fields": [_field_json(field) for field in row.fields], "faults": list(row.faults), "blocks": row.blocks,
        "recorded": row.recorded,
    }  # fmt: skip


def _field_json(field: RowField) -> dict[str, Any]:
    secret = {"value": None, "repaired": None} if field.secret else {}
    return {
        "name": field.name, "input": field.input.value, "type": field.type, "value": field.value,
        "secret": field.secret, "key": field.key, "nullable": field.nullable, "choices": list(field.choices),
        "rules": list(field.rules), "faults": list(field.faults), "repaired": field.repaired,
    } | secret  # fmt: skip


def fixed_json(fixed: Fixed) -> dict[str, Any]:
    """What a fix does or would do to the rows of a cause."""
    samples = [
        {
            "key": list(key),
            "changes": {column: {"before": before, "after": after} for column, (before, after) in changes.items()},
        }
        for key, changes in fixed.samples
    ]
    return {
        "rows": fixed.rows, "cured": fixed.cured, "refused": dict(fixed.refused), "samples": samples,
        "more": fixed.more, "recorded": fixed.recorded,
    }  # fmt: skip


def findings_in(form: str, findings: Iterable[Finding], trend: Trend) -> Iterator[str]:
    """Lines of FORMS. What a spreadsheet would take for a formula gets a quote before it, in CSV alone."""
    told = (finding_json(finding, trend) for finding in findings)
    if form == "ndjson":
        return map(_json_line, told)
    return _csv_lines(_FINDING, map(_finding_cells, told))


def rows_in(form: str, rows: Iterable[RowOfCause]) -> Iterator[str]:
    """Lines of FORMS, a row of a cause each; in CSV a key of several columns is a JSON array."""
    if form == "ndjson":
        return (_json_line({"key": list(row.key), "value": row.value}) for row in rows)
    return _csv_lines(_ROW, ((_key_cell(row.key), row.value or "") for row in rows))


def _finding_cells(told: dict[str, Any]) -> Sequence[object]:
    before = "" if told["before"] is None else told["before"]
    keys = "; ".join(str(sample.get("key", "")) for sample in told["samples"])
    texts = (told["table"], told["field"], told["rule"], told["class"])
    return (*texts, told["count"], before, told["message"], keys)


def _key_cell(key: Sequence[str]) -> str:
    return key[0] if len(key) == 1 else json.dumps(list(key), ensure_ascii=False)


def _json_line(data: Any) -> str:
    return json.dumps(data, ensure_ascii=False, default=str) + "\n"


def _csv_lines(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(columns)
    yield out.getvalue()
    for row in rows:
        out.seek(0)
        out.truncate()
        writer.writerow([_harmless(cell) if isinstance(cell, str) else cell for cell in row])
        yield out.getvalue()


def _harmless(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text
