"""The command in this process and as a process of its own, on fresh databases and explicit settings."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner

from briefly_admin.cli import main
from briefly_admin.cli.up import CHECKOUT
from briefly_admin.jobs.queue import RqQueue
from briefly_admin.jobs.worker import BrieflyWorker, make_worker

TABLES = (
    "users", "file_metadata", "document_chunks", "conversations", "chat_messages", "oauth_tokens", "usage_logs",
    "user_settings",
)  # fmt: skip
NOWHERE = "postgresql://somebody:not-to-be-shown@127.0.0.1:1/nowhere"


@dataclass(frozen=True)
class Answer:
    """What one invocation printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[Any]:
        """Standard output as lines of JSON."""
        return [json.loads(line) for line in self.out.splitlines()]

    def is_one_line(self, *words: str) -> bool:
        """Nothing on standard output; one line on the other, with these words and without a traceback or password."""
        whole = len(self.err.splitlines()) == 1 and not self.out
        return (
            whole
            and "Traceback" not in self.err
            and "not-to-be-shown" not in self.err
            and all(w in self.err for w in words)
        )


Command = Callable[..., Answer]


@pytest.fixture
def environ(app_database: str, target_database: str, redis_url: str, tmp_path: Path) -> dict[str, str]:
    return {
        "DATABASE_URL": app_database, "TARGET_DATABASE_URL": target_database, "REDIS_URL": redis_url,
        "BRIEFLY_HOME": str(tmp_path / "home"), "LEASE_SECONDS": "6",
    }  # fmt: skip


@pytest.fixture
def command(environ: dict[str, str]) -> Iterator[Command]:
    """Calls the command in this process; keywords in capitals are settings (None: not set), `input` is standard input."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level

    def call(*args: str, input: str | None = None, **settings: str | None) -> Answer:  # noqa: A002 - click's word
        result = CliRunner().invoke(main, args, input=input, env=environ | settings)
        return Answer(result.exit_code, result.stdout, result.stderr)

    yield call
    root.handlers, root.level = handlers, level


@pytest.fixture
def process(environ: dict[str, str]) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the command as a process; what a failed test leaves is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(*args: str) -> subprocess.Popen[str]:
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "briefly_admin.cli", *args], cwd=CHECKOUT, env={**os.environ, **environ},
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
            )
        )  # fmt: skip
        return started[-1]

    yield start
    for one in started:
        if one.poll() is None:
            one.kill()
        one.communicate()


@pytest.fixture
def listening(redis_url: str) -> Iterator[BrieflyWorker]:
    """A worker that listens and takes nothing."""
    worker = make_worker(redis_url)
    worker.register_birth()  # type: ignore[no-untyped-call]  # rq leaves it untyped
    yield worker
    worker.register_death()  # type: ignore[no-untyped-call]  # rq leaves it untyped
    worker.connection.close()


@pytest.fixture
def queue(redis_url: str) -> Iterator[RqQueue]:
    queue = RqQueue(redis_url)
    yield queue
    queue.close()


def contents(target: str) -> dict[str, str]:
    """A digest of every table's rows and columns."""
    with psycopg.connect(target) as connection:
        return {
            name: str(
                connection.execute(f"SELECT md5(string_agg(t::text, '|' ORDER BY t::text)) FROM {name} t").fetchone()
            )
            for name in TABLES
        }


def column_of(table: str, column: int) -> list[str]:
    """A column of a printed table without its heading."""
    return [line.split()[column] for line in table.splitlines()[1:]]
