"""Findings, and the rows that have one, as files: line by line, so that no file is ever in memory as a whole."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from flask import Response, stream_with_context

from briefly_admin.domain.corrections import RowOfCause
from briefly_admin.domain.findings import Finding
from briefly_admin.services.views import RunView

TYPES: Final = {"csv": "text/csv", "json": "application/json", "ndjson": "application/x-ndjson"}
_COLUMNS: Final = ("table", "field", "rule", "class", "rows", "message", "sample_keys")
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
_NOT_IN_A_NAME: Final = re.compile(r"[^A-Za-z0-9_.-]+")


def as_file(lines: Iterator[str], name: str, form: str) -> Response:
    """An answer that is sent as it is made; `name` without its ending."""
    answer = Response(stream_with_context(lines), mimetype=TYPES[form])
    safe = _NOT_IN_A_NAME.sub("-", name)[:100]
    answer.headers["Content-Disposition"] = f'attachment; filename="{safe}.{form}"'
    return answer


def as_csv(findings: Sequence[Finding]) -> Iterator[str]:
    """A line a finding. What a spreadsheet would take for a formula gets a quote before it."""
    yield _line(_COLUMNS)
    for finding in findings:
        keys = "; ".join(str(sample.get("key", "")) for sample in finding.samples)
        texts = (finding.table, finding.field, finding.rule, finding.finding_class.value)
        yield _line([*map(harmless, texts), finding.count, harmless(finding.message), harmless(keys)])


def as_ndjson(findings: Sequence[Finding]) -> Iterator[str]:
    """One JSON object a line, each a finding."""
    for finding in findings:
        yield f"{json.dumps(finding.to_json())}\n"


def as_json(run: RunView, findings: Sequence[Finding]) -> Iterator[str]:
    """`{run, kind, plan, target, findings: […]}`."""
    head = {"run": run.id, "kind": run.kind.value, "plan": run.plan, "target": run.target_title}
    yield f'{json.dumps(head)[:-1]}, "findings": ['
    for number, finding in enumerate(findings):
        yield f"{',' if number else ''}\n{json.dumps(finding.to_json())}"
    yield "\n]}\n"


def rows_as_csv(rows: Iterable[RowOfCause]) -> Iterator[str]:
    """Key and value of each row; a key of several columns is written as JSON."""
    yield _line(("key", "value"))
    for row in rows:
        key = row.key[0] if len(row.key) == 1 else json.dumps(row.key)
        yield _line((harmless(key), harmless(row.value) if row.value is not None else ""))


def rows_as_ndjson(rows: Iterable[RowOfCause]) -> Iterator[str]:
    """`{"key": […], "value": …}` a line; the value is null for NULL and for secret fields."""
    for row in rows:
        yield f"{json.dumps({'key': row.key, 'value': row.value})}\n"


ROWS: Final[dict[str, Callable[[Iterable[RowOfCause]], Iterator[str]]]] = {
    "csv": rows_as_csv, "ndjson": rows_as_ndjson,
}  # fmt: skip


def harmless(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def _line(values: Sequence[Any]) -> str:
    out = io.StringIO()
    csv.writer(out).writerow(values)
    return out.getvalue()
