"""The benchmark's whole code paths on tiny tables: what is written has its shape; speeds are nobody's business here."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import fromstring

import pytest

from benchmarks import runs
from benchmarks.__main__ import asked, measure, publish
from benchmarks.ground import Ground
from benchmarks.picture import draw
from benchmarks.report import NOT_YET, lines
from benchmarks.rows import backup, migrate, rollback, scale, validate
from benchmarks.rows.all import ROWS, TABLE
from briefly_admin.embedded import EmbeddedServers
from tests.faults.ledger import Ledger


@pytest.fixture
def ground(embedded: EmbeddedServers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ground]:
    # Looking seldom spares what is measured, and nothing is measured here.
    monkeypatch.setattr(runs, "_LOOKS", (0.02, 0.05))
    monkeypatch.setattr(validate, "ROUNDS", 1)
    made = Ground(embedded, tmp_path / "logs")
    made.logs.mkdir()
    yield made
    made.tidy()


def _row(found: dict[str, Any], name: str) -> dict[str, Any]:
    rows: dict[str, dict[str, Any]] = {row["name"]: row for row in found["rows"]}
    return rows[name]


def small() -> dict[str, Any]:
    """Trials of the same paths over a few rows."""
    return {
        "migrate": lambda ground, seed: migrate.trial(ground, seed, 7, lambda url: migrate.row_by_row(url, 20), 30),
        "scale": lambda ground, seed: scale.trial(ground, seed, 30, 40),
        "backup_narrow": lambda ground, seed: backup.narrow(ground, seed, 30),
        "backup_embedded": lambda ground, seed: backup.embedded(ground, seed, 50),
        "rollback": lambda ground, seed: rollback.trial(ground, seed, 300),
        "validate": lambda ground, seed: validate.trial(ground, seed, 4, 12),
    }


def test_trials_are_written_down_and_become_figures(ground: Ground, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "results.jsonl")
    trials = small()
    for row in (ROWS["migrate"], ROWS["memory"]):
        assert measure(ground, replace(row, trial=trials[row.trials], wanted=1), ledger)
    for seed in (8, 9):
        ledger.append(replace(ledger.trials()[0], seed=seed))
    found = publish(ledger, ground.servers.superuser_url(), tmp_path)
    assert found == json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert {"machine", "versions", "commit", "date", "rows"} <= found.keys()
    assert found["machine"].keys() == {"cpu", "cores", "memory"}
    assert found["versions"].keys() == {"python", "postgres", "psycopg"}
    measured = [row for row in found["rows"] if "ratio" in row]
    assert [row["name"] for row in measured] == ["migrate", "memory", "cost"]
    for row in measured:
        assert {"name", "against", "bar", "ours", "theirs", "ratio", "met"} <= row.keys()
        assert row["ratio"] > 0
    assert measured[1]["ours"].endswith(" MB")
    text = "\n".join(lines(found))
    assert text.count(NOT_YET) == len(TABLE) - 3
    picture = fromstring((tmp_path / "results.svg").read_text(encoding="utf-8"))
    assert sum(each.tag.endswith("}rect") for each in picture.iter()) == 4


@pytest.mark.parametrize(("trials", "names"), [
    ("backup_narrow", ["backup_narrow", "backup_copy"]),
    ("backup_embedded", ["backup_embeddings", "backup_copy_embeddings", "backup_memory"]),
])  # fmt: skip
def test_backups_are_measured_beside_what_others_take(
    ground: Ground, tmp_path: Path, trials: str, names: list[str]
) -> None:
    ledger = Ledger(tmp_path / "results.jsonl")
    for name in names:  # the rows of one table share their trials
        assert measure(ground, replace(ROWS[name], trial=small()[trials], wanted=1), ledger)
    (written,) = ledger.trials()
    facts = written.facts
    assert facts["rows"] > 50
    assert 0 < facts["sealed"] <= facts["proven"]
    assert min(facts[name] for name in ("two", "copy", "dump", "zstd", "bytes", "peak")) > 0
    assert not (ground.logs / "backups").exists()
    assert not (ground.logs / "peer").exists()


def test_backups_are_weighed_by_their_medians() -> None:
    facts = [{"proven": 2, "two": 1, "dump": 10, "zstd": 3, "sealed": 1, "copy": 0.5, "peak": 99e6}] * 3
    assert backup.weigh_proven(facts, 5).met
    assert not backup.weigh_proven(facts, 5.1).met
    assert backup.weigh_proven(facts, 5).theirs == "10.00 s (zstd:1 3.00 s)"
    assert backup.weigh_sealed(facts, 2).met
    assert not backup.weigh_sealed(facts, 1.9).met
    assert backup.weigh_memory(facts).met
    assert not backup.weigh_memory([*facts, {"peak": 201e6}]).met


def test_a_rollback_is_measured_beside_pg_restore(ground: Ground, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "results.jsonl")
    assert measure(ground, replace(ROWS["rollback"], trial=small()["rollback"], wanted=1), ledger)
    facts = ledger.trials()[0].facts
    assert min(facts[name] for name in ("update", "insert", "delete", "ours", "theirs", "dump", "peak")) > 0
    assert {"backup", "stage", "preview", "restore", "verify"} <= facts["seconds"].keys()
    assert {"stage", "preview"} <= facts["preview"].keys()
    assert not (ground.logs / "backups").exists()
    assert not (ground.logs / "archive").exists()


def test_a_rollback_is_weighed_by_its_medians() -> None:
    before = {"seconds": {"backup": 3}, "preview": {"stage": 2, "preview": 1}}
    facts = [{"ours": ours, "theirs": 10, **before} for ours in (1, 7, 90)]
    found = rollback.weigh(facts)
    assert (found.ratio, found.met, found.theirs) == (0.7, True, "10.00 s")
    assert found.ours == "7.00 s (backup 3.00 s, stage 2.00 s, preview 1.00 s)"
    assert not rollback.weigh([{"ours": 7.01, "theirs": 10, **before}]).met


def test_validation_is_measured_beside_marshmallow_and_count(ground: Ground, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "results.jsonl")
    for name in ("validate", "validate_email", "validate_count"):  # they share their trials
        assert measure(ground, replace(ROWS[name], trial=small()["validate"], wanted=1), ledger)
    (written,) = ledger.trials()
    facts = written.facts
    assert facts["rows"] > 139 * 4
    assert min(facts[name] for name in ("count", "keys", "whole", "two")) > 0
    assert all(facts[whose][group] > 0 for whose in ("ours", "theirs") for group in ("email", "other"))


def test_validation_is_weighed_by_its_medians() -> None:
    facts = [
        {"count": 1, "keys": 8, "whole": whole, "two": 7, "ours": {"email": 1, "other": 0.1},
         "theirs": {"email": 30, "other": 20}} for whole in (2, 12, 90)
    ]  # fmt: skip
    assert validate.weigh_rows(facts, "email", 30).met
    assert not validate.weigh_rows(facts, "email", 30.1).met
    assert (validate.weigh_rows(facts, "other", 200).ratio, validate.weigh_rows(facts, "other", 200).met) == (200, True)
    found = validate.weigh_count(facts, 12)
    assert (found.ratio, found.met, found.theirs) == (12, True, "1.000 s")
    assert found.ours == "12.00 s (without uniqueness and relations 8.00 s; two workers 7.00 s)"
    assert not validate.weigh_count(facts, 11.9).met


def test_a_start_goes_on_from_what_was_tried(ground: Ground, tmp_path: Path) -> None:
    ledger, tried = Ledger(tmp_path / "results.jsonl"), []

    def trial(_: Ground, seed: int) -> dict[str, Any]:
        tried.append(seed)
        return {"ours": 2.0, "theirs": 1.0}

    row = replace(ROWS["migrate"], trial=trial)
    assert measure(ground, replace(row, wanted=2), ledger)
    assert measure(ground, replace(row, wanted=3), ledger)
    assert tried == [1, 2, 3]


def test_a_trial_that_fails_ends_its_row_and_counts_for_nothing(ground: Ground, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "results.jsonl")

    def trial(_: Ground, _seed: int) -> dict[str, Any]:
        raise AssertionError("299 of 300 rows were changed")

    assert not measure(ground, replace(ROWS["migrate"], trial=trial), ledger)
    (written,) = ledger.trials()
    assert (written.ok, written.error) == (False, "AssertionError: 299 of 300 rows were changed")
    assert "ratio" not in _row(publish(ledger, ground.servers.superuser_url(), tmp_path), "migrate")


def test_tables_are_made_once(ground: Ground) -> None:
    name = ground.make(30)
    for _ in range(2):  # a copy leaves the original with all of its rows to repair
        with ground.copied(name) as url:
            assert migrate.one_update(url) > 0
            assert migrate.one_update(url) == 0
        assert ground.make(30) == name


@pytest.mark.parametrize(("large", "met"), [(1.09, True), (1.11, False), (0.85, False)])
def test_memory_is_weighed_by_its_change(large: float, met: bool) -> None:
    assert scale.weigh_memory([{"small": {"peak": 1e8}, "large": {"peak": 1e8 * large}}]).met is met


def test_memory_is_weighed_by_its_size() -> None:
    assert not scale.weigh_memory([{"small": {"peak": 201e6}, "large": {"peak": 201e6}}]).met


def test_ratios_are_of_medians() -> None:
    found = migrate.weigh([{"ours": 1, "theirs": 10}, {"ours": 5, "theirs": 10}, {"ours": 90, "theirs": 20}], 0.5)
    assert (found.ratio, found.met) == (0.5, True)


def test_a_row_that_nobody_knows_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        asked(["quickly"])
    assert end.value.code == 2
    assert "there is no row quickly; the rows are validate, validate_email, " in capsys.readouterr().err


def test_one_row_may_be_asked_for() -> None:
    assert [row.name for row in asked(["auto"])] == ["auto"]
    assert [row.name for row in asked([])] == [
        "validate", "validate_email", "validate_count", "backup_embeddings", "backup_narrow", "backup_copy", "backup_copy_embeddings", "backup_memory",
        "migrate", "auto", "row_by_row", "rollback", "memory", "cost",
    ]  # fmt: skip


def test_a_picture_of_nothing_says_so() -> None:
    nothing = {"rows": [], "commit": "<x>", "date": "2026-01-01", "machine": {"cpu": "a & b"}}
    assert "No row was measured yet" in draw(nothing)
    fromstring(draw(nothing))
