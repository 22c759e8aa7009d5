"""How the command prints what a rollback would do."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import click

from briefly_admin.cli.printing import counted, one_line, print_table

_CLASSES: Final = ("untouched", "migrated", "edited", "created", "deleted")
_WRITTEN: Final = ("same", "update", "insert", "delete")
_OF_CLASSES: Final = ("table", ">untouched", ">migrated", ">edited since", ">created since", ">deleted since")
_OF_EXACT: Final = ("table", ">as in the backup", ">to restore", ">to bring back", ">to delete")
_SAMPLED: Final = ("edited", "deleted", "created", "migrated")
"""What is of most interest first; the rest have no samples."""
_SHOWN: Final = 5
"""Rows shown of a class and table; --json tells all samples."""
_MASKED: Final = "(secret)"


def print_preview(result: Mapping[str, Any], order: Sequence[str]) -> None:
    """What became of the backup's rows, what exact and keep would write, samples and consequences, in the plan's order.

    `result`: report["preview"] of a run; those of older versions have the counts of exact alone.
    """
    tables = [name for name in order if name in result.get("tables", {})]
    if not tables:
        click.echo("The backup has no tables.")
        return
    _print_counts(result, tables)
    for name in tables:
        _print_samples(name, result.get("samples", {}).get(name, ()))
    for line in _remarks(result, tables):
        click.echo(one_line(line))


def _print_counts(result: Mapping[str, Any], tables: Sequence[str]) -> None:
    classes, keep, exact = result.get("classes"), result.get("keep"), result["tables"]
    if classes is not None:
        click.echo("Rows since the backup")
        print_table(_OF_CLASSES, (_row(name, classes, _CLASSES) for name in tables), empty="")
        click.echo("\nWhat a rollback would do")
    if keep is not None:
        both = ((*_row(name, exact, _WRITTEN), *_row(name, keep, ("update",))[1:]) for name in tables)
        print_table((*_OF_EXACT, ">keep restores"), both, empty="")
        return
    print_table(_OF_EXACT, (_row(name, exact, _WRITTEN) for name in tables), empty="")
    if classes is not None:
        click.echo("This is what exact writes; keep is not possible: no migration took this backup.")


def _row(name: str, counts: Mapping[str, Mapping[str, int]], wanted: Sequence[str]) -> tuple[str, ...]:
    return (name, *(f"{counts.get(name, {}).get(what, 0):,}" for what in wanted))


def _print_samples(table: str, samples: Sequence[Mapping[str, Any]]) -> None:
    for what in _SAMPLED:
        found = [sample for sample in samples if sample["class"] == what]
        if found:
            shown = found[:_SHOWN]
            more = f", {len(shown)} of {len(found):,} samples (all: --json)" if len(found) > len(shown) else ""
            click.echo(f"\n{one_line(table)}: {what}{'' if what == 'migrated' else ' since'}{more}")
            print_table(
                ("key", "column", "in the backup", "as migrated", "now"),
                (cells for sample in shown for cells in _cells(sample)), empty="",
            )  # fmt: skip


def _cells(sample: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    key = ", ".join(sample["key"])
    for column in sample["columns"]:
        values = (column.get(when) for when in ("before", "migrated", "now"))
        texts = (_MASKED,) * 3 if column.get("secret") else (_text(value) for value in values)
        yield (key, column["name"], *texts)


def _text(value: str | None) -> str:
    """A dash for NULL, or where there is no such row."""
    return "–" if value is None else value or "''"


def _remarks(result: Mapping[str, Any], tables: Sequence[str]) -> Iterator[str]:
    left_out, derived = result.get("left_out") or {}, result.get("derived") or {}
    for name in tables:
        if left_out.get(name):
            yield f"Not compared, for triggers write it: {name}: {', '.join(left_out[name])}."
        if derived.get(name):
            yield f"Computed anew by keep: {name}: {', '.join(derived[name])}."
    for change in result.get("schema_changes", ()):
        yield f"Schema change that would be undone: {change}"
    for lost in result.get("lost", ()):
        rows = counted(lost["rows"], "row has", "rows have")
        yield f"Lost with the schema changes: {lost['table']}.{lost['column']}, in which {rows} something of their own."
    for each in result.get("outside", ()):
        yield _outside(each)


def _outside(each: Mapping[str, Any] | str) -> str:
    """A consequence outside; older reports have the sentence alone."""
    if isinstance(each, str):
        return f"Outside the plan: {each}"
    advice = "nothing can allow it" if each.get("blocks") else f"to allow it: --allow {each['table']}"
    return f"Outside: {str(each['text']).rstrip('.')} ({advice})."
