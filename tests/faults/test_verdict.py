"""A short trial of the verdict; and that what validation says otherwise than marshmallow is noticed, whatever it is."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from briefly_admin.domain.findings import Finding, FindingClass
from briefly_admin.embedded import EmbeddedServers
from briefly_admin.engine import validate as validation
from briefly_admin.engine.target import Target
from tests.engine import generated_cases
from tests.engine.verdicts import Difference
from tests.faults import random_layout
from tests.faults.ground import Ground
from tests.faults.rows import verdict
from tests.faults.test_rows import says

Findings = Sequence[Finding]


def test_a_short_trial(embedded: EmbeddedServers, tmp_path: Path) -> None:
    facts = verdict.trial(Ground(embedded, "", "", tmp_path), 1, tables=8, small=20, large=120, layout=40)
    assert facts["count"] == 8 * 20 + 120 + 7 * 20 + 8 * 40
    assert "0 differences in 740 rows" in says("verdict", facts)
    assert json.loads(json.dumps(facts)) == facts


def _none(findings: Findings) -> Findings:
    return findings[1:]


def _counts_one_more(findings: Findings) -> Findings:
    return [replace(findings[0], count=findings[0].count + 1), *findings[1:]]


def _another_row(findings: Findings) -> Findings:
    first = findings[0]
    return [replace(first, samples=[{**first.samples[0], "key": "-1"}, *first.samples[1:]]), *findings[1:]]


def _another_field(findings: Findings) -> Findings:
    return [replace(findings[0], field="nobody's"), *findings[1:]]


def _another_class(findings: Findings) -> Findings:
    return [replace(findings[0], finding_class=FindingClass.REPAIRABLE), *findings[1:]]


WRONG: Sequence[Callable[[Findings], Findings]] = [
    _none,
    _counts_one_more,
    _another_row,
    _another_field,
    _another_class,
]


@pytest.mark.parametrize("hurt", WRONG)
def test_a_wrong_finding_is_noticed(
    target_database: str, monkeypatch: pytest.MonkeyPatch, hurt: Callable[[Findings], Findings]
) -> None:
    right = validation.examine
    monkeypatch.setattr(validation, "examine", lambda *args, **kwargs: hurt(right(*args, **kwargs)))
    with Target(target_database).session(bulk=True) as connection:
        assert generated_cases.try_cases(connection, [generated_cases.case(Random(1), "things", 50)])


@pytest.mark.parametrize("hurt", WRONG)
def test_a_wrong_finding_in_the_plan_is_noticed(
    target_database: str, monkeypatch: pytest.MonkeyPatch, hurt: Callable[[Findings], Findings]
) -> None:
    right = validation.examine
    monkeypatch.setattr(validation, "examine", lambda *args, **kwargs: hurt(right(*args, **kwargs)))
    with Target(target_database).session(bulk=True) as connection:
        assert random_layout.try_layout(connection, Random(1), 20)[1]


def test_a_blocked_row_that_is_not_told_is_noticed(target_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = validation.blocked_rows

    def all_but_one(*args: Any, **kwargs: Any) -> list[Any]:
        return list(right(*args, **kwargs))[1:]

    monkeypatch.setattr(validation, "blocked_rows", all_but_one)
    with Target(target_database).session(bulk=True) as connection:
        found = generated_cases.try_cases(connection, [generated_cases.case(Random(1), "things", 50)])
    assert [each.field for each in found] == [""]


def test_validation_that_breaks_is_told_by_field_and_value(
    target_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = validation.examine

    def breaks(connection: Any, plan: Any, **kwargs: Any) -> Findings:
        findings = right(connection, plan, **kwargs)
        if any(finding.rule == "type" for finding in findings):
            raise OverflowError("too much")
        return findings

    monkeypatch.setattr(validation, "examine", breaks)
    with Target(target_database).session(bulk=True) as connection:
        (found,) = generated_cases.try_cases(connection, [generated_cases.case(Random(1), "things", 50)])
    assert found.field
    assert "OverflowError: too much over '" in found.words


def test_the_shortest_difference_comes_first() -> None:
    with pytest.raises(AssertionError, match=r"^2 differences; the shortest: t\.a: short\n"):
        verdict.require_none([Difference("t", "a", "a longer one"), Difference("t", "a", "short")])
    verdict.require_none([])
