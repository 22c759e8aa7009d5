"""Tables and lines as people and scripts get them."""

import io
import sys
from datetime import UTC, datetime, timedelta, timezone

import pytest
from click.testing import CliRunner

from briefly_admin.cli import main
from briefly_admin.cli.printing import at, counted, plain, print_table


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_row_is_a_line_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("name", ">rows", "what"), [("users", "1,000", "long " * 200), ("x", "1", ":smile: [b]")], empty="")
    heading, first, second = capsys.readouterr().out.splitlines()
    assert heading == "name    rows  what"
    assert first == "users  1,000  " + ("long " * 200).strip()
    assert second == "x          1  :smile: [b]"


def test_ids_are_whole_and_prose_is_broken_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    unbroken = "0" * 36
    print_table(("id", "what"), [(unbroken, "some words " * 10)], empty="")
    print_table(("id", "other", "third"), [(unbroken, unbroken, "3")], empty="")
    lines = terminal.getvalue().splitlines()
    assert lines[1].startswith(unbroken)
    assert max(map(len, lines[1:-2])) <= 60
    assert lines[-1] == f"{unbroken}  {unbroken}  3"


def test_what_a_terminal_would_obey_is_shown_instead(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("key",), [("a\x1b[2Jb\x07\nc",)], empty="")
    assert capsys.readouterr().out == "key\na\\x1b[2Jb\\x07 c\n"


def test_no_rows_are_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("a",), [], empty="Nothing.")
    assert capsys.readouterr().out == "Nothing.\n"


def test_numbers_with_their_noun() -> None:
    assert [counted(n, "row") for n in (0, 1, 2000)] == ["0 rows", "1 row", "2,000 rows"]
    assert counted(1, "backup is", "backups are") == "1 backup is"
    assert counted(2, "backup is", "backups are") == "2 backups are"


def test_times_are_utc() -> None:
    moment = datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=2)))
    assert at(moment) == "2025-12-31 23:00:00"
    assert at(None) == "–"
    assert plain(moment) == "2025-12-31T23:00:00Z"
    assert plain(datetime(2026, 1, 1, tzinfo=UTC)) == "2026-01-01T00:00:00Z"
    assert plain(("a", 1)) == ["a", 1]


def test_fault_of_ours_is_one_line_without_its_text() -> None:
    @main.command()
    def faulty() -> None:
        raise KeyError("a tenant's secret")

    try:
        result = CliRunner().invoke(main, ["faulty"])
    finally:
        del main.commands["faulty"]
    assert result.exit_code == 1
    assert result.stderr.startswith("briefly-admin: unexpected error: KeyError at ")
    assert "secret" not in result.output
