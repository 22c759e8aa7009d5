"""The phase verify: the data satisfy the plan now, nothing else changed, and what it brought."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from briefly_admin.domain.errors import VerificationFailed
from briefly_admin.domain.findings import Finding, FindingClass
from briefly_admin.domain.runs import Phase, RunKind
from briefly_admin.engine import validate
from briefly_admin.engine.before import read_tables
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.digesting import LARGE
from briefly_admin.engine.figures import measure
from briefly_admin.engine.snapshot import translated
from briefly_admin.engine.unchanged import Comparison, Differences

_NAMED: Final = 3


def run(context: RunContext, *, large: int = LARGE) -> dict[str, Any]:
    """Verify what a migration left; its result is the report's heart: unchanged, findings, before, after.

    A replay has no state before to compare with: `{"replay": true, "seconds"}`. Raises VerificationFailed where a
    finding is left that the repairs or the plan forbid, or, with `expectQuiet`, where any row differs from
    repair(before). Raises Unavailable, Stopped. `large`: bytes of a table that workers share.
    """
    began = context.monotonic()
    if context.kind is RunKind.REPLAY:
        with translated("the plan's tables"):
            _judge(context, _validated(context), {})
        return {"replay": True, "seconds": round(context.monotonic() - began, 3)}
    before = context.journal.finished_phases().get(Phase.EXPAND, {}).get("before", {})
    with translated("the plan's tables"):
        with context.target.session(bulk=True) as connection:
            tables = read_tables(connection, context.plan)
        findings = _validated(context)
        known = before.get("columns") or {n: [c.name for c in t.columns] for n, t in tables.items()}
        differences = Comparison(context, known, before.get("trigger_columns", {}), large=large).run()
        with context.target.session(bulk=True) as connection:
            after = measure(connection, context.plan, read_tables(connection, context.plan))
    _judge(context, findings, differences)
    return {
        "unchanged": {name: found.to_json() for name, found in differences.items()},
        "trigger_columns": before.get("trigger_columns", {}),
        "before": {what: before.get(what) for what in ("tables", "queries")},
        "after": after,
        "seconds": round(context.monotonic() - began, 3),
    }


def _validated(context: RunContext) -> Sequence[Finding]:
    with context.target.session(bulk=True) as connection:
        examined = validate.examine_shared(context, connection, step=validate.AGAIN, except_quarantined=True)
    context.journal.save_findings(Phase.VERIFY, examined.findings)
    return examined.findings


def _judge(context: RunContext, findings: Sequence[Finding], differences: Mapping[str, Differences]) -> None:
    wrong = [f for f in findings if f.count and f.finding_class is not FindingClass.NOTICE]
    if wrong:
        named = "; ".join(f"{f.table}.{f.field}: {f.message} ({f.count:,} rows)" for f in wrong[:_NAMED])
        raise VerificationFailed(
            f"After the {context.kind} {len(wrong)} findings are left: {named}.",
            remedy="Look at the findings of this run; resume it to repair rows written meanwhile, or roll back.",
        )
    for name, found in differences.items():
        if found.unexplained:
            context.journal.log(
                "warning", f"{name}: {found.unexplained:,} rows were changed by others since.", Phase.VERIFY
            )
    loud = {n: d.unexplained or d.buckets for n, d in differences.items() if d.unexplained or not d.compared}
    if context.config.expect_quiet and loud:
        raise VerificationFailed(
            f"Nobody else was expected to write, but rows differ in {', '.join(loud)}.",
            remedy="Find out who wrote; the report lists the keys. Roll back if you cannot tell.",
        )
