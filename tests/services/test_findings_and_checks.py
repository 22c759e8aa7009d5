"""Findings as they were saved, checks as they are, the audit log as it may be read."""

from collections.abc import Mapping
from typing import Any

import pytest

from briefly_admin.domain.checks import Colour
from briefly_admin.domain.errors import NotAllowed, NotFound
from briefly_admin.domain.findings import Finding, FindingClass
from briefly_admin.domain.runs import Phase, RunKind
from briefly_admin.engine.context import RunContext
from tests.services.conftest import Stage

FOUND = [
    Finding("users", "email", "email", FindingClass.NOTICE, 1, "e-mails differ by case alone", ({"key": "a\0"},)),
    Finding("users", "tier", "required", FindingClass.REPAIRABLE, 3, "users.tier is missing"),
    Finding("oauth_tokens", "provider", "one_of", FindingClass.BLOCKING, 1_000, "provider is unknown."),
]


def test_findings_are_sorted_and_replaced_by_phase(stage: Stage) -> None:
    def work(context: RunContext) -> Mapping[str, Any]:
        context.journal.save_findings(Phase.VALIDATE, [FOUND[0]])
        context.journal.save_findings(Phase.VALIDATE, FOUND)
        context.journal.save_findings(Phase.VERIFY, FOUND[1:2])
        return {}

    run = stage.lead(stage.services.runs.start(stage.olga, RunKind.VALIDATION), work)
    found = stage.services.findings.list(stage.vito, str(run.number), phase="validate")
    assert [f.finding_class for f in found] == ["blocking", "repairable", "notice"]
    assert found[2].samples == ({"key": "a\ufffd"},)
    assert len(stage.services.findings.list(stage.vito, run.id)) == 4
    assert stage.services.findings.errors_texts(found) == ["oauth_tokens: provider is unknown (1,000 rows)"]
    with pytest.raises(NotFound):
        stage.services.findings.list(stage.vito, "99")


def test_checks_are_run_by_operators_and_read_by_everybody(stage: Stage) -> None:
    assert stage.services.checks.cached(stage.vito) is None
    with pytest.raises(NotAllowed):
        stage.services.checks.run(stage.vito)
    checks = stage.services.checks.run(stage.olga)
    cached = stage.services.checks.cached(stage.vito)
    assert cached is not None
    assert cached == (stage.clock.time, checks)
    overview = stage.services.overview.view(stage.vito)
    assert overview.colour is Colour.RED
    assert overview.green + len(overview.amber) + len(overview.red) == len(checks)


def test_the_audit_log_is_filtered_and_exported_by_admins(stage: Stage) -> None:
    stage.services.runs.start(stage.olga, RunKind.VALIDATION)
    audit = stage.services.audit
    assert [e.action for e in audit.list(stage.vito, actor_name="OLGA")] == ["run.start"]
    assert [e.action for e in audit.list(stage.vito, action="run")] == ["run.start"]
    assert audit.list(stage.vito, action="ru") == ()
    assert audit.list(stage.vito, object="run 1")[0].details["kind"] == "validation"
    assert audit.list(stage.vito, actor_name="%") == ()
    assert len(audit.list(stage.vito, limit=1)) == 1
    for actor in (stage.vito, stage.olga):
        with pytest.raises(NotAllowed):
            audit.export(actor)
    assert [e.number for e in audit.export(stage.ana)] == [1, 2, 3]
    assert audit.verify(stage.vito).count == 3
