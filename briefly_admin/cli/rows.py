"""One row, or all rows of a cause: looked at, and corrected."""

import sys
from collections.abc import Sequence
from typing import Any, Final

import click

from briefly_admin.cli.printing import as_json, counted, one_line, print_json, print_table
from briefly_admin.cli.session import Session, session
from briefly_admin.domain.corrections import Cause, Fixed, RowField, ShownRow
from briefly_admin.domain.errors import InvalidRequest
from briefly_admin.services.exporting import fixed_json, row_json

table_ = click.argument("table", metavar="TABLE")
key_ = click.argument("key", metavar="KEY", nargs=-1, required=True)
_SHOWN: Final = 60
"""Characters of a value; `--json` has them all."""


@click.command()
@table_
@key_
@as_json
def show(table: str, key: tuple[str, ...], *, as_json: bool) -> None:
    """Show a row with everything that is wrong with it; values of secret columns are not told."""
    with session() as active:
        row = active.services.rows.get(active.actor, table, key)
        skipped = active.services.rows.skipped(active.actor, row.table, row.key)
    if as_json:
        print_json(row_json(row) | {"skipped": skipped or None})
        return
    print_row(row)
    if skipped:
        click.echo(f"It is left alone: {one_line(skipped)}")


def print_row(row: ShownRow) -> None:
    """A row as a table of its columns, then what is wrong with it as a whole."""
    print_table(
        ("column", "value", "what is wrong", "a migration makes of it"),
        ((f.name, _value(f), "; ".join(f.faults), _short(f.repaired or "")) for f in row.fields),
        empty="",
    )
    for fault in row.faults:
        click.echo(f"Wrong: {one_line(fault)}")
    if not row.blocks:
        click.echo("Nothing of it blocks.")


def _value(field: RowField) -> str:
    if field.secret:
        return "(secret)"
    return "(no value)" if field.value is None else _short(field.value)


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


@click.command()
@table_
@click.argument("key", metavar="[KEY]", nargs=-1)
@click.option("--set", "pairs", multiple=True, metavar="COLUMN=TEXT", help="A column's new value; may be repeated.")
@click.option("--null", "nulls", multiple=True, metavar="COLUMN", help="No value any more; may be repeated.")
@click.option(
    "--secret", "secrets", multiple=True, metavar="COLUMN",
    help="The value is read from standard input, a line each, or asked for: it stands in no shell's history.",
)  # fmt: skip
@click.option("--version", metavar="VERSION", help="Of the row as `show --json` told it: refused if it is another now.")
@click.option("--field", metavar="COLUMN", help="Without KEY: all rows of the cause about this column.")
@click.option("--rule", metavar="RULE", help="And with this rule, as `findings` and `quarantine list` name it.")
@click.option(
    "--run", "run_id", metavar="RUN", help="Only those in this migration's quarantine; else all that have it."
)
@click.option("--confirm", type=click.IntRange(min=0), metavar="N", help="Yes, if they are still N rows.")
@as_json
def correct(table: str, key: tuple[str, ...], **given: Any) -> None:
    """Correct one row, or all rows of a cause.

    All rows of a cause are counted first, and nothing is changed; --confirm N does it where they are N rows.
    """
    of_cause = {f"--{name}": given[name] for name in ("field", "rule", "confirm")} | {"--run": given["run_id"]}
    changes = _changes(given)
    with session() as active:
        if key:
            _refuse(of_cause, "is for all rows of a cause: leave it or KEY out.")
            _correct_row(active, table, key, changes, version=given["version"], as_json=given["as_json"])
            return
        if given["rule"] is None:
            raise click.UsageError("Name the row by its KEY, or all rows of a cause by --field and --rule.")
        _refuse({"--version": given["version"]}, "is for one row: leave it out, or give its KEY.")
        cause = Cause(table, given["field"] or "", given["rule"], given["run_id"])
        _fix(active, cause, changes, confirm=given["confirm"], as_json=given["as_json"])


def _refuse(options: dict[str, Any], words: str) -> None:
    wrong = next((name for name, value in options.items() if value is not None), None)
    if wrong:
        raise click.UsageError(f"{wrong} {words}")


def _changes(given: dict[str, Any]) -> dict[str, str | None]:
    """Column → text or None, as --set, --null and --secret say. Raises InvalidRequest, UsageError."""
    found: list[tuple[str, str | None]] = []
    for pair in given["pairs"]:
        name, separator, text = pair.partition("=")
        if not separator or not name:
            raise InvalidRequest(
                f"--set takes COLUMN=TEXT, not '{pair}'.", remedy="Such as --set email=ana@example.com."
            )
        found.append((name, text))
    found += [(name, None) for name in given["nulls"]]
    names = [name for name, _ in found] + list(given["secrets"])
    if not names:
        raise click.UsageError("Say what changes: --set COLUMN=TEXT, --null COLUMN or --secret COLUMN.")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidRequest(f"'{twice}' is changed twice.", remedy="Say once what it becomes.")
    return dict(found) | {name: _secret(name) for name in given["secrets"]}


def _secret(name: str) -> str:
    """A line of standard input where it is not a terminal, else asked for, hidden."""
    if sys.stdin.isatty():
        return str(click.prompt(name, hide_input=True, confirmation_prompt=True))
    line = sys.stdin.readline()
    if not line:
        raise InvalidRequest(f"There is no line for '{name}' on standard input.", remedy="Give one for each --secret.")
    return line.rstrip("\r\n")


def _correct_row(
    active: Session, table: str, key: Sequence[str], changes: dict[str, str | None], *, version: str | None,
    as_json: bool,
) -> None:  # fmt: skip
    rows = active.services.rows
    if version is None:
        version = rows.get(active.actor, table, key).version
    elif not version:
        raise InvalidRequest("--version is empty.", remedy="Give the row's as `show --json` told it, or leave it out.")
    row = rows.correct(active.actor, table, key, version=version, changes=changes)
    if as_json:
        print_json(row_json(row))
        return
    click.echo(f"Corrected: {table} {one_line(', '.join(row.key))}.")
    if row.blocks:
        click.echo("Something is left to cure:")
        print_row(row)


def _fix(
    active: Session, cause: Cause, changes: dict[str, str | None], *, confirm: int | None, as_json: bool
) -> None:  # fmt: skip
    if confirm is None:
        fixed = active.services.rows.preview_fix(active.actor, cause, changes)
    else:
        fixed = active.services.rows.fix(active.actor, cause, changes, expected=confirm)
    if as_json:
        print_json(fixed_json(fixed))
    elif confirm is None:
        _print_preview(fixed)
    else:
        click.echo(f"Corrected: {counted(fixed.cured, 'row')}.")
        _print_more(fixed)


def _print_preview(fixed: Fixed) -> None:
    print_table(
        ("key", "column", "now", "then"),
        (
            (", ".join(key), column, *("(no value)" if text is None else _short(text) for text in texts))
            for key, changes in fixed.samples
            for column, texts in changes.items()
        ),
        empty="No row has this cause." if not fixed.rows else "The values are not told.",
    )
    for words, count in fixed.refused.items():
        click.echo(f"Not right afterwards: {counted(count, 'row')}: {one_line(words)}.")
    _print_more(fixed)
    if fixed.refused:
        click.echo(
            f"{counted(fixed.cured, 'row')} of {fixed.rows:,} would be right; nothing is changed unless all are."
        )
    elif fixed.rows:
        click.echo(
            f"Nothing is changed yet. To correct {counted(fixed.rows, 'row')}: the same with --confirm {fixed.rows}."
        )


def _print_more(fixed: Fixed) -> None:
    if fixed.more:
        click.echo(
            f"{counted(fixed.more, 'more row has', 'more rows have')} this cause: the next correction takes them."
        )
