"""Ways to disturb a backup while it is made: each begins it, hurts it, waits for its end, and heals what it hurt."""

import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from briefly_admin.domain.runs import RunState
from briefly_admin.services.views import RunView
from tests.faults import hurt
from tests.faults.ground import Ground, name_of
from tests.faults.harness import ANA, Field
from tests.faults.hurt import Blow
from tests.faults.processes import until
from tests.faults.proxy import Proxy, socket_of
from tests.faults.rows.redis_loss import own_valkey
from tests.faults.storm import Storm, Weather
from tests.object_storage import ACCESS_KEY, SECRET_KEY, ObjectStorage, serve_objects

STREAM_BYTES = 40_000
"""Of a table, about: the 2,780 rows are some thirty streams."""
PUTS = 44
"""Slots, streams and manifest of such a backup, about."""
_TARGET = "TARGET_DATABASE_URL"
_DISK = 8 << 20
_FILE_BYTES = 1 << 20
_PART_BYTES = 7 << 20
"""More than what is put into a bucket by one request."""
_STORE_SECONDS = 1.5
_BULK = """
CREATE TABLE public.bulk AS
SELECT g AS id, (SELECT string_agg(uuid_send(gen_random_uuid()), '') FROM generate_series(1, 128) WHERE g > 0) AS noise
FROM generate_series(1, 4500) AS g
"""
_TABLES = ("users", "file_metadata", "conversations", "user_settings", "usage_logs")


@dataclass(frozen=True)
class Outcome:
    """The run after its end, and what was to become of it."""

    run: RunView
    struck: bool = True
    """Whether the fault met the backup: it may have come too late."""
    must_fail: bool = False
    must_complete: bool = False

    def allows(self, run: RunView) -> bool:
        """Whether the run ended as it was to end."""
        completed = run.state is RunState.COMPLETED
        return completed or not self.must_complete if not (self.struck and self.must_fail) else not completed


Way = Callable[[Ground, Field, random.Random], AbstractContextManager[Outcome]]


def _begin(
    field: Field, workers: int, *, beyond: Sequence[tuple[str, str]] = (), stream_bytes: int = STREAM_BYTES,
    **faults: Any,
) -> RunView:  # fmt: skip
    """Hurt workers, and a backup for them."""
    field.module = "tests.faults.hurt"
    field.elsewhere |= hurt.settings(field.logs, stream_bytes=stream_bytes, **faults)
    field.staff(workers)
    field.listening(workers)
    return field.back_up(workers=workers, beyond=beyond)


@contextmanager
def _killed(_: Ground, field: Field, chance: random.Random) -> Iterator[Outcome]:
    """SIGKILL of worker and horse at a put, who are started again, as a platform does; the run goes on by itself."""
    workers = chance.randint(1, 3)
    blow = Blow("put", chance.randint(1, PUTS), chance.choice(hurt.STAGES))
    run = field.settles(_begin(field, workers, blow=blow), seconds=120, workers=workers)
    yield Outcome(run, struck=hurt.struck(field.logs, blow), must_complete=True)


@contextmanager
def _abandoned(_: Ground, field: Field, chance: random.Random) -> Iterator[Outcome]:
    """SIGKILL at a put; nobody goes on with the run, and somebody cancels it."""
    blow = Blow("put", chance.randint(1, PUTS), chance.choice(hurt.STAGES))
    run = _begin(field, 1, blow=blow)
    until(lambda: hurt.struck(field.logs, blow) or field.view(run).finished, seconds=60, what="the kill")
    until(lambda: not field.leads(run), what="the end of the horse")
    field.dismiss()
    if not field.view(run).finished:
        until(field.services.sweeping.sweep, what="the healing of the run")
        field.services.runs.cancel(ANA, run.id)
    yield Outcome(field.view(run), struck=hurt.struck(field.logs, blow), must_fail=True)


@contextmanager
def full(
    _: Ground, field: Field, chance: random.Random, *, mounting: bool = True
) -> Iterator[Outcome]:  # fmt: skip
    """A file system of its own that is full from a put on, until it has room again.

    Where none may be mounted, no file of the workers may grow beyond a megabyte, and a stream is larger.
    """
    blow, workers = Blow("put", chance.randint(2, PUTS), hurt.FULL), chance.randint(1, 2)
    with _disk(field.logs / "disk", mounting=mounting) as disk:
        if disk is None:
            _bulk(field)
            large: dict[str, Any] = {"beyond": [("public", "bulk")], "stream_bytes": _PART_BYTES}
            run = field.settles(_begin(field, workers, file_bytes=_FILE_BYTES, **large), seconds=120)
            yield Outcome(run, must_fail=True)
            return
        field.use(BACKUP_STORE_URL=f"file://{disk}/store")
        run = field.settles(_begin(field, workers, blow=blow, ballast=disk / "ballast"), seconds=120)
        (disk / "ballast").unlink(missing_ok=True)
        yield Outcome(run, struck=hurt.struck(field.logs, blow))


@contextmanager
def _disk(place: Path, *, mounting: bool) -> Iterator[Path | None]:
    """A small file system at that directory; None where we may not mount one."""
    place.mkdir()
    mount, unmount = shutil.which("mount"), shutil.which("umount")
    if not (mounting and mount and unmount and os.geteuid() == 0):
        yield None
        return
    options = ["-t", "tmpfs", "-o", f"size={_DISK},mode=0700", "none", str(place)]
    if subprocess.run([mount, *options], check=False, capture_output=True).returncode:
        yield None
        return
    try:
        yield place
    finally:
        subprocess.run([unmount, "--lazy", str(place)], check=True)


def _bulk(field: Field) -> None:
    """A table of 9 MB that no compression makes smaller."""
    with psycopg.connect(field.environ[_TARGET]) as connection:
        connection.execute(_BULK)


@contextmanager
def _stormy(_: Ground, field: Field, chance: random.Random, *, weathers: Sequence[Weather]) -> Iterator[Outcome]:
    """The backup goes to a bucket, one of its tables in several parts; from some request on the store misbehaves.

    One time in two it does so for a few requests, which trying again may outlive, else until the run has ended.
    """
    with _bucket(field) as storage, Storm(storage.url) as storm:
        _bulk(field)
        weather, for_good = chance.choice(list(weathers)), chance.random() < 1 / 2
        field.elsewhere["AWS_ENDPOINT_URL"] = storm.url
        storm.begin(weather, after=chance.randrange(2, 60), times=1 << 30 if for_good else chance.randint(1, 4))
        large: dict[str, Any] = {"beyond": [("public", "bulk")], "stream_bytes": _PART_BYTES}
        run = field.settles(
            _begin(field, chance.randint(1, 2), store_seconds=_STORE_SECONDS, **large), seconds=300
        )  # fmt: skip
        storm.end()
        # An answer cut in half is asked for again from there, so that all of it arrives in the end.
        yield Outcome(run, struck=storm.hurt > 0, must_fail=for_good and weather is not Weather.HALF)


@contextmanager
def _bucket(field: Field) -> Iterator[ObjectStorage]:
    """A bucket of a server of its own for the field's backups; this process reaches it, too."""
    before = dict(os.environ)
    with serve_objects() as storage, storage.bucket() as name:
        cloud = {
            "AWS_ENDPOINT_URL": storage.url, "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        }  # fmt: skip
        os.environ.update(cloud)
        try:
            field.use(BACKUP_STORE_URL=f"s3://{name}/backups", **cloud)
            yield storage
        finally:
            os.environ.clear()
            os.environ.update(before)


@contextmanager
def _cut(ground: Ground, field: Field, chance: random.Random, *, for_good: bool) -> Iterator[Outcome]:
    """The session that brings a certain byte of the target's is cut off; for good: with all others, and nobody gets there
    any more.
    """
    with Proxy(socket_of(ground.servers.target_url)) as proxy:
        field.elsewhere[_TARGET] = proxy.url(field.environ[_TARGET])
        proxy.for_good = for_good
        proxy.cut_after(chance.randint(1_000, 900_000))
        run = field.settles(_begin(field, chance.randint(1, 3)), seconds=300, workers=0)
        # For good, it may still be when nothing is left but to read the store.
        yield Outcome(run, struck=not proxy.awaits_cut, must_complete=not for_good)


@contextmanager
def _cut_redis(_: Ground, field: Field, chance: random.Random) -> Iterator[Outcome]:
    """A Redis is the store, and the connection that brings a certain byte of its answers is cut off, one time in two with
    all others and for good: early, where all answers are short, or when the backup is read back.
    """
    with own_valkey() as servers, Proxy(socket_of(servers.redis_url)) as proxy:
        field.use(BACKUP_STORE_URL=servers.redis_url)
        field.elsewhere["BACKUP_STORE_URL"] = proxy.url(servers.redis_url)
        proxy.for_good = chance.random() < 1 / 2
        proxy.cut_after(chance.choice((chance.randint(1, 6_000), chance.randint(6_000, 350_000))))
        run = field.settles(_begin(field, chance.randint(1, 2)), seconds=120)
        yield Outcome(run, struck=not proxy.awaits_cut, must_fail=proxy.for_good)


@contextmanager
def _filtered(ground: Ground, field: Field, chance: random.Random) -> Iterator[Outcome]:
    """Row-level security hides rows of one table from our role, who owns it."""
    table = sql.Identifier("public", chance.choice(_TABLES))
    with psycopg.connect(ground.servers.superuser_url(name_of(field.environ[_TARGET])), autocommit=True) as superuser:
        for text in (
            "ALTER TABLE {} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
            "CREATE POLICY hidden ON {} USING (random() < 0.9)",
        ):
            superuser.execute(sql.SQL(text).format(table))
        run = field.settles(_begin(field, chance.randint(1, 2)))
        superuser.execute(sql.SQL("DROP POLICY hidden ON {}").format(table))
        superuser.execute(
            sql.SQL("ALTER TABLE {} DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY").format(table)
        )
    yield Outcome(run, must_fail=True)


_ERRORS = (Weather.ERROR, Weather.BUSY)
_LOSSES = (Weather.LOST, Weather.UNANSWERED, Weather.HALF)
WAYS: Sequence[tuple[str, Way]] = (
    ("killed at a put", _killed),
    ("on a full disk", full),
    ("with a store that answers 5xx", partial(_stormy, weathers=_ERRORS)),
    ("killed at a put", _killed),
    ("with a store cut off", partial(_stormy, weathers=_LOSSES)),
    ("with PostgreSQL cut off", partial(_cut, for_good=False)),
    ("killed at a put", _killed),
    ("with a store that hangs", partial(_stormy, weathers=(Weather.HANGS,))),
    ("killed at a put and cancelled", _abandoned),
    ("with PostgreSQL gone", partial(_cut, for_good=True)),
    ("of a role filtered by row-level security", _filtered),
    ("with Redis as its store cut off", _cut_redis),
)
