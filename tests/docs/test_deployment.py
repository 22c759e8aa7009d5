"""What a platform does before a new version serves: the Procfile's release process."""

import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from briefly_admin.embedded import EmbeddedServers
from tests.docs.readme import ROOT

ANA = "ana@example.com"


@pytest.fixture
def production(embedded: EmbeddedServers, app_database: str, tmp_path: Path) -> dict[str, str]:
    """All that the README asks for in production."""
    return {
        "PATH": os.environ["PATH"], "APP_ENV": "production", "BRIEFLY_HOME": str(tmp_path / "none"),
        "DATABASE_URL": app_database, "TARGET_DATABASE_URL": embedded.target_url, "REDIS_URL": embedded.redis_url,
        "SECRET_KEY": "s" * 32, "AUDIT_KEY": "a" * 32, "BACKUP_KEYS": "key-1:" + "A" * 43 + "=",
        "BASE_URL": "https://admin.example.com", "ADMIN_EMAIL": ANA, "ADMIN_PASSWORD": "correct horse battery",
    }  # fmt: skip


def _release(environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    lines = dict(line.split(": ", 1) for line in (ROOT / "Procfile").read_text().splitlines())
    command = [sys.executable if word == "python" else word for word in lines["release"].split()]
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)


def _people(app_database: str) -> list[tuple[str, ...]]:
    with psycopg.connect(app_database) as connection:
        return connection.execute("SELECT email, role FROM briefly_admin.admin").fetchall()


def test_release_makes_the_first_admin_once(production: dict[str, str], app_database: str) -> None:
    for email in (ANA, "someone.else@example.com"):
        done = _release({**production, "ADMIN_EMAIL": email})
        assert (done.returncode, done.stderr) == (0, "")
        assert _people(app_database) == [(ANA, "admin")]


def test_release_without_a_first_admin_makes_nobody(production: dict[str, str], app_database: str) -> None:
    del production["ADMIN_EMAIL"], production["ADMIN_PASSWORD"]
    assert _release(production).returncode == 0
    assert _people(app_database) == []


def test_release_without_a_required_setting_says_so_in_one_line(production: dict[str, str]) -> None:
    del production["AUDIT_KEY"]
    done = _release(production)
    assert done.returncode == 2
    assert done.stderr.startswith("briefly-admin: AUDIT_KEY: ")
    assert len(done.stderr.splitlines()) == 1
