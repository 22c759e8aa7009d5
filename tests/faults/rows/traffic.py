"""Writers at work while the schema changes, beside readers that hold their transactions open: how long a write waits."""

import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self
from uuid import uuid4

import psycopg
from psycopg import sql

from tests.faults import oracle
from tests.faults.ground import Ground
from tests.faults.harness import Field
from tests.faults.rows.row import Facts, Row, most, total

LOCK_TIMEOUT = 1.0
_MARGIN = 0.2
_TOUCHED = {
    "users": "updated_at", "file_metadata": "upload_date", "conversations": "updated_at", "oauth_tokens": "updated_at",
    "user_settings": "updated_at",
}  # fmt: skip
_INSERT = (
    "INSERT INTO public.usage_logs (id, user_id, action, resource_type, created_at) "
    "VALUES (%s, %s, 'traffic', 'page', now())"
)
_WINDOWS = (
    "SELECT jsonb_build_array(extract(epoch FROM started_at), extract(epoch FROM finished_at)) "
    "FROM briefly_admin.run_phase WHERE run_id = %s AND phase = ANY(%s)"
)


@dataclass
class Traffic:
    """Threads against one database, each with a connection of its own; `with` starts and ends them."""

    url: str
    chance: random.Random
    writes: list[tuple[float, float]] = field(default_factory=list)
    """(seconds since 1970, how long it took)."""
    idle: list[tuple[float, float]] = field(default_factory=list)
    """The same of a query that touches no table: what the machine itself makes one wait."""
    refused: int = 0
    """Writes that a rule of the target refused: to rows that are set aside."""
    inserted: list[str] = field(default_factory=list)
    """Keys of rows that it added."""
    _over: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    _faults: list[Exception] = field(default_factory=list)

    def __enter__(self) -> Self:
        with psycopg.connect(self.url) as connection:
            self._ids = {
                table: [
                    id_
                    for (id_,) in connection.execute(
                        sql.SQL("SELECT id FROM public.{} ORDER BY id").format(sql.Identifier(table))
                    )
                ]
                for table in _TOUCHED
            }
        for work in (self._write, self._write, self._read_long, self._read_long, self._idle):
            chance = random.Random(self.chance.random())
            self._threads.append(threading.Thread(target=self._guarded, args=(work, chance), daemon=True))
            self._threads[-1].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(30)
        if self._faults:
            raise self._faults[0]

    def worst(self, times: Sequence[tuple[float, float]], windows: Sequence[Sequence[float]]) -> float:
        """The longest of those that overlap a window."""
        return max(
            (took for at, took in times if any(at <= end and at + took >= begin for begin, end in windows)), default=0.0
        )

    def _guarded(self, work: Callable[[Any, random.Random], None], chance: random.Random) -> None:
        try:
            with psycopg.connect(self.url, autocommit=True) as connection:
                while not self._over.is_set():
                    work(connection, chance)
        except Exception as fault:  # noqa: BLE001 - raised again where the threads are joined
            self._faults.append(fault)

    def _write(self, connection: psycopg.Connection[Any], chance: random.Random) -> None:
        table = chance.choice(list(_TOUCHED))
        began, at = time.monotonic(), time.time()
        try:
            if chance.random() < 1 / 4:
                key = str(uuid4())
                connection.execute(_INSERT, (key, chance.choice(self._ids["users"])))
                self.inserted.append(key)
            else:
                query = sql.SQL("UPDATE public.{} SET {} = {} WHERE id = %s").format(
                    sql.Identifier(table), sql.Identifier(_TOUCHED[table]), sql.Literal("2026-01-01 00:00:00+00")
                )
                connection.execute(query, (chance.choice(self._ids[table]),))
        except psycopg.IntegrityError:
            self.refused += 1
        self.writes.append((at, time.monotonic() - began))
        self._over.wait(0.003)

    def _read_long(self, connection: psycopg.Connection[Any], chance: random.Random) -> None:
        """Holds ACCESS SHARE on a table for a while: what changes its schema has to wait, and must not wait long."""
        table = sql.Identifier(chance.choice([*_TOUCHED, "usage_logs"]))
        with connection.transaction():
            connection.execute(sql.SQL("SELECT 1 FROM public.{} LIMIT 1").format(table))
            self._over.wait(chance.uniform(0.2, 2.5))
        self._over.wait(chance.uniform(0, 0.3))

    def _idle(self, connection: psycopg.Connection[Any], _: random.Random) -> None:
        began, at = time.monotonic(), time.time()
        connection.execute("SELECT 1")
        self.idle.append((at, time.monotonic() - began))
        self._over.wait(0.003)


def trial(ground: Ground, seed: int) -> Facts:
    """One run under traffic; afterwards nothing that the plan repairs is left, not even in rows written meanwhile."""
    with ground.field(lease=30) as place:
        url = place.environ["TARGET_DATABASE_URL"]
        place.staff(1)
        place.listening(1)
        with Traffic(url, random.Random(seed)) as traffic:
            run = place.ends(place.migrate(expectQuiet=False), seconds=240)
        windows = place.ask(_WINDOWS, run.id, ["expand", "constrain"])
        worst, idle = traffic.worst(traffic.writes, windows), traffic.worst(traffic.idle, windows)
        bound = LOCK_TIMEOUT + _MARGIN + idle
        assert worst <= bound, f"a write stalled for {worst:.2f} s (a query of no table for {idle:.2f} s)"
        _require_repaired(place, url, traffic)
    seconds = sum(end - begin for begin, end in windows)
    return {
        "worst": round(worst, 3), "idle": round(idle, 3), "writes": len(traffic.writes), "refused": traffic.refused,
        "schema_seconds": round(seconds, 1),
    }  # fmt: skip


def _require_repaired(place: Field, url: str, traffic: Traffic) -> None:
    after = oracle.read_rows(url)
    again = oracle.judge(after)
    assert sum(again.changed.values()) == 0, again.changed
    found = {key for key, row in after["usage_logs"].items() if row["action"] == "traffic"}
    assert found == set(traffic.inserted), (
        f"{len(found ^ set(traffic.inserted))} rows of the writers are not as written"
    )
    skipped = oracle.read_skipped(url)
    assert all(ids <= skipped.get(table, set()) for table, ids in again.skipped.items()), (again.skipped, skipped)


def _says(trials: Sequence[Mapping[str, Any]]) -> str:
    return (
        f"worst stall {most(trials, 'worst'):.2f} s (a query that touches no table: {most(trials, 'idle'):.2f} s), "
        f"{total(trials, 'writes'):,} writes in {len(trials)} runs beside long readers"
    )


ROW = Row("traffic", 6, "runs", 5, trial, _says)
