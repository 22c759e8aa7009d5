"""What the figures were measured on."""

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psycopg


def machine() -> dict[str, Any]:
    """`{"cpu": model, "cores": number, "memory": GiB}`; what the system does not tell is 'unknown' or 0."""
    kibibytes = int((_line("/proc/meminfo", "MemTotal") or "0").split()[0])
    model = _line("/proc/cpuinfo", "model name") or platform.machine() or "unknown"
    return {"cpu": model, "cores": os.cpu_count() or 0, "memory": round(kibibytes / 2**20, 1)}


def versions(url: str) -> dict[str, str]:
    """Of Python, the server at `url` and psycopg."""
    with psycopg.connect(url) as connection:
        row = connection.execute("SHOW server_version").fetchone()
    return {"python": platform.python_version(), "postgres": str(row[0] if row else "unknown").split()[0],
            "psycopg": version("psycopg")}  # fmt: skip


def _line(path: str, name: str) -> str:
    """What follows `name:` in a file of proc(5)."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in text.splitlines() if line.startswith(name)), "")
