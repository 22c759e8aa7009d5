"""Secrets do not reach the logs, whatever way they come."""

import io
import logging
import sys
from collections.abc import Iterator

import psycopg
import pytest
import structlog
from psycopg import sql

from briefly_admin.domain.errors import RunFailed
from briefly_admin.services import logs

CANARY = "canary-7f3a9c"


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    former = logging.getLogger().handlers[:]
    level = logging.getLogger().level
    logs.configure("info")
    yield stream
    logging.getLogger().handlers = former
    logging.getLogger().setLevel(level)
    structlog.reset_defaults()


@pytest.mark.parametrize(
    ("event", "fields"),
    [
        ("signed in", {"password": CANARY}),
        ("started", {"settings": {"SECRET_KEY": CANARY, "nested": {"api_key": CANARY}}}),
        ("connect", {"url": f"postgresql://user:{CANARY}@host/db"}),
        (f"could not reach rediss://:{CANARY}@host:6379/0", {}),
        (f"dsn is host=a password={CANARY} dbname=b", {}),
        ("request", {"header": f"Bearer {CANARY}"}),
        ("token", {"given": f"bra_{CANARY}"}),
        ("list", {"urls": [f"postgres://{CANARY}@host/db"]}),
    ],
)
def test_secrets_are_hidden(captured: io.StringIO, event: str, fields: dict[str, object]) -> None:
    structlog.get_logger("briefly.test").info(event, **fields)
    line = captured.getvalue()
    assert CANARY not in line
    assert logs.HIDDEN in line


def test_the_standard_library_and_tracebacks_pass_the_same_way(captured: io.StringIO) -> None:
    try:
        int(f"postgresql://u:{CANARY}@h/d")
    except ValueError:
        logging.getLogger("other").exception("failed with %s", f"password={CANARY}")
    assert CANARY not in captured.getvalue()
    assert "ValueError" in captured.getvalue()


def test_a_traceback_tells_where_and_what_kind_but_no_rows(captured: io.StringIO, target_database: str) -> None:
    secret = "canary" + "-in-a-row"
    try:
        try:
            with psycopg.connect(target_database) as connection:
                connection.execute(sql.SQL("SELECT {}::int").format(secret))
        except psycopg.Error as error:
            raise KeyError(secret) from error
    except KeyError:
        structlog.get_logger("briefly.test").exception("unexpected error")
        logging.getLogger("other").exception("unexpected error")
    assert secret not in captured.getvalue()
    for line in captured.getvalue().splitlines():
        assert "InvalidTextRepresentation (SQLSTATE 22P02)" in line, "the cause"
        assert "builtins.KeyError" in line
        assert "test_logs.py" in line, "and where it happened"


def test_words_about_code_and_our_own_are_kept(captured: io.StringIO) -> None:
    for error in (TypeError("not callable"), RunFailed("It broke.", remedy="Mend it.")):
        try:
            raise error
        except (TypeError, RunFailed):
            structlog.get_logger("briefly.test").exception("unexpected error")
    assert "not callable" in captured.getvalue()
    assert "It broke. Mend it." in captured.getvalue()


def test_what_is_no_secret_is_kept(captured: io.StringIO) -> None:
    structlog.get_logger("briefly.test").info("batch done", table="users", rows=100)
    assert '"table": "users"' in captured.getvalue()
    assert '"rows": 100' in captured.getvalue()
