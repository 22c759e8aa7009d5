"""A preview's staged tables, used again by the rollback that names it.

They are in the preview's scratch schema, which stays when it ends; all else of the rollback is in a schema of its own.
"""

from collections.abc import Callable, Sequence
from uuid import UUID

import psycopg

from briefly_admin.domain.manifest import TableManifest
from briefly_admin.domain.runs import Phase, RunKind
from briefly_admin.engine import retry, scratch, staging
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.staged import StagedTable, is_whole
from briefly_admin.engine.target import Connection
from briefly_admin.vault.vault import BackupReader


def stage(
    context: RunContext, reader: BackupReader, tables: Sequence[TableManifest]
) -> tuple[tuple[StagedTable, ...], UUID | None]:
    """The staged tables, and the preview whose they are, or None where they were staged anew.

    Raises as `staging.stage` and `staging.borrow` do.
    """
    preview = _preview(context)
    staged = staging.borrow(context, preview, reader, tables) if preview is not None else None
    if staged is None:
        return staging.stage(context, reader, tables), None
    context.journal.log("info", f"What preview {preview} has staged is whole, and is used again.", Phase.STAGE)
    return staged, preview


def ensure_staged(
    context: RunContext, connection: Connection, reader: BackupReader, tables: Sequence[TableManifest],
    judge: Callable[[Connection, StagedTable], bool] = is_whole,
) -> tuple[str, tuple[StagedTable, ...]]:  # fmt: skip
    """The run's scratch schema, and the staged tables, which may be in another's; staged again where not whole.

    `judge`: see staging.still_whole.
    """
    whole = staging.still_whole(connection, context.run_id, reader.manifest, tables, judge)
    if whole is not None:
        return whole
    context.journal.log("info", "The backup is staged again: the staged tables are not whole.", Phase.STAGE)
    staged, _ = stage(context, reader, tables)
    return scratch.scratch_schema(context.run_id, context.attempt), staged


def drop_lent(context: RunContext, connection: Connection) -> None:
    """Drop what the preview left staged; where somebody is at it, the clock does so later."""
    preview = _preview(context)
    if preview is None:
        return
    try:
        scratch.drop_scratch(connection, preview)
    except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
        context.journal.log("warning", f"The preview's tables stay for a while: {retry.describe(error)}.", Phase.VERIFY)


def _preview(context: RunContext) -> UUID | None:
    """The preview that a rollback names."""
    named = context.options.get("preview_id") if context.kind is RunKind.ROLLBACK else None
    return UUID(str(named)) if named else None
