"""What a rollback would do, in either mode, counted in one snapshot; what was staged for it stays for a while."""

from collections.abc import Callable, Sequence
from typing import Any

import psycopg
from psycopg import sql

from briefly_admin.domain.manifest import TableManifest
from briefly_admin.domain.runs import RunKind
from briefly_admin.engine import scratch
from briefly_admin.engine.context import ChangeRecord, RunContext
from briefly_admin.engine.noting import stoppable
from briefly_admin.engine.rollback import classes, difference, keeping, outside, reuse, selection, unmoved
from briefly_admin.engine.rollback.classes import Classified, Classifier
from briefly_admin.engine.rollback.difference import Difference
from briefly_admin.engine.rollback.lost import lost
from briefly_admin.engine.rollback.samples import samples
from briefly_admin.engine.rollback.selection import Selection
from briefly_admin.engine.staged import StagedTable, is_whole
from briefly_admin.engine.target import Connection

SORTING: sql.SQL = sql.SQL("SET LOCAL work_mem TO '32MB'")
"""One session joins whole tables: what it may use of the server before it goes to disk."""


def run(context: RunContext) -> dict[str, Any]:
    """Of an exact rollback {"tables": {title: {same, update, insert, delete}}, "outside", "schema_changes"}; of what
    others did since {"classes", "keep", "left_out", "derived", "lost", "samples"}.

    "outside" is of an exact one; keep counts again what it writes. In a rollback, raises Refused where rows outside
    stand against it, or where more rows moved than was allowed.
    """
    keeping.require_origin(context)
    chosen = selection.choose(context)
    with context.target.session(bulk=True) as connection:
        schema, staged = ensure_staged(context, connection, chosen, chosen.staged_tables)
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        passing = context.kind is not RunKind.ROLLBACK
        with connection.transaction(force_rollback=passing), stoppable(context, connection):
            connection.execute(SORTING)
            found = _find(context, connection, chosen, schema, staged)
            if not passing:  # the restore uses it again
                unmoved.note(connection, schema, found, digests=not keeping.is_keep(context))
                scratch.shut(connection, schema)
            with connection.transaction(force_rollback=True):
                touched = outside.consequences(connection, found, without=_going(chosen))
                if context.kind is RunKind.ROLLBACK and not keeping.is_keep(context):
                    outside.agreed(context, touched)
                told, classified = _three_ways(context, connection, chosen, schema, staged, found)
    if context.kind is RunKind.ROLLBACK:
        _require_expected(context, found, classified)
    return {
        "tables": {each.pair.name: each.counts.to_json() for each in found},
        **told,
        "outside": touched,
        "schema_changes": [sentence(change) for change in chosen.changes],
    }


def _find(
    context: RunContext, connection: Connection, chosen: Selection, schema: str, staged: Sequence[StagedTable]
) -> list[Difference]:
    found = []
    for number, table in enumerate(staged[: len(chosen.tables)]):
        context.check_stop()
        pair = selection.pair(connection, table, schema, number, _going(chosen))
        found.append(difference.find(connection, pair))
    return found


def _three_ways(
    context: RunContext, connection: Connection, chosen: Selection, schema: str, staged: Sequence[StagedTable],
    found: Sequence[Difference],
) -> tuple[dict[str, Any], list[Classified]]:  # fmt: skip
    pairs = [each.pair for each in found]
    classifier = Classifier(context, connection, schema, pairs, staged)
    classified = [classifier.classify(each) for each in found]
    possible = classifier.migration is not None
    shown = {}
    for each in classified:
        context.check_stop()
        shown[each.pair.name] = samples(connection, context.plan, each)
    told = {
        "classes": {each.pair.name: dict(each.counts) for each in classified},
        "keep": {each.pair.name: {"update": each.undone} for each in classified} if possible else None,
        "left_out": {each.pair.name: list(each.left_out) for each in classified if each.left_out},
        "derived": {each.pair.name: list(each.derived) for each in classified if each.derived},
        "lost": lost(connection, chosen, pairs, classifier),
        "samples": shown,
    }
    return told, classified


def _require_expected(context: RunContext, found: Sequence[Difference], classified: Sequence[Classified]) -> None:
    allowance = int(context.options.get("allowance") or 0)
    if keeping.is_keep(context):
        classes.require_expected(classified, context.options.get("expected_classes"), allowance)
    else:
        difference.require_expected(found, context.options.get("expected"), allowance)


def _going(chosen: Selection) -> list[tuple[str, str]]:
    return [(change.table, change.name) for change in chosen.changes]


def sentence(change: ChangeRecord) -> str:
    """A schema change that goes, for people."""
    return f"{change.table}: {change.kind.replace('_', ' ')} {change.name}"


def ensure_staged(
    context: RunContext, connection: Connection, chosen: Selection, tables: Sequence[TableManifest],
    judge: Callable[[Connection, StagedTable], bool] = is_whole,
) -> tuple[str, tuple[StagedTable, ...]]:  # fmt: skip
    """The scratch schema and the staged tables, which may be the preview's; staged again where they are not whole."""
    return reuse.ensure_staged(context, connection, chosen.reader, tables, judge)
