"""The restore: one transaction that makes the tables what the backup says, proves it, and then commits."""

from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, LiteralString
from uuid import UUID

import psycopg
from psycopg import errors, sql

from briefly_admin.domain.errors import Unavailable, VerificationFailed
from briefly_admin.domain.progress import Progress, TableProgress
from briefly_admin.domain.runs import Phase
from briefly_admin.engine import blockers, fence, retry, scratch
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.noting import stoppable
from briefly_admin.engine.rollback import changes, difference, keeping, loosen, outside, selection, unmoved, writing
from briefly_admin.engine.rollback.difference import Difference
from briefly_admin.engine.rollback.keeping import Keep
from briefly_admin.engine.rollback.links import Label
from briefly_admin.engine.rollback.preview import SORTING, ensure_staged
from briefly_admin.engine.rollback.selection import Pair, Selection
from briefly_admin.engine.rollback.unmoved import Seen
from briefly_admin.engine.staged import StagedTable, is_full, is_whole
from briefly_admin.engine.target import Connection

RESTORED: Final = "restored"
_LOCK_TRIES: Final = 60
_LOCK_PAUSE: Final = (0.2, 1.5)
"""Seconds between two tries, jittered: queued traffic passes in between."""
_ALONE: Final = "ACCESS EXCLUSIVE"
_BESIDE_READERS: Final = "SHARE ROW EXCLUSIVE"
_COUNTED: Final = "SHARE"
_LOCKS: Final = frozenset({"55P03", "40P01", "40001"})
_TANGLES: Final = (
    errors.ForeignKeyViolation, errors.RestrictViolation, errors.UniqueViolation, errors.ExclusionViolation,
    errors.GeneratedAlways, errors.CheckViolation, errors.NotNullViolation, VerificationFailed,
)  # fmt: skip
"""What rows that hold one another look like, and what `loosen` cures."""


def run(context: RunContext) -> dict[str, Any]:
    """{"mode", "tables": {name: counts}, "recomputed", "outside", "digests": {name: digest}, "reverted":
    {run: [positions]}, "seconds": {step: seconds}}; committed, or nothing was done.

    Raises Refused, VerificationFailed, Unavailable, Stopped, Fenced, psycopg.Error.
    """
    keeping.require_origin(context)
    done, chosen = _begun(context)
    if chosen is not None:
        if keeping.is_keep(context):
            chosen = keeping.without_indexes(context, chosen)
        changes.record(context, chosen.changes)
        done = _Tries(context, chosen).restore()
    assert done is not None
    _tell(context, done)
    return done


def _begun(context: RunContext) -> tuple[dict[str, Any] | None, Selection | None]:
    """What was restored already, or else what is to be; a session that is lost meanwhile is opened again."""

    def announce(text: str, until: str = "") -> None:
        context.report(Progress(Phase.RESTORE.value, waiting=text, waiting_until=until))

    def look() -> tuple[dict[str, Any] | None, Selection | None]:
        done = _done(context)
        # An exact restore looks at each table under its lock, and need not do so now.
        return done, None if done else selection.choose(context, fit=keeping.is_keep(context))

    return retry.patiently(context, "The restore", announce, look)


def restored(connection: Connection, run_id: UUID) -> dict[str, Any] | None:
    """What the run's restore did, if it was committed."""
    for schema in scratch.scratch_schemas(connection, run_id):
        done = scratch.marked(connection, schema, RESTORED)
        if done is not None:
            return done
    return None


def _done(context: RunContext) -> dict[str, Any] | None:
    with context.target.session(bulk=True) as connection:
        return restored(connection, context.run_id)


def _tell(context: RunContext, done: dict[str, Any]) -> None:
    """The journal learns of it after the commit; told again by a resumed attempt, it says the same."""
    for run_id, positions in done["reverted"].items():
        context.journal.changes_reverted(UUID(run_id), positions)
    for change in context.journal.changes():
        context.journal.set_change_state(change.position, "made")


class _Tries:
    """One restore, tried again while locks are taken by others, and once more where rows hold one another."""

    def __init__(self, context: RunContext, chosen: Selection) -> None:
        self._context = context
        self._chosen = chosen
        self._lock_tries = 0
        self._lost = 0
        self._loosened = False

    def restore(self) -> dict[str, Any]:
        while True:
            self._context.check_stop()
            try:
                return self._once()
            except _TANGLES as error:
                if self._loosened or not self._cured_by_loosening(error):
                    told = keeping.told if keeping.is_keep(self._context) else loosen.told
                    raise told(error) from None
                self._loosened = True
                self._log(f"Rows hold one another ({retry.describe(error)}): inner keys step aside for a second try.")
            except psycopg.Error as error:
                self._failed(error)

    def _once(self) -> dict[str, Any]:
        context = self._context
        with context.target.session(bulk=True) as connection:
            # Staging anew drops the mark of a restore whose answer was lost in a crash of the server.
            if done := restored(connection, context.run_id):
                return done
            # Checked on this very connection, and before anybody waits for us: a crash that empties the staged tables
            # ends it, too.
            keeps = keeping.is_keep(context)
            tables = self._chosen.staged_tables if keeps else self._chosen.tables
            # An exact restore is compared with the manifest in the end: its rows need not be compared now, too.
            judge = is_whole if keeps else is_full
            schema, staged = ensure_staged(context, connection, self._chosen, tables, judge)
            fence.register(connection, context.run_id, context.attempt, "rollback")
            with connection.transaction(), stoppable(context, connection):
                return _Restore(context, connection, self._chosen, loosened=self._loosened).run(schema, staged)

    def _cured_by_loosening(self, error: Exception) -> bool:
        if not isinstance(error, psycopg.Error):
            return True
        with self._context.target.session() as connection:
            return loosen.cures(connection, error)

    def _failed(self, error: psycopg.Error) -> None:
        """Wait for the next try, or raise."""
        context = self._context
        if error.sqlstate in _LOCKS:
            self._wait_for_locks(error)
            return
        if isinstance(error, errors.UndefinedTable):  # raises Refused where it is one of those to be restored
            selection.choose(context)
        config = context.config
        self._lost += 1
        if not retry.lost_connection(error) or self._lost > config.max_retries:
            raise error
        self._log(f"The connection was lost ({retry.describe(error)}); the restore begins again.")
        context.sleep(retry.backoff(self._lost, config.retry_delay, context.random))

    def _wait_for_locks(self, error: psycopg.Error) -> None:
        context, holders = self._context, self._holders()
        self._lock_tries += 1
        if self._lock_tries >= _LOCK_TRIES:
            raise Unavailable(
                f"The tables are in use: no lock in {_LOCK_TRIES} tries."
                + (f" In the way: {'; '.join(holders)}." if holders else ""),
                remedy="End long transactions on them (pg_stat_activity), then resume. Nothing was changed.",
            ) from None
        self._log(f"Waiting for a lock on the tables, try {self._lock_tries}: {retry.describe(error)}.")
        text = ": ".join(["others hold locks on the tables", *filter(None, ["; ".join(holders)])])
        context.report(Progress(Phase.RESTORE.value, waiting=text))
        context.sleep(context.random.uniform(*_LOCK_PAUSE))

    def _holders(self) -> tuple[str, ...]:
        """Who is in the way, as far as the target tells."""
        try:
            with self._context.target.session() as connection:
                locks = _locks(self._context, connection, self._chosen, loosened=self._loosened)
                return blockers.holders(connection, {label: mode == _ALONE for label, mode in locks})
        except (psycopg.Error, Unavailable):
            return ()

    def _log(self, message: str) -> None:
        self._context.journal.log("warning", message, Phase.RESTORE)


class _Restore:
    """The inside of the transaction."""

    def __init__(self, context: RunContext, connection: Connection, chosen: Selection, *, loosened: bool) -> None:
        self._context = context
        self._connection = connection
        self._chosen = chosen
        self._loosened = loosened
        self._seen: dict[str, Seen] = {}

    def run(self, schema: str, staged: Sequence[StagedTable]) -> dict[str, Any]:
        context, connection = self._context, self._connection
        connection.execute("SET LOCAL synchronous_commit TO on")
        connection.execute(SORTING)
        self._seen = unmoved.noted(connection, schema)
        laps = _Laps(context.monotonic)
        self._lock()
        fence.require(connection, context.run_id, context.attempt)
        # An answer to COMMIT that was lost: with the locks, the old transaction is over one way or the other.
        if done := restored(connection, context.run_id):
            return done
        laps.end("lock")
        late = changes.late(self._chosen.changes)
        changes.revert(context, connection, [change for change in self._chosen.changes if change not in late])
        found = [self._find(table, schema, number) for number, table in enumerate(staged[: len(self._chosen.tables)])]
        keep = self._keep(schema, found, staged)
        writes = self._resolved(found, keep)
        foreseen = outside.hold(connection, writes)
        touched = outside.agreed(context, foreseen.entries)
        laps.end("compare")
        self._write(writes, keep, outside.acting(foreseen.entries))
        foreseen.require_done()
        laps.end("write")
        changes.complete(context, connection, self._chosen)
        changes.revert(context, connection, late)
        laps.end("constraints")
        digests = {each.pair.name: str(self._proven(each.pair, keep)) for each in found}
        if keep is not None:
            keep.verify()
        laps.end("verify")
        done = self._told(writes, keep) | {"outside": touched, "digests": digests, "seconds": laps.seconds}
        scratch.mark(connection, schema, RESTORED, done)
        scratch.shut(connection, schema)  # what was made in it, too: it stands until VERIFY
        context.check_stop()
        writing.advance_sequences(connection, self._chosen.reader.manifest.sequences)
        return done

    def _told(self, writes: Sequence[Difference], keep: Keep | None) -> dict[str, Any]:
        """What was written, in which mode, and what of the schema was taken back."""
        counts = {each.pair.name: keep.counts(each) if keep else each.counts for each in writes}
        return {
            "mode": str(self._context.options.get("mode") or "exact"),
            "tables": {name: count.to_json() for name, count in counts.items()},
            "recomputed": dict(keep.recomputed) if keep else {},
            "reverted": dict(self._chosen.history.positions),
        }

    def _keep(self, schema: str, found: Sequence[Difference], staged: Sequence[StagedTable]) -> Keep | None:
        if not keeping.is_keep(self._context):
            return None
        return Keep.of(self._context, self._connection, schema, [each.pair for each in found], staged)

    def _resolved(self, found: Sequence[Difference], keep: Keep | None) -> Sequence[Difference]:
        """What is to be written. Raises Refused where the rows moved since they were confirmed."""
        if keep is not None:
            return keep.resolve(found)
        options = self._context.options
        difference.require_expected(found, options.get("expected"), int(options.get("allowance") or 0))
        return found

    def _lock(self) -> None:
        """At once the strongest lock that each table will need, in plan order; reading goes on where it can."""
        for label, mode in _locks(self._context, self._connection, self._chosen, loosened=self._loosened):
            lock = sql.SQL("LOCK TABLE ONLY {} IN {} MODE").format(sql.Identifier(*label), sql.SQL(mode))
            self._connection.execute(lock)

    def _find(self, table: StagedTable, schema: str, number: int) -> Difference:
        """As the preview found it, where the table has not moved since."""
        self._context.check_stop()
        pair = selection.pair(self._connection, table, schema, number)
        seen = self._seen.pop(pair.name, None)
        if seen is not None:
            if unmoved.still(self._connection, pair, seen):
                self._seen[pair.name] = seen
                return Difference(pair, seen.counts, seen.columns)
            self._context.journal.log("info", f"{pair.name} has moved: it is compared again.", Phase.RESTORE)
        return difference.find(self._connection, pair)

    def _write(
        self, found: Sequence[Difference], keep: Keep | None, acting: Collection[tuple[str, str]]
    ) -> None:  # fmt: skip
        connection = self._connection
        with writing.triggers_off(connection, [each.pair for each in found]):
            back = self._loosen(found, acting) if self._loosened else []
            connection.execute("SET CONSTRAINTS ALL DEFERRED")
            for step, order in ((writing.delete, found[::-1]), (writing.insert, found), (writing.update, found)):
                for each in order:
                    self._context.check_stop()
                    step(connection, each)
            if keep is not None:
                keep.finish()
            # Checked here, and not by COMMIT: what fails must fail inside; and no ALTER may find events pending.
            connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
            for statement in back:
                connection.execute(statement)
        progress = tuple(
            TableProgress(each.pair.name, total=each.counts.changes, done=each.counts.changes) for each in found
        )
        self._context.report(Progress(Phase.RESTORE.value, progress))

    def _loosen(self, found: Sequence[Difference], acting: Collection[tuple[str, str]]) -> list[sql.Composed]:
        context = self._context
        return loosen.loosen(
            self._connection, found, keep=keeping.is_keep(context), acting=acting,
            say=lambda text: context.journal.log("warning", text, Phase.RESTORE),
        )  # fmt: skip

    def _proven(self, pair: Pair, keep: Keep | None) -> str:
        """The table's digest; in `exact` it must be the backup's."""
        self._context.check_stop()
        seen = self._seen.get(pair.name)
        digest = unmoved.digest(self._connection, pair, seen) if seen is not None else None
        digest = digest or writing.digest(self._connection, pair)
        if keep is None and digest != pair.staged.manifest.digest:
            raise VerificationFailed(
                f"{pair.name} is not, byte for byte, what was backed up: everything was undone.",
                remedy="Look whether others change the table's data besides its rows (rules, generated columns).",
            )
        return str(digest)


def _locks(
    context: RunContext, connection: Connection, chosen: Selection, *, loosened: bool
) -> list[tuple[Label, LiteralString]]:
    """((schema, table), mode), in the order to take them."""
    alone = set(changes.touched(connection, chosen))
    labels = [(table.schema, table.name) for table in chosen.tables]
    if loosened:
        alone |= set(labels)
    ordered = [*labels, *sorted(alone - set(labels))]
    locks = [(label, _ALONE if label in alone else _BESIDE_READERS) for label in ordered]
    # What aggregates count stays as it is.
    counted = chosen.support if keeping.is_keep(context) else ()
    return locks + [((table.schema, table.name), _COUNTED) for table in counted]


class _Laps:
    """Seconds that each step took."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._begun = monotonic()
        self.seconds: dict[str, float] = {}

    def end(self, step: str) -> None:
        now = self._monotonic()
        self.seconds[step] = round(now - self._begun, 3)
        self._begun = now
