"""The harness's own directory in BRIEFLY_HOME: servers, databases to be copied and what is kept of trials."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import psycopg
from psycopg import sql

from briefly_admin.embedded import EmbeddedServers
from briefly_admin.embedded.home import prepare_home, write_private
from tests.faults.ground import Ground, make_app, make_dirty
from tests.faults.harness import CHECKOUT, Undisturbed
from tests.faults.ledger import digest_of

_GROUND = "ground.json"


@contextmanager
def opened(home: Path) -> Iterator[Ground]:
    """The ground of `home`/faults, its set-ups made where there are none for this code, its servers stopped afterwards.

    Raises Refused where another process uses it, Unavailable where a server does not start.
    """
    prepare_home(home)
    prepare_home(home / "faults")
    with EmbeddedServers(home / "faults" / "servers") as servers:
        yield _ground(servers, home / "faults")


def _ground(servers: EmbeddedServers, home: Path) -> Ground:
    digest, path = digest_of(CHECKOUT / "briefly_admin", CHECKOUT / "tests" / "faults"), home / _GROUND
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if kept.get("digest") == digest and {kept["dirty"], kept["app"]} <= _databases(servers):
        _drop_but(servers, {kept["dirty"], kept["app"]})
        return Ground(servers, kept["dirty"], kept["app"], home / "trials", Undisturbed(**kept["undisturbed"]))
    _drop_but(servers, set())
    ground = Ground(servers, make_dirty(servers), make_app(servers), home / "trials" / "undisturbed")
    reference = asdict(ground.undisturbed)
    shutil.rmtree(ground.logs)
    made = {"digest": digest, "dirty": ground.dirty, "app": ground.app, "undisturbed": reference}
    write_private(path, json.dumps(made))
    return replace(ground, logs=home / "trials")


def _databases(servers: EmbeddedServers) -> set[str]:
    with psycopg.connect(servers.superuser_url()) as connection:
        return {
            name for (name,) in connection.execute(r"SELECT datname FROM pg_database WHERE datname LIKE 'faults\_%'")
        }


def _drop_but(servers: EmbeddedServers, kept: set[str]) -> None:
    """Drop what killed trials, and set-ups of other code, have left."""
    with psycopg.connect(servers.superuser_url(), autocommit=True) as connection:
        for name in _databases(servers) - kept:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
