"""A drill that is killed, given up, or meets damage: no scratch schema is left, and nothing else has changed."""

import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from briefly_admin.domain.runs import RunState
from briefly_admin.services.views import BackupView, RunView
from tests.faults.databases import contents, copy_database, difference, drop_database
from tests.faults.ground import Ground
from tests.faults.harness import ANA, Field
from tests.faults.processes import until
from tests.faults.rows.kills import strike
from tests.faults.rows.row import Facts, Row, total
from tests.faults.stored import objects

_KILLS = 2
_SCRATCH = "SELECT nspname::text FROM pg_namespace WHERE nspname LIKE 'briefly\\_scratch%'"
_PLACES = ("the target", "a database of its own")


def trial(ground: Ground, seed: int) -> Facts:
    """One drill, in the target or elsewhere by turns, killed twice; one in four is of a damaged backup, one in four is
    cancelled while nobody leads it.
    """
    chance, workers, kills = random.Random(seed), seed % 3 + 1, 0
    where, damaged, given_up = _PLACES[seed // 4 % 2], seed % 4 == 3, seed % 4 == 1
    with ground.field() as field, _place(ground, field, where) as url:
        backup = _backed_up(field)
        if damaged:
            _damage(field, backup, chance)
        before = contents(field.environ["TARGET_DATABASE_URL"])
        field.staff(workers)
        field.listening(workers)
        run = field.services.runs.drill(ANA, backup.id)
        if given_up:
            kills += _given_up(field, run, url)
        for _ in range(0 if given_up else _KILLS):
            if not _comes_to_work(field, run, workers):
                break
            time.sleep(chance.uniform(0, 0.25))
            kills += strike(ground, field, chance.choice(("worker", "horse", "session")), chance)
        ended = field.view(run) if given_up else field.settles(run, seconds=180, workers=workers)
        field.dismiss()
        field.services.sweeping.purge()
        _require_judged(field, backup, ended, damaged=damaged)
        require_no_scratch(url)
        assert difference(before, contents(field.environ["TARGET_DATABASE_URL"])) == []
    return {"where": where, "state": str(ended.state), "damaged": damaged, "kills": kills, "attempts": ended.attempt}


@contextmanager
def _place(ground: Ground, field: Field, where: str) -> Iterator[str]:
    """Where the drill restores to."""
    if where == _PLACES[0]:
        yield field.environ["TARGET_DATABASE_URL"]
        return
    url = copy_database(ground.servers, "template1")
    try:
        field.use(DRILL_DATABASE_URL=url)
        yield url
    finally:
        field.dismiss()
        field.services.close()
        drop_database(ground.servers, url)


def _backed_up(field: Field) -> BackupView:
    run = field.back_up()
    field.services.leading.lead(run.id, report=lambda _: None, interrupted=lambda: False, leader="test:1")
    field.ends(run)
    return field.services.backups.list(ANA)[0]


def _damage(field: Field, backup: BackupView, chance: random.Random) -> None:
    """One bit of one stream."""
    key = chance.choice([each.key for each in objects(field, backup) if each.stream])
    path = Path(field.environ["BRIEFLY_HOME"]) / "backups" / key
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def _comes_to_work(field: Field, run: RunView, workers: int) -> bool:
    """Wait until the drill is led; False where it has ended."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        field.staff(workers)
        view = field.view(run)
        if view.finished:
            return False
        if field.leads(run) and view.phase in {"stage", "verify"}:
            return True
        time.sleep(0.01)
    raise AssertionError(f"nobody leads the drill\n{field.said()}")


def _given_up(field: Field, run: RunView, url: str) -> bool:
    """SIGKILL as soon as the scratch is there; then the run is cancelled. Whether it came to that."""
    with psycopg.connect(url, autocommit=True) as connection:
        until(lambda: connection.execute(_SCRATCH).fetchall() or field.view(run).finished, what="a scratch schema")
    field.dismiss()
    if field.view(run).finished:
        return False
    until(field.services.sweeping.sweep, what="the healing of the run")
    field.services.runs.cancel(ANA, run.id)
    return True


def _require_judged(field: Field, backup: BackupView, run: RunView, *, damaged: bool) -> None:
    """What the drill said of the backup is true."""
    proofs = [proof for proof in field.services.backups.get(ANA, backup.id).proofs if proof.level == "L2"]
    if run.state is RunState.CANCELLED:
        assert not proofs, proofs
    elif damaged:
        assert run.state is RunState.FAILED, (run.state, field.said())
        assert run.error, field.said()
        assert [proof for proof in proofs if proof.damages], proofs
        assert not [proof for proof in proofs if proof.whole], proofs
    else:
        assert run.state is RunState.COMPLETED, (run.state, run.error, field.said())
        assert [(proof.whole, proof.rows) for proof in proofs] == [(True, backup.rows)], proofs


def require_no_scratch(url: str) -> None:
    """No scratch schema is left there."""
    with psycopg.connect(url) as connection:
        left = [name for (name,) in connection.execute(_SCRATCH)]
    assert not left, left


def _says(trials: Sequence[Mapping[str, Any]]) -> str:
    places = Counter(str(trial["where"]) for trial in trials)
    return (
        f"no scratch schema left and nothing changed in {len(trials)} drills "
        f"({', '.join(f'{count} in {name}' for name, count in places.most_common())}), {total(trials, 'kills')} kills, "
        f"{sum(trial['state'] == 'cancelled' for trial in trials)} given up; the damage of {total(trials, 'damaged')} backups was found"
    )


ROW = Row("drills", 40, "drills", 10, trial, _says)
