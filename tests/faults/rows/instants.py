"""Money moves between the rows of two tables while backups are taken: in every one of them it adds up."""

import random
import re
import struct
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import psycopg
from psycopg import sql

from briefly_admin.services.views import RunView
from briefly_admin.vault.copybinary import CopyParser, blocks
from briefly_admin.vault.vault import BackupReader
from tests.faults import hurt
from tests.faults.ground import Ground
from tests.faults.harness import ANA, Field
from tests.faults.rows.row import Facts, Row, total
from tests.faults.stored import opened

BACKUPS = 10
"""Of one trial."""
STREAM_BYTES = 30_000
_WRITERS = 4
_MOST = 3
_ROWS, _EACH = 400, 1_000
MONEY = 2 * _ROWS * _EACH
_PURSES = ("accounts", "savings")
BEYOND = [("public", name) for name in (*_PURSES, "moves")]
_TABLES = """
CREATE TABLE public.accounts (id bigserial PRIMARY KEY, balance bigint NOT NULL, moved bigint NOT NULL, note text);
CREATE TABLE public.savings (LIKE public.accounts INCLUDING ALL);
CREATE TABLE public.moves (id bigserial PRIMARY KEY, amount bigint NOT NULL);
INSERT INTO public.accounts (balance, moved, note) SELECT {each}, 0, repeat('x', g % 300) FROM generate_series(1, {rows}) AS g;
INSERT INTO public.savings (balance, moved, note) SELECT {each}, 0, repeat('y', g % 300) FROM generate_series(1, {rows}) AS g;
"""
_SOME = "SELECT id FROM public.{} OFFSET floor(random() * %s) LIMIT 1"
_SEALED_BY = re.compile(r"rows sealed by (.+)\.$")


@dataclass
class Movers:
    """Connections that move money while they are open (`with`): each transaction leaves the sum as it was.

    A move also counts itself on both rows and adds a row to `moves`, so that an instant between two tables shows even
    where amounts happen to be equal.
    """

    url: str
    chance: random.Random
    done: int = 0
    """Transactions committed."""
    _over: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    _faults: list[Exception] = field(default_factory=list)

    def __enter__(self) -> Self:
        with psycopg.connect(self.url) as connection:
            connection.execute(_TABLES.format(each=_EACH, rows=_ROWS))
        for _ in range(_WRITERS):
            chance = random.Random(self.chance.random())
            self._threads.append(threading.Thread(target=self._work, args=(chance,), daemon=True))
            self._threads[-1].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(30)
        if self._faults:
            raise self._faults[0]

    def _work(self, chance: random.Random) -> None:
        try:
            with psycopg.connect(self.url, autocommit=True) as connection:
                while not self._over.wait(0.003):
                    try:
                        with connection.transaction():
                            self._move(connection, chance)
                    except psycopg.errors.DeadlockDetected:
                        continue
                    self.done += 1
        except Exception as fault:  # noqa: BLE001 - raised again where the threads are joined
            self._faults.append(fault)

    def _move(self, connection: psycopg.Connection[Any], chance: random.Random) -> None:
        giver, taker = (chance.choice(_PURSES) for _ in range(2))
        amount, way = chance.randint(1, 50), chance.random()
        target = self._row(connection, taker)
        if way < 0.1:
            new = sql.SQL("INSERT INTO public.{} (balance, moved, note) VALUES (0, 0, %s) RETURNING id")
            row = connection.execute(new.format(sql.Identifier(taker)), ("z" * chance.randrange(400),)).fetchone()
            target = row[0] if row else 0
        source = self._row(connection, giver)
        if (source, giver) == (target, taker):
            return
        if way > 0.9:
            gone = sql.SQL("DELETE FROM public.{} WHERE id = %s RETURNING balance, moved").format(sql.Identifier(giver))
            row = connection.execute(gone, (source,)).fetchone()
            self._add(connection, taker, target, *(row or (0, 0)), must=row is not None)
            return
        if self._add(connection, giver, source, -amount, 1):
            self._add(connection, taker, target, amount, 1, must=True)
            connection.execute("INSERT INTO public.moves (amount) VALUES (%s)", (amount,))

    def _row(self, connection: psycopg.Connection[Any], table: str) -> int:
        row = connection.execute(sql.SQL(_SOME).format(sql.Identifier(table)), (_ROWS // 2,)).fetchone()
        return row[0] if row else 0

    def _add(
        self, connection: psycopg.Connection[Any], table: str, row: int, amount: int, moved: int, *, must: bool = False
    ) -> bool:
        """Whether the row was there; where it must be, and another one deleted it, nothing of the transaction is done."""
        change = sql.SQL("UPDATE public.{} SET balance = balance + %s, moved = moved + %s WHERE id = %s")
        found = connection.execute(change.format(sql.Identifier(table)), (amount, moved, row)).rowcount == 1
        if must and not found:
            raise psycopg.Rollback
        return found


def trial(ground: Ground, seed: int, count: int = BACKUPS) -> Facts:
    """So many backups by one to three workers, many small streams each."""
    chance = random.Random(seed)
    streams, hands, moves = [], [], []
    with ground.field() as place, Movers(place.environ["TARGET_DATABASE_URL"], chance) as movers:
        place.module = "tests.faults.hurt"
        place.elsewhere |= hurt.settings(place.logs, stream_bytes=STREAM_BYTES)
        place.staff(min(count, _MOST))
        place.listening(min(count, _MOST))
        for number in range(count):
            before = movers.done
            run = place.ends(place.back_up(workers=number % _MOST + 1, beyond=BEYOND), seconds=180)
            moves.append(movers.done - before)
            reader = opened(place, place.services.backups.list(ANA)[0])
            require_exact(reader)
            streams.append(len(reader.manifest.streams))
            hands.append(len(_sealers(place, run)))
    assert min(moves) > 0, f"nothing moved while a backup was taken: {moves}"
    return {"count": count, "moves": sum(moves), "streams": min(streams), "helped": sum(h > 1 for h in hands)}


def _sealers(place: Field, run: RunView) -> set[str]:
    """The workers that sealed streams of the backup."""
    found = (_SEALED_BY.search(line.message) for line in place.services.runs.log(ANA, run.id))
    return {name for match in found if match for name in match[1].split(", ")}


def require_exact(reader: BackupReader) -> None:
    """All money is there, and as many moves as the rows count; read from the sealed backup."""
    numbers = {name: list(_numbers(reader, name)) for name in (*_PURSES, "moves")}
    purses = [row for name in _PURSES for row in numbers[name]]
    money, moved = sum(balance for _, balance, _ in purses), sum(moved for _, _, moved in purses)
    assert money == MONEY, f"{money} instead of {MONEY}"
    assert moved == 2 * len(numbers["moves"]), f"{moved} counted, {len(numbers['moves'])} moves"
    for name, rows in numbers.items():
        assert len({row[0] for row in rows}) == len(rows), f"a row of {name} is there twice"


def _numbers(reader: BackupReader, table: str) -> Iterator[tuple[int, ...]]:
    """The bigint columns of each row."""
    described = reader.manifest.table("public", table)
    assert described is not None
    for stream in described.streams:
        parser = CopyParser(len(described.columns))
        for _, found in blocks(parser, reader.read_table_stream(stream)):
            for row in found.rows:
                count = min(len(described.columns), 3)
                yield tuple(struct.unpack_from(">q", row, 4 + 12 * place)[0] for place in range(count))


def _says(trials: Sequence[Mapping[str, Any]]) -> str:
    return (
        f"the sum is exact in all of {total(trials):,} backups ({total(trials, 'helped')} by several workers, "
        f"{int(min(trial['streams'] for trial in trials))} streams or more each), {total(trials, 'moves'):,} moves "
        "meanwhile"
    )


ROW = Row("instants", 100, "backups", 12, trial, _says)
