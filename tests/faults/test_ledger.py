"""The results file, what counts of it, the table made of it, and the command."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.faults import __main__ as command
from tests.faults import ledger as ledgers
from tests.faults import report
from tests.faults.ground import Ground
from tests.faults.harness import CHECKOUT
from tests.faults.ledger import Ledger, Trial, digest_of
from tests.faults.promises import PROMISES
from tests.faults.rows.all import ROWS
from tests.faults.rows.row import Facts, Row, total


def _says(trials: Sequence[Mapping[str, Any]]) -> str:
    return f"{total(trials)} dice thrown"


def dice(wanted: int = 5, *, breaks: int = 0) -> Row:
    def trial(_: Ground, seed: int) -> Facts:
        assert seed != breaks, "the die | is\nlost"
        return {"count": 2, "face": seed % 6}

    return Row("dice", wanted, "dice", 1, trial, _says)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "home" / "results.jsonl")


def test_a_row_goes_on_where_it_was_left(ground: Ground, ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    command.try_row(ground, dice(), ledger, 1)
    assert "The row dice takes about 1 minutes; 5 dice are wanted." in capsys.readouterr().out
    assert report.measured(dice(), ledger.counted("dice")) == "2 dice thrown; 2 of 5 dice so far"
    command.try_row(ground, dice(), ledger, None)
    assert "2 of them were tried before" in capsys.readouterr().out
    assert [(t.seed, t.ok, t.facts["face"]) for t in ledger.trials()] == [(1, True, 1), (2, True, 2), (3, True, 3)]
    assert report.measured(dice(), ledger.counted("dice")) == "6 dice thrown"
    command.try_row(ground, dice(), ledger, None)
    assert len(ledger.trials()) == 3


def test_a_failure_is_told_kept_and_repeated(
    ground: Ground, ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    row = dice(3, breaks=2)
    command.try_row(ground, row, ledger, None)
    said = capsys.readouterr().out
    assert "make faults ROW=dice SEED=2" in said
    assert "the die | is" in said
    assert "lost" in (ground.logs / "dice-2" / "failure.txt").read_text(encoding="utf-8")
    assert not (ground.logs / "dice-1").exists()
    (bad,) = [trial for trial in ledger.trials() if not trial.ok]
    assert (bad.seed, bad.error) == (2, "AssertionError: the die | is")
    assert report.measured(row, ledger.counted("dice")).startswith("**1 of 2 trials failed**; 2 dice thrown")
    again = command.attempt(ground, row, 2, repeated=True)
    assert not again.ok
    ledger.append(again)
    assert len(ledger.counted("dice")) == 2


def test_other_code_s_trials_and_broken_lines_do_not_count(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger.append(Trial("kills", 1, ok=True, seconds=1.0, facts={"count": 9}))
    with ledger.path.open("a", encoding="utf-8") as stream:
        stream.write('["no trial"]\n{"row": "kills", "se')
    ledger.append(Trial("kills", 2, ok=True, seconds=1.0))
    assert [trial.seed for trial in ledger.counted("kills")] == [1, 2]
    line = json.loads(ledger.path.read_text(encoding="utf-8").splitlines()[0])
    assert line.keys() == {"row", "seed", "ok", "seconds", "commit", "fingerprint", "at", "repeated", "facts"}
    monkeypatch.setattr(ledgers, "fingerprint", lambda: "other code")
    assert not ledger.counted("kills")


def test_the_digest_is_of_names_and_bytes_but_not_of_caches(tmp_path: Path) -> None:
    (tmp_path / "jobs" / "__pycache__").mkdir(parents=True)
    file = tmp_path / "jobs" / "a.py"
    file.write_text("1", encoding="utf-8")
    seen = {digest_of(tmp_path / "jobs")}
    (tmp_path / "jobs" / "__pycache__" / "a.pyc").write_text("x", encoding="utf-8")
    assert digest_of(tmp_path / "jobs") in seen
    file.write_text("2", encoding="utf-8")
    seen.add(digest_of(tmp_path / "jobs"))
    file.rename(tmp_path / "jobs" / "b.py")
    seen.add(digest_of(tmp_path / "jobs"))
    assert len(seen) == 3
    for name in ledgers.COUNTED:
        assert (CHECKOUT / "briefly_admin" / name).is_dir()


def test_the_page_has_every_promise_and_every_row(ledger: Ledger) -> None:
    assert {name for promise in PROMISES for name in promise.rows} == set(ROWS)
    ledger.append(Trial("starts", 7, ok=False, seconds=60, error="AssertionError: two | started"))
    page = report.page(ROWS, ledger)
    assert page.count(f"| {report.NOT_TRIED} |") == len([p for p in PROMISES if set(p.rows) != {"starts"}]) - 1
    assert "**1 of 1 trials failed**" in page
    assert "`make faults ROW=starts SEED=7`" in page
    for promise in PROMISES:
        assert f"| {promise.words} | {promise.tried} | {promise.figure} |" in page
    assert all(row.minutes <= 30 and f"| `{row.name}` |" in page for row in ROWS.values())


def test_the_page_names_earlier_code_until_this_was_tried(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr(ledgers, "fingerprint", lambda: "0123456789abcdef")
        ledger.append(Trial("starts", 1, ok=False, seconds=60, error="AssertionError: of then"))
    page = report.page(ROWS, ledger)
    assert "with earlier code (0123456789abcdef, 20" in page
    assert "of then" not in page
    ledger.append(Trial("starts", 2, ok=False, seconds=60, error="AssertionError: of now"))
    page = report.page(ROWS, ledger)
    assert "0123456789abcdef" not in page
    assert "of now" in page


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nonsense"], "there is no row nonsense; the rows are kills, lost-commit"),
        (["--seed", "3"], "a seed belongs to one row"),
        (["kills", "starts", "--seed", "3"], "a seed belongs to one row"),
        (["kills", "--seed", "x"], "invalid int value"),
        (["kills", "--trials", "0"], "at least one trial"),
    ],
)
def test_the_command_refuses(arguments: list[str], says: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults", *arguments], cwd=CHECKOUT, capture_output=True, text=True, check=False,
        env={"PATH": os.environ["PATH"], "BRIEFLY_HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 2
    assert says in done.stderr
    assert not list(tmp_path.iterdir())
