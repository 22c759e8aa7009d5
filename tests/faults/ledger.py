"""The results file: one JSON line a trial, on disk before the next one begins; and which lines count today."""

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from tests.faults.harness import CHECKOUT

COUNTED = ("engine", "jobs", "store", "vault")
"""Directories of the package: a figure counts while what stands in them is unchanged."""


def digest_of(*directories: Path) -> str:
    """Hex SHA-256 over the names and bytes of all files below, committed or not; caches aside."""
    digest = hashlib.sha256()
    for directory in directories:
        for path in sorted(directory.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                content = hashlib.sha256(path.read_bytes()).hexdigest()
                digest.update(f"{path.relative_to(directory.parent)} {content}\n".encode())
    return digest.hexdigest()


@cache
def fingerprint() -> str:
    """Of the code whose figures these are."""
    return digest_of(*(CHECKOUT / "briefly_admin" / name for name in COUNTED))[:16]


@cache
def commit() -> str:
    """The commit that is checked out; with a + where the package differs from it, 'unknown' without git."""
    git = shutil.which("git")
    if git is None:
        return "unknown"

    def ask(*arguments: str) -> str:
        return subprocess.run([git, *arguments], cwd=CHECKOUT, capture_output=True, text=True, check=False).stdout

    changed = ask("status", "--porcelain", "--", "briefly_admin").strip()
    return (ask("rev-parse", "--short=12", "HEAD").strip() or "unknown") + ("+" if changed else "")


@dataclass(frozen=True)
class Trial:
    """One line."""

    row: str
    seed: int
    ok: bool
    seconds: float
    facts: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    commit: str = ""
    fingerprint: str = ""
    at: str = ""
    repeated: bool = False
    """Asked for by its seed: it does not count towards the row."""

    def to_json(self) -> dict[str, Any]:
        """As it stands in the file."""
        own = {name: getattr(self, name) for name in _FIELDS}
        return {**own, **({"error": self.error} if self.error else {}), "facts": dict(self.facts)}


_FIELDS = ("row", "seed", "ok", "seconds", "commit", "fingerprint", "at", "repeated")


class Ledger:
    """The results file of a home."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, trial: Trial) -> None:
        """Write it down for good. A line that a crash cut off is ended first, so that this one stands alone."""
        stamped = trial.to_json() | {
            "commit": commit(), "fingerprint": fingerprint(), "at": datetime.now(UTC).isoformat(timespec="seconds"),
        }  # fmt: skip
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as stream:
            if stream.tell():
                stream.seek(-1, os.SEEK_END)
                if stream.read(1) != b"\n":
                    stream.write(b"\n")
            stream.write(json.dumps(stamped, ensure_ascii=False).encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())

    def trials(self) -> list[Trial]:
        """All that was ever written; a line that is no trial is left out."""
        if not self.path.exists():
            return []
        found = []
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                data = json.loads(line)
                found.append(Trial(**{name: data[name] for name in _FIELDS}, error=data.get("error", ""),
                                   facts=data["facts"]))  # fmt: skip
            except (ValueError, KeyError, TypeError):
                continue
        return found

    def counted(self, row: str) -> Sequence[Trial]:
        """The row's trials under the code as it is now."""
        now = fingerprint()
        return [t for t in self.trials() if t.row == row and t.fingerprint == now and not t.repeated]

    def before(self, row: str) -> Sequence[Trial]:
        """The row's newest trials under code that has changed since: those of one state of it."""
        found = [t for t in self.trials() if t.row == row and t.fingerprint != fingerprint() and not t.repeated]
        return [t for t in found if t.fingerprint == max(found, key=lambda trial: trial.at).fingerprint]
