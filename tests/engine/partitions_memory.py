"""A run's partitions kept in memory, for the engine's tests: shared by the attempts and workers of one record."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from briefly_admin.domain.errors import Fenced
from briefly_admin.domain.partitions import Claimed, Count, Partition, PartitionState, PartitionView


@dataclass
class _Row:
    view: PartitionView
    claim: int = 0
    generation: int = 1
    shared: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class PartitionTable:
    """What the app database would hold: step → partitions. `expire` ends all leases, as silence would."""

    steps: dict[str, list[_Row]] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)
    expired: set[str] = field(default_factory=set)

    def expire(self, worker: str) -> None:
        """The worker has been silent for a lease."""
        self.expired.add(worker)


@dataclass
class MemoryPartitions:
    """One worker's view; `attempt()` is the record's newest attempt."""

    table: PartitionTable
    newest: Callable[[], int]
    attempt: int
    worker: str = "test:1"

    def _require(self) -> None:
        if self.newest() != self.attempt:
            raise Fenced(f"Attempt {self.newest()} leads the run now; this is attempt {self.attempt}.")

    def lay_out(
        self, step: str, partitions: Sequence[Partition], shared: Mapping[str, Any], *, keep: bool = False
    ) -> Sequence[Partition]:
        with self.table.lock:
            self._require()
            old = self.table.steps.get(step, [])
            generation = max((row.generation for row in old), default=0) + 1
            if keep and old:
                for row in old:
                    row.generation, row.shared = generation, shared
                    if row.view.state is not PartitionState.DONE:
                        row.view = replace(row.view, state=PartitionState.WAITING, worker="", error={})
            else:
                self.table.steps[step] = [
                    _Row(PartitionView(part, PartitionState.WAITING), generation=generation, shared=shared)
                    for part in partitions
                ]
            return [row.view.partition for row in self.table.steps[step]]

    def claim(self, step: str | None = None) -> Claimed | None:
        with self.table.lock:
            self._require()
            for name, rows in self.table.steps.items():
                for row in rows if step in {None, name} else ():
                    over = row.view.state is PartitionState.WORKING and row.view.worker in self.table.expired
                    if row.view.state is PartitionState.WAITING or over:
                        row.claim += 1
                        row.view = replace(row.view, state=PartitionState.WORKING, worker=self.worker)
                        return Claimed(name, row.view.partition, row.claim, row.generation, row.shared)
            return None

    def _held(self, claimed: Claimed) -> _Row:
        self._require()
        for row in self.table.steps.get(claimed.step, ()):
            same = row.view.partition == claimed.partition and row.view.state is PartitionState.WORKING
            if same and (row.claim, row.generation) == (claimed.claim, claimed.generation):
                return row
        raise Fenced(f"Another worker holds partition {claimed.partition.number} of {claimed.partition.table}.")

    def note(self, claimed: Claimed, count: Count) -> None:
        with self.table.lock:
            row = self._held(claimed)
            row.view = replace(row.view, count=count)

    def finish(self, claimed: Claimed, count: Count, result: Mapping[str, Any]) -> None:
        with self.table.lock:
            row = self._held(claimed)
            row.view = replace(row.view, state=PartitionState.DONE, count=count, result=dict(result))

    def fail(self, claimed: Claimed, error: Mapping[str, str]) -> None:
        with self.table.lock:
            row = self._held(claimed)
            row.view = replace(row.view, state=PartitionState.FAILED, error=dict(error))

    def give_back(self, claimed: Claimed) -> None:
        with self.table.lock:
            try:
                row = self._held(claimed)
            except Fenced:
                return
            row.view = replace(row.view, state=PartitionState.WAITING, worker="")

    def survey(self, step: str, *, results: bool = False) -> Sequence[PartitionView]:
        with self.table.lock:
            self._require()
            views = [row.view for row in self.table.steps.get(step, ())]
            return views if results else [replace(view, result={}) for view in views]
