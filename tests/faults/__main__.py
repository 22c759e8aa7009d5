"""`make faults`: rows of the promises' first table, trial after trial, going on where the last start was left.

Exit codes: 0 all wanted trials were good, 1 some failed, 2 the rows are not known, 130 interrupted.
"""

import argparse
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType

from briefly_admin import settings
from briefly_admin.domain.errors import BrieflyError
from tests.faults import home as homes
from tests.faults import report
from tests.faults.ground import Ground
from tests.faults.harness import CHECKOUT
from tests.faults.ledger import Ledger, Trial
from tests.faults.rows.all import ROWS
from tests.faults.rows.row import Row, total

_PAGE = CHECKOUT / "docs" / "faults.md"
_ERROR_LENGTH = 300


def say(text: str = "") -> None:
    """A line for whoever waits."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _asked(arguments: Sequence[str]) -> argparse.Namespace:
    """What was asked for; exits with 2, naming the rows, where it cannot be."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="Tries what docs/faults.md shows.")
    known = ", ".join(ROWS)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"one of {known}; all of them if none is named")
    parser.add_argument("--seed", type=int, help="repeat one trial of one row; it does not count")
    parser.add_argument("--trials", type=int, help="at most so many trials of each row in this start")
    asked = parser.parse_args(arguments)
    for name in asked.rows:
        if name not in ROWS:
            parser.error(f"there is no row {name}; the rows are {known}")
    if asked.seed is not None and len(asked.rows) != 1:
        parser.error("a seed belongs to one row: name it as well")
    if asked.trials is not None and asked.trials < 1:
        parser.error("at least one trial is needed")
    return asked


def attempt(ground: Ground, row: Row, seed: int, *, repeated: bool) -> Trial:
    """One trial; its logs are kept where it fails."""
    logs = ground.logs / f"{row.name}-{seed}"
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir(parents=True)
    began = time.monotonic()
    facts, error = {}, ""
    try:
        facts = row.trial(replace(ground, logs=logs), seed)
    except Exception as fault:  # noqa: BLE001 - whatever it is, the trial failed and the next one goes on
        text = str(fault).strip()
        (logs / "failure.txt").write_text(f"{traceback.format_exc()}\n", encoding="utf-8")
        error = f"{type(fault).__name__}: {text.splitlines()[0] if text else 'no text'}"[:_ERROR_LENGTH]
    seconds = round(time.monotonic() - began, 1)
    if error:
        shutil.rmtree(logs / "backups", ignore_errors=True)
        say(f"  {row.name} {seed}: FAILED after {seconds} s: {error}")
        say(f"    repeat it: make faults ROW={row.name} SEED={seed}    its logs: {logs}")
    else:
        shutil.rmtree(logs, ignore_errors=True)
        say(f"  {row.name} {seed}: {seconds} s  {', '.join(f'{name} {value}' for name, value in facts.items())}")
    return Trial(row.name, seed, not error, seconds, facts, error, repeated=repeated)


def try_row(ground: Ground, row: Row, ledger: Ledger, most: int | None) -> None:
    """Trial after trial until the row is full."""
    counted = list(ledger.counted(row.name))
    say(f"The row {row.name} takes about {row.minutes} minutes; {row.wanted:,} {row.units} are wanted.")
    if counted:
        say(f"  {total([t.facts for t in counted]):,} of them were tried before with this code.")
    tried = 0
    while total([t.facts for t in counted]) < row.wanted and (most is None or tried < most):
        seed = max((t.seed for t in counted), default=0) + 1
        counted.append(attempt(ground, row, seed, repeated=False))
        ledger.append(counted[-1])
        tried += 1
        while True:
            with suppress(BrieflyError):
                ground.servers.revive()
                break
            time.sleep(1)


def _show(ledger: Ledger) -> None:
    _PAGE.write_text(report.page(ROWS, ledger), encoding="utf-8")
    for line in report.lines(ROWS, ledger):
        say(line)
    say(f"\nWritten to {_PAGE.relative_to(CHECKOUT)}.")


def _run(asked: argparse.Namespace, home: Path, ledger: Ledger) -> bool:
    """Whether all trials of this start, and those that counted before, were good."""
    wanted = [ROWS[name] for name in asked.rows] or list(ROWS.values())
    with homes.opened(home) as ground:
        if asked.seed is not None:
            trial = attempt(ground, wanted[0], asked.seed, repeated=True)
            ledger.append(trial)
            return trial.ok
        for row in wanted:
            try_row(ground, row, ledger, asked.trials)
            _show(ledger)
    return all(trial.ok for row in wanted for trial in ledger.counted(row.name))


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main(arguments: Sequence[str]) -> int:
    """The exit code."""
    asked = _asked(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    home = settings.home_of(os.environ)
    ledger = Ledger(home / "faults" / "results.jsonl")
    try:
        return 0 if _run(asked, home, ledger) else 1
    except KeyboardInterrupt:
        _show(ledger)
        say("Interrupted; the next start goes on from here.")
        return 130
    except BrieflyError as error:
        sys.stderr.write(f"{error.message} {error.remedy}\n")
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
