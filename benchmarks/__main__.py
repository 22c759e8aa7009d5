"""`make bench`: rows of the promises' speed table, trial after trial, going on where the last start was left.

Exit codes: 0 all measured rows are met, 1 one is missed or could not be measured, 2 the rows are not known,
130 interrupted.
"""

import argparse
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from benchmarks.ground import SERVER, Ground
from benchmarks.machine import machine, versions
from benchmarks.picture import draw
from benchmarks.report import lines, results
from benchmarks.rows.all import ROWS
from benchmarks.rows.row import Row
from briefly_admin import settings
from briefly_admin.domain.errors import BrieflyError
from briefly_admin.embedded import EmbeddedServers
from briefly_admin.embedded.home import prepare_home
from tests.faults.harness import CHECKOUT
from tests.faults.ledger import Ledger, Trial

OUTPUT = CHECKOUT / "benchmarks"


def asked(arguments: Sequence[str]) -> list[Row]:
    """The rows to measure; exits with 2, naming the rows there are, where one is not known."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measures what benchmarks/results.json shows."
    )
    parser.add_argument(
        "rows", nargs="*", metavar="ROW", help=f"one of {', '.join(ROWS)}; all of them if none is named"
    )
    names = parser.parse_args(arguments).rows
    for name in names:
        if name not in ROWS:
            parser.error(f"there is no row {name}; the rows are {', '.join(ROWS)}")
    return [ROWS[name] for name in names] or list(ROWS.values())


def measure(ground: Ground, row: Row, ledger: Ledger) -> bool:
    """Trial after trial until there are enough; False as soon as one fails. Each is written down at once."""
    good = [trial for trial in ledger.counted(row.trials) if trial.ok]
    print(f"{row.name} takes about {row.minutes} minutes ({row.making} more to make its tables); "
          f"{len(good)} of {row.wanted} trials were made with this code.", flush=True)  # fmt: skip
    seed = max((trial.seed for trial in ledger.counted(row.trials)), default=0)
    for _ in range(row.wanted - len(good)):
        seed += 1
        trial = _attempt(ground, row, seed)
        ledger.append(trial)
        if not trial.ok:
            return False
    return True


def _attempt(ground: Ground, row: Row, seed: int) -> Trial:
    assert row.trial is not None
    began, facts, error = time.monotonic(), {}, ""
    try:
        facts = row.trial(ground, seed)
    except Exception as fault:  # noqa: BLE001 - whatever it is, the trial failed, and the file says so
        (ground.logs / "failure.txt").write_text(traceback.format_exc(), encoding="utf-8")
        error = f"{type(fault).__name__}: {str(fault).strip()}".splitlines()[0][:300]
    seconds = round(time.monotonic() - began, 1)
    print(f"  {row.name} {seed}: {error or json.dumps(facts, ensure_ascii=False)} ({seconds} s)", flush=True)
    return Trial(row.trials, seed, not error, seconds, facts, error)


def publish(ledger: Ledger, url: str, output: Path) -> dict[str, Any]:
    """Writes results.json and results.svg; what they show."""
    found = results(ledger, machine(), versions(url))
    (output / "results.json").write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (output / "results.svg").write_text(draw(found), encoding="utf-8")
    return found


def run(rows: Sequence[Row], home: Path, output: Path, options: dict[str, str]) -> bool:
    """Measures the rows in `home`/bench; whether each could be measured, and is met."""
    prepare_home(home)
    prepare_home(home / "bench")
    ledger = Ledger(home / "bench" / "results.jsonl")
    with EmbeddedServers(home / "bench" / "servers", options=options) as servers:
        ground = Ground(servers, home / "bench" / "logs")
        ground.logs.mkdir(exist_ok=True)
        ground.tidy()
        # A row that fails does not keep the next one from being measured.
        done = [measure(ground, row, ledger) for row in rows]
        found = publish(ledger, servers.superuser_url(), output)
    for line in ["", *lines(found), "", f"Written to {output.name}/results.json and results.svg."]:
        print(line)
    names = {row.name for row in rows}
    return all(done) and all(each.get("met", False) for each in found["rows"] if each["name"] in names)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main(arguments: Sequence[str]) -> int:
    """The exit code."""
    rows = asked(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return 0 if run(rows, settings.home_of(os.environ), OUTPUT, SERVER) else 1
    except KeyboardInterrupt:
        print("Interrupted; the next start goes on from here.")
        return 130
    except BrieflyError as error:
        sys.stderr.write(f"{error.message} {error.remedy}\n")
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
