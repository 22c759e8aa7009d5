"""The figures of all trials that count: as JSON, and as the table that is printed."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from benchmarks.ground import SERVER
from benchmarks.rows.all import TABLE
from benchmarks.rows.row import Row
from tests.faults.ledger import Ledger, commit, fingerprint

NOT_YET = "not yet measured"


def results(ledger: Ledger, machine: Mapping[str, Any], versions: Mapping[str, str]) -> dict[str, Any]:
    """Machine, versions, server, commit, fingerprint, date, and rows, each with name, what, against, bar.

    Those with enough trials of this code have ours, theirs, ratio, met and trials, too.
    """
    return {
        "machine": dict(machine), "versions": dict(versions), "server": SERVER, "commit": commit(),
        "fingerprint": fingerprint(), "date": datetime.now(UTC).date().isoformat(),
        "rows": [_row(row, ledger) for row in TABLE],
    }  # fmt: skip


def _row(row: Row, ledger: Ledger) -> dict[str, Any]:
    named = {"name": row.name, "what": row.what, "against": row.against, "bar": row.bar}
    facts = [trial.facts for trial in ledger.counted(row.trials) if trial.ok] if row.trials else []
    if row.weigh is None or len(facts) < row.wanted:
        return named
    found = row.weigh(facts)
    return named | {"ours": found.ours, "theirs": found.theirs, "ratio": found.ratio, "met": found.met,
                    "trials": len(facts)}  # fmt: skip


def lines(found: Mapping[str, Any]) -> list[str]:
    """The table, as text."""
    machine, versions = found["machine"], found["versions"]
    head = ("what", "against", "bar", "ours", "theirs", "ratio", "")
    cells = [head] + [_cells(row) for row in found["rows"]]
    widths = [max(len(row[n]) for row in cells) for n in range(len(head))]
    said = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    where = (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory']} GiB; Python {versions['python']}, "
        f"PostgreSQL {versions['postgres']}, psycopg {versions['psycopg']}; commit {found['commit']}, {found['date']}"
    )
    return [where, "", *said]


def _cells(row: Mapping[str, Any]) -> Sequence[str]:
    if "ratio" not in row:
        return row["what"], row["against"], row["bar"], NOT_YET, "", "", ""
    verdict = "met" if row["met"] else "MISSED"
    return row["what"], row["against"], row["bar"], row["ours"], row["theirs"], f"{row['ratio']:.2f}", verdict
