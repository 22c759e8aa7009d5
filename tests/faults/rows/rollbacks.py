"""Rollbacks that are killed at every statement: the database is as before or wholly restored, and in the end it is."""

import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psycopg

from briefly_admin.domain.errors import Unavailable
from briefly_admin.domain.runs import RunKind, RunState
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.rollback import run_phase
from briefly_admin.services.views import RunView
from tests.engine.journal_memory import RunRecord
from tests.faults import statements
from tests.faults.aftermath import Copy, Migrated, migrated
from tests.faults.databases import Contents, contents, copy_database, difference, drop_database
from tests.faults.editing import Editor
from tests.faults.forks import PHASES, Forks
from tests.faults.ground import Ground, name_of
from tests.faults.harness import ANA, Field
from tests.faults.rows.row import Facts, Row, most, total
from tests.faults.statements import STAGES, VICTIMS, StatementBlow

Found = TypeVar("Found")
KILLS = 7
"""Of each rollback."""
FORKED = 30
"""Of each trial with children, and at once in a rollback."""
_AT_ONCE = 6
_FORKED_STATEMENTS = {"exact": 450, "keep": 700}
_MOST_ATTEMPTS = 30
ROLLBACKS = 2
"""Of each trial: one of the migration, and one of that rollback."""
STATEMENTS = (450, 640)
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
    """What fell on the rollbacks of a trial; `revive` starts servers again that gave up."""

    revive: Callable[[], object]
    died: Counter[str] = field(default_factory=Counter)
    numbers: list[int] = field(default_factory=list)
    looks: int = 0
    attempts: int = 0

    def tell(self, logs: Path) -> None:
        """What fell since it was arranged."""
        numbers = statements.struck(logs)
        plan = [line.split()[1] for line in (logs / "statements.plan").read_text(encoding="utf-8").splitlines()]
        self.died.update(plan[: len(numbers)])
        self.numbers += numbers


def trial(ground: Ground, seed: int) -> Facts:
    """By turns with workers and a clock, and by children of this process, which come after one another faster."""
    if seed % 2 == 0:
        return with_workers(ground, seed // 2)
    with migrated(ground, seed) as place:
        return with_forks(place, ground, seed // 2)


def with_forks(
    place: Migrated, ground: Ground, seed: int, *, kills: int = FORKED, victims: Sequence[str] = VICTIMS
) -> Facts:
    """Rollbacks of a small migrated database whose data were edited since, by turns exact and keep, and with a preview."""
    chance, servers = random.Random(seed), ground.servers
    struck = Struck(servers.revive)
    modes: Counter[str] = Counter()
    while struck.died.total() < kills:
        mode = ("exact", "keep")[(seed + modes.total()) % 2]
        copy = Copy(place, servers)
        with psycopg.connect(place.url, autocommit=True) as connection:
            Editor(connection, chance).some(20, ("change", "back", "remove", "create", "again", "derive"))
        edited = copy_database(servers, name_of(place.url))
        try:
            start, goal = _contents(place.url), place.contents
            if mode == "keep":
                _through_phases(copy.context(RunKind.ROLLBACK, RunRecord(), mode=mode))
                goal, copy = _contents(place.url), Copy(place, servers, template=name_of(edited))
            dying = chance.choices(victims, [_WEIGHTS[victim] for victim in victims], k=min(_AT_ONCE, kills))
            first = seed * FORKED + struck.died.total()
            statements.arrange(ground.logs, _blows(chance, first, _FORKED_STATEMENTS[mode], dying))
            _resumed(
                _forks(copy, mode, ground.logs, previewed=chance.random() < 0.5), ground.logs, (start, goal), struck
            )
        finally:
            drop_database(servers, edited)
        modes[mode] += 1
    return {
        "count": struck.died.total(), "mode": "forked", "attempts": struck.attempts, "looks": struck.looks,
        "last": max(struck.numbers, default=0), "rollbacks": modes.total(), **struck.died,
    }  # fmt: skip


def _forks(copy: Copy, mode: str, logs: Path, *, previewed: bool) -> Forks:
    record, options = RunRecord(), {"mode": mode}
    if previewed:
        preview = RunRecord()
        _through_phases(copy.context(RunKind.PREVIEW, preview, mode="exact"))
        options["preview_id"] = str(preview.run_id)
    return Forks(lambda: copy.context(RunKind.ROLLBACK, record, **options), copy.place.url, logs)


def _through_phases(context: RunContext) -> None:
    for phase in PHASES[: 2 if context.kind is RunKind.PREVIEW else None]:
        context.journal.phase_finished(phase, run_phase(context, phase))


def _resumed(forks: Forks, logs: Path, ends: tuple[Contents, Contents], struck: Struck) -> None:
    """Child after child; the database is looked at after each of them."""
    restored = ended = False
    while not ended:
        assert forks.attempts < _MOST_ATTEMPTS, "it does not come to an end"
        ended = _patiently(struck, forks.attempt)
        restored = require_an_end(_patiently(struck, lambda: _contents(forks.url)), ends, struck, restored=restored)
    assert restored, "not restored"
    struck.attempts += forks.attempts
    struck.tell(logs)
    with psycopg.connect(forks.url) as connection:
        left = connection.execute(
            "SELECT nspname::text FROM pg_namespace WHERE starts_with(nspname, 'briefly_scratch_')"
        ).fetchall()
    assert not left, left


def _contents(url: str) -> Contents:
    return {name: texts for name, texts in contents(url).items() if name != "quarantine"}


def with_workers(
    ground: Ground, seed: int, *, kills: int = KILLS, rollbacks: int = ROLLBACKS, victims: Sequence[str] = VICTIMS
) -> Facts:
    """A rollback of a migration whose data were edited since, and a rollback of that; by turns exact and keep, with a
    confirmed preview and without one, with one worker and two.
    """
    chance, struck = random.Random(seed), Struck(ground.servers.revive)
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
    while not (view := _patiently(struck, lambda: field.view(run))).finished:
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
    struck.tell(field.logs)
    struck.attempts += view.attempt
    require_no_scratch_of(field, view)
    field.dismiss()  # what comes between two rollbacks is this process's to do


def _look(field: Field, ends: tuple[Contents, Contents], struck: Struck, *, restored: bool) -> bool:
    return require_an_end(_patiently(struck, lambda: _held(field)), ends, struck, restored=restored)


def require_an_end(found: Contents, ends: tuple[Contents, Contents], struck: Struck, *, restored: bool) -> bool:
    """Whether the target is restored; it is that, or as before, and it never goes back."""
    struck.looks += 1
    before, after = (difference(end, found) for end in ends)
    assert not before or not after, ["The database is between.", "from before:", *before, "from the end:", *after]
    assert not (restored and after), ["It was restored, and is not any more.", *after]
    return not after


def _patiently(struck: Struck, look: Callable[[], Found]) -> Found:
    """Once the server answers: a killed backend makes it end all sessions.

    Whoever runs PostgreSQL starts it again where it gave up: a crash just after an unlogged table was given up can make
    the recovery fail once ("could not create file … File exists").
    """
    for _ in range(600):
        with suppress(psycopg.OperationalError, Unavailable):
            struck.revive()
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
