"""Rollbacks that are killed at every statement: the database is as before or wholly restored, and in the end it is."""

import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg

from briefly_admin.domain.runs import RunState
from briefly_admin.services.views import RunView
from tests.faults import statements
from tests.faults.databases import Contents, difference
from tests.faults.ground import Ground
from tests.faults.harness import ANA, Field
from tests.faults.rows.row import Facts, Row, most, total
from tests.faults.statements import STAGES, VICTIMS, StatementBlow

KILLS = 7
"""Of each rollback."""
ROLLBACKS = 2
"""Of each trial: one of the migration, and one of that rollback."""
STATEMENTS = (410, 590)
"""Of the restore of each, about: a number beyond its last one kills nobody."""
_LEASE = 1
_WEIGHTS = {"worker": 25, "horse": 25, "session": 34, "backend": 6, "restart": 10}
_SETTINGS = {"MIGRATION_MAX_RETRIES": "10", "MIGRATION_RETRY_DELAY": "50", "MIGRATION_BATCH_SIZE": "1000"}
_EDITS = (
    "UPDATE users SET email = 'edited-' || id || '@example.com' WHERE id IN (SELECT id FROM users ORDER BY id LIMIT 9)",
    "UPDATE file_metadata SET filename = filename || ' (2)', chunk_count = 7 WHERE left(id::text, 1) IN ('3', 'c')",
    "DELETE FROM chat_messages WHERE left(id::text, 1) = '5'",
    "DELETE FROM oauth_tokens WHERE left(id::text, 1) IN ('7', 'e')",
    "INSERT INTO usage_logs (id, user_id, action, resource_type, created_at) SELECT gen_random_uuid(), id, 'upload', 'file', now() FROM users LIMIT 40",
    "INSERT INTO conversations (id, user_id, title, created_at, updated_at) SELECT gen_random_uuid(), id, 'new', now(), now() FROM users LIMIT 25",
)


@dataclass
class Struck:
    """What fell on the rollbacks of a trial."""

    died: Counter[str] = field(default_factory=Counter)
    numbers: list[int] = field(default_factory=list)
    looks: int = 0
    attempts: int = 0


def trial(
    ground: Ground, seed: int, *, kills: int = KILLS, rollbacks: int = ROLLBACKS, victims: Sequence[str] = VICTIMS
) -> Facts:
    """A rollback of a migration whose data were edited since, and a rollback of that; by turns exact and keep, with a
    confirmed preview and without one, with one worker and two.
    """
    chance, struck = random.Random(seed), Struck()
    mode, previewed, workers = ("exact", "keep")[seed % 2], seed // 2 % 2 == 1, seed // 4 % 2 + 1
    with ground.field(lease=30) as field:
        field.module = "tests.faults.hurt"
        field.elsewhere = statements.settings(field.logs) | {"LEASE_SECONDS": str(_LEASE)}
        field.use(**_SETTINGS)
        backup, before, edited = _migrated(field)
        goal = before
        if mode == "keep":
            goal, _ = _undisturbed(field, backup, mode), _undisturbed(field, _newest(field), "exact")
            assert difference(edited, _held(field)) == []
        legs = ((backup, mode, edited, goal), (None, "exact", goal, edited))
        for number in range(rollbacks):
            of, how, start, end = legs[number % 2]
            preview = _preview(field, of or _newest(field)) if previewed else None
            dying = chance.choices(victims, [_WEIGHTS[victim] for victim in victims], k=kills)
            statements.arrange(field.logs, _blows(chance, seed * kills, STATEMENTS[number % 2], dying))
            run = _begin(field, of or _newest(field), how, preview)
            _through(field, run, workers, (start, end), struck)
        assert field.services.audit.verify(ANA).ok
    return {
        "count": struck.died.total(), "mode": mode, "previewed": previewed, "workers": workers,
        "attempts": struck.attempts, "looks": struck.looks, "last": max(struck.numbers, default=0), **struck.died,
    }  # fmt: skip


def _migrated(field: Field) -> tuple[str, Contents, Contents]:
    """The migration's backup, and what the target held before it and holds after edits that came after it."""
    before = _held(field)
    run = _lead(field, field.migrate(pause=0, batchSize=1000))
    with psycopg.connect(field.environ["TARGET_DATABASE_URL"]) as connection:
        for statement in _EDITS:
            assert connection.execute(statement.encode()).rowcount > 0, statement
    assert run.backup_id
    return run.backup_id, before, _held(field)


def _held(field: Field) -> Contents:
    """What the target holds; the quarantine is the migration's own book, and stays as it is."""
    return {name: texts for name, texts in field.contents().items() if name != "quarantine"}


def _lead(field: Field, run: RunView) -> RunView:
    """By this process, undisturbed."""
    field.services.leading.lead(run.id, report=lambda _: None, interrupted=lambda: False, leader="test:1")
    return field.ends(run)


def _begin(field: Field, backup: str, mode: str, preview: str | None = None) -> RunView:
    return field.services.runs.rollback(
        ANA, backup, confirm=True, mode=mode, reason="tried by faults", preview_id=preview
    )


def _undisturbed(field: Field, backup: str, mode: str) -> Contents:
    """What a rollback leaves that nothing happens to."""
    _lead(field, _begin(field, backup, mode))
    return _held(field)


def _preview(field: Field, backup: str) -> str:
    return _lead(field, field.services.runs.preview(ANA, backup)).id


def _newest(field: Field) -> str:
    return field.services.backups.list(ANA)[0].id


def _blows(chance: random.Random, first: int, statements_: int, victims: Sequence[str]) -> list[StatementBlow]:
    """One for each victim; over the trials, each statement has its own: 97 is prime, and divides no count of them."""
    return [
        StatementBlow(1 + (first + place) * 97 % statements_, victim, chance.choice(STAGES))
        for place, victim in enumerate(victims)
    ]


def _through(field: Field, run: RunView, workers: int, ends: tuple[Contents, Contents], struck: Struck) -> None:
    """The rollback goes on until it has ended, whoever dies; the target is looked at after each blow, and between."""
    restored, until, blows = False, time.monotonic() + 240, 0
    while not (view := field.view(run)).finished:
        assert time.monotonic() < until, (view.state, view.phase, view.error, field.said())
        field.staff(workers)
        fallen = len(statements.struck(field.logs))
        if fallen > blows or view.phase == "restore":
            restored = _look(field, ends, struck, restored=restored)
        blows = fallen
        time.sleep(0.05)
    assert view.state is RunState.COMPLETED, (view.state, view.error, view.remedy, field.said())
    assert _look(field, ends, struck, restored=restored), "not restored"
    assert (view.report or {})["verify"]["verified"] is True
    numbers = statements.struck(field.logs)
    plan = [line.split()[1] for line in (field.logs / "statements.plan").read_text(encoding="utf-8").splitlines()]
    struck.died.update(plan[: len(numbers)])
    struck.numbers += numbers
    struck.attempts += view.attempt
    require_no_scratch_of(field, view)
    field.dismiss()  # what comes between two rollbacks is this process's to do


def _look(field: Field, ends: tuple[Contents, Contents], struck: Struck, *, restored: bool) -> bool:
    """Whether the target is restored; it is that, or as before, and it never goes back."""
    found = _patiently(lambda: _held(field))
    struck.looks += 1
    before, after = (difference(end, found) for end in ends)
    assert not before or not after, ["The database is between.", "from before:", *before, "from the end:", *after]
    assert not (restored and after), ["It was restored, and is not any more.", *after]
    return not after


def _patiently(look: Callable[[], Contents]) -> Contents:
    """Once the server answers: a killed backend makes it end all sessions."""
    for _ in range(600):
        with suppress(psycopg.OperationalError):
            return look()
        time.sleep(0.05)
    return look()


def require_no_scratch_of(field: Field, run: RunView) -> None:
    """The rollback has left no scratch schema of its own."""
    query = "SELECT nspname::text FROM pg_namespace WHERE starts_with(nspname, %s)"
    left = field.ask(query, f"briefly_scratch_{run.id.replace('-', '')}", variable="TARGET_DATABASE_URL")
    assert not left, left


def _says(trials: Sequence[Mapping[str, Any]]) -> str:
    words = {
        "worker": "of a worker with its horse", "horse": "of a horse", "session": "of a session by PostgreSQL",
        "backend": "of a backend by SIGKILL", "restart": "by SIGTERM to all",
    }  # fmt: skip
    parts = ", ".join(f"{total(trials, name):,} {text}" for name, text in words.items())
    modes = Counter(str(trial["mode"]) for trial in trials)
    return (
        f"{total(trials):,} kills ({parts}) before, during and after statements 1 to {most(trials, 'last'):.0f} of restores in "
        f"{len(trials)} trials ({', '.join(f'{count} {mode}' for mode, count in sorted(modes.items()))}): before or "
        f"after in {total(trials, 'looks'):,} looks, never between; equal bytes at the end of each"
    )


ROW = Row("rollbacks", 300, "kills", 30, trial, _says)
