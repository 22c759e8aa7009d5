"""Nothing else changed: what the migration left must be repair(before), row by row where digests differ."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from briefly_admin.domain.digest import BucketDigests
from briefly_admin.domain.runs import Phase
from briefly_admin.engine import digesting, explaining, scratch, staging
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.digesting import LARGE, digest_tables
from briefly_admin.engine.explaining import explain
from briefly_admin.engine.sharing import Step
from briefly_admin.engine.staged import StagedTable, create_staged
from briefly_admin.plans.base import AggregateRepair, Table

STEPS: Final[tuple[Step, ...]] = (digesting.STEP, explaining.STEP)


@dataclass
class Differences:
    """What differs from repair(before) in one table, and cannot be explained by this run."""

    rows_before: int = 0
    rows_now: int = 0
    buckets: int = 0
    """Buckets whose digest is another one than before."""
    others: dict[str, int] = field(default_factory=dict)
    """created, deleted, edited → rows; None of the three where there is no backup to compare with."""
    samples: list[dict[str, Any]] = field(default_factory=list)
    compared: bool = True
    """False without a backup: the buckets say how many differ, no more."""

    @property
    def unexplained(self) -> int:
        """Rows that others must have changed."""
        return sum(self.others.values())

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "rows_before": self.rows_before, "rows_now": self.rows_now, "buckets": self.buckets,
            "others": dict(self.others), "samples": list(self.samples), "compared": self.compared,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Comparison:
    """Compares the tables of one run with what they were, by all of the run's workers."""

    context: RunContext
    known: Mapping[str, Sequence[str]]
    """Table → the columns that it had before."""
    written: Mapping[str, Sequence[str]]
    """Table → columns that triggers write: they do not count."""
    large: int = LARGE

    def run(self) -> dict[str, Differences]:
        """Table → its differences. Only tables whose digests differ are staged from the backup, and their children.

        Raises BackupError, PreflightFailed, Stopped, Fenced, Unavailable, RunFailed, psycopg.Error; no scratch is left.
        """
        with self._scratch() as schema:
            found = self._digests(schema)
            suspects = [table for table in self.context.plan.tables if found[table.name].buckets]
            backup_id = self._backup_id()
            if suspects and backup_id is not None:
                staged = self._staged(schema, backup_id, suspects)
                explained = explain(
                    self.context, schema, staged, suspects, self.known, self.written, large=self.large
                )  # fmt: skip
                for name, rows in explained.items():
                    found[name].others, found[name].samples = rows.others, rows.samples
        if backup_id is None:
            for table in suspects:
                found[table.name].compared = False
        return found

    @contextmanager
    def _scratch(self) -> Iterator[str]:
        context = self.context
        try:
            with context.target.session(bulk=True) as connection:
                schema = scratch.create_scratch(connection, context.run_id, context.attempt)
            yield schema
        finally:
            staging.drop_quietly(context, Phase.VERIFY)

    def _backup_id(self) -> UUID | None:
        result = self.context.journal.finished_phases().get(Phase.BACKUP)
        return UUID(str(result["backup_id"])) if result else None

    def _digests(self, schema: str) -> dict[str, Differences]:
        found = {}
        for name, now in digest_tables(self.context, schema, self.known, large=self.large).items():
            stored = self.context.journal.baseline(name)
            before = BucketDigests.from_bytes(stored) if stored is not None else now
            found[name] = Differences(before.total().count, now.total().count, len(before.differing(now)))
        return found

    def _staged(self, schema: str, backup_id: UUID, suspects: Sequence[Table]) -> Sequence[StagedTable]:
        """The suspects and the children their repairs read, as they were."""
        context = self.context
        reader = context.vault.open(backup_id, *context.journal.backup_keys(backup_id))
        names = {table.name for table in suspects}
        names |= {r.child for table in suspects for r in table.repairs if isinstance(r, AggregateRepair)}
        wanted = [table for title, table in reader.manifest.by_title.items() if title in names]
        with context.target.session(bulk=True) as connection:
            staged = [create_staged(connection, reader.manifest, table, schema) for table in wanted]
        if not staging.load(context, Phase.VERIFY, reader, wanted, schema):
            raise staging.emptied()
        return staged
