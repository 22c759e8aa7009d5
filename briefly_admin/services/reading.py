"""From rows of the app database to the views that an actor may see."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from briefly_admin.domain.actions import Action, allowed_actions
from briefly_admin.domain.breaker import BreakerState, BreakerView
from briefly_admin.domain.config import RunConfig
from briefly_admin.domain.errors import NotFound, Unavailable
from briefly_admin.domain.permissions import Actor
from briefly_admin.domain.progress import Progress
from briefly_admin.domain.runs import BOUND_TO_PLAN, EXCLUSIVE_KINDS, LED, RunKind, RunState, phases
from briefly_admin.plans import PLANS
from briefly_admin.services.approving import APPROVAL, unapprovable
from briefly_admin.services.config import Servers, ServiceConfig
from briefly_admin.services.rollback_result import previewed, rollback_result
from briefly_admin.services.sentences import Facts, sentence
from briefly_admin.services.views import BackupView, PhaseView, ProofView, RunView, utc
from briefly_admin.store import backups, details, runs
from briefly_admin.store.database import Connection, Row
from briefly_admin.store.texts import storable

_UNDOABLE: Final = frozenset(
    {RunState.COMPLETED, RunState.COMPLETED_WITH_SKIPS, RunState.FAILED, RunState.CANCELLED}
)  # fmt: skip
_STOPPED: Final = frozenset({RunState.FAILED, RunState.CANCELLED})
_LONGEST_NUMBER: Final = 18


@dataclass(frozen=True, slots=True)
class _Around:
    """What the rows of one answer have in common, read once."""

    phases: Mapping[UUID, Mapping[str, Row[Any]]]
    backups: Mapping[UUID, Row[Any]]
    quarantined: Mapping[UUID, int]
    waiting_changes: Mapping[UUID, int]
    newest_exclusive: Mapping[str, int]
    unfinished_replays: Collection[UUID]
    workers: int | None
    busy_with: int | None


class Reader:
    """Builds RunViews and BackupViews."""

    def __init__(self, servers: Servers, config: ServiceConfig, now: Callable[[], datetime]) -> None:
        self._queue = servers.queue
        self._config = config
        self._now = now

    def run(self, connection: Connection, row: Row[Any], actor: Actor) -> RunView:
        """One run."""
        return self.runs(connection, [row], actor)[0]

    def runs(self, connection: Connection, rows: Sequence[Row[Any]], actor: Actor) -> tuple[RunView, ...]:
        """Runs, with a handful of queries whatever their number."""
        ids = [row.id for row in rows]
        led = [row.number for row in runs.active(connection) if RunState(row.state) in LED] if rows else []
        pending = any(row.state == RunState.PENDING for row in rows)
        around = _Around(
            phases=details.phases(connection, ids),
            backups=backups.of_runs(connection, [row.backup_id for row in rows if row.backup_id]),
            quarantined=details.open_quarantine(connection, ids),
            waiting_changes=details.waiting_changes(connection, ids),
            newest_exclusive=runs.newest_exclusive(connection),
            unfinished_replays=runs.unfinished_replays(connection, ids),
            workers=self._workers() if pending else None,
            busy_with=led[0] if led else None,
        )
        return tuple(self._run(row, around, actor) for row in rows)

    def _workers(self) -> int | None:
        try:
            return self._queue.workers()
        except Unavailable:
            return None

    def _progress(self, row: Row[Any], state: RunState) -> Progress | None:
        if state is RunState.PENDING:
            return None
        found = self._queue.progress(str(row.id)) if state in LED else None
        return found or (Progress.from_json(row.progress) if row.progress else None)

    def _run(self, row: Row[Any], around: _Around, actor: Actor) -> RunView:
        state, kind = RunState(row.state), RunKind(row.kind)
        progress = self._progress(row, state)
        backup = around.backups.get(row.backup_id) if row.backup_id else None
        restorable = backup is not None and not why_not_restorable(backup, self._now())
        resumable = is_resumable(row, around.newest_exclusive)
        plan = PLANS.get(row.plan)
        actions = allowed_actions(
            state, actor.role, kind=kind, has_backup=restorable, resumable=resumable,
            same_plan=kind not in BOUND_TO_PLAN or plan is None or plan.fingerprint == row.plan_fingerprint,
            unapprovable=unapprovable(row, actor),
            replayable=row.id in around.quarantined or row.id in around.unfinished_replays,
        )  # fmt: skip
        undoable = restorable and state in _UNDOABLE and kind in {RunKind.MIGRATION, RunKind.ROLLBACK}
        facts = self._facts(row, around, progress, backup if restorable else None, resumable=resumable)
        return RunView(
            id=str(row.id), number=row.number, kind=kind, name=f"{row.plan} {kind.value} {row.number}", state=state,
            plan=row.plan, plan_title=plan.title if plan else row.plan, target_title=row.target_title,
            config=row.config, options=row.options, phase=row.phase or "",
            phases=phase_views(row, around.phases[row.id]), progress=progress,
            records_processed=row.records_processed, records_total=row.records_total, error=row.error or "",
            error_code=row.error_code or "", remedy=row.remedy or "", report=row.report,
            backup_id=str(row.backup_id) if row.backup_id else None, backup_name=backup.name if backup else None,
            backup_created=backup is not None, rollback_available=undoable,
            changes_left=around.waiting_changes.get(row.id, 0), quarantined=around.quarantined.get(row.id, 0),
            created_by=row.created_by, created_at=row.created_at, enqueued_at=utc(row.enqueued_at),
            started_at=utc(row.started_at), completed_at=utc(row.completed_at), heartbeat_at=utc(row.heartbeat_at),
            attempt=row.attempt, leader=row.leader or "", actions=actions, sentence=sentence(facts),
            waiting=progress.waiting if progress and state in LED else "",
            breaker=breaker_view(row, self._now()) if state in LED else BreakerView(), blocking=(),
        )  # fmt: skip

    def _facts(
        self, row: Row[Any], around: _Around, progress: Progress | None, backup: Row[Any] | None, *, resumable: bool
    ) -> Facts:
        report = row.report or {}
        migrate = report.get("migrate") or {}
        changed = migrate.get("changed")
        kind, approval = RunKind(row.kind), row.options.get(APPROVAL) or {}
        return Facts(
            kind=kind, state=RunState(row.state), now=self._now(), state_at=row.state_at,
            state_by=row.state_by, phase=row.phase or "", processed=row.records_processed,
            changed=changed if isinstance(changed, int) else None, quarantined=around.quarantined.get(row.id, 0),
            progress=progress, error=row.error or "", error_code=row.error_code or "", remedy=row.remedy or "",
            level=str(row.options.get("level") or ""), backup=str(row.options.get("backup_name") or ""),
            resumable=resumable,
            rehearsal=bool(row.config.get("dryRun")), verified="verify" in report,
            rollback_until=backup.expires_at if backup else None, pinned=bool(backup and backup.pinned),
            workers=around.workers, busy_with=around.busy_with,
            heals_within=max(60, round(self._config.lease.total_seconds() * 2)),
            asked_by=str(approval.get("asked_by") or row.created_by),
            approve_until=datetime.fromisoformat(approval["asked_until"]) if approval else None,
            mode=str(row.options.get("mode") or ""),
            result=rollback_result(row.options, report) if kind is RunKind.ROLLBACK else None,
            found=previewed(report) if kind is RunKind.PREVIEW else None,
            of=row.options.get("of_number"), replayed=migrate.get("replayed"), left=migrate.get("left"),
        )  # fmt: skip

    def backup(self, connection: Connection, row: Row[Any]) -> BackupView:
        """One backup."""
        return self.backups(connection, [row])[0]

    def backups(self, connection: Connection, rows: Sequence[Row[Any]]) -> tuple[BackupView, ...]:
        """Backups, with two queries whatever their number."""
        numbers = backups.run_numbers(connection, [row.run_id for row in rows if row.run_id])
        proofs = backups.proofs(connection, [row.id for row in rows])
        return tuple(self._backup(row, numbers.get(row.run_id), proofs[row.id]) for row in rows)

    def _backup(self, row: Row[Any], run_number: int | None, proofs: Sequence[Row[Any]]) -> BackupView:
        why = why_not_restorable(row, self._now())
        return BackupView(
            id=str(row.id), name=row.name, run_id=str(row.run_id) if row.run_id else None, run_number=run_number,
            state=row.state, plan=row.plan, target_title=row.target_title, tables=tuple(row.tables), rows=row.rows,
            bytes=row.bytes, created_at=row.created_at, completed_at=utc(row.completed_at),
            expires_at=utc(row.expires_at), proven_at=utc(row.proven_at), proven_level=row.proven_level or "",
            pinned=row.pinned, restorable=not why, why_not=why, damage=tuple(row.damage),
            proofs=tuple(_proof(proof) for proof in proofs), escrowed_at=utc(row.escrowed_at),
        )  # fmt: skip


def _proof(row: Row[Any]) -> ProofView:
    return ProofView(
        level=row.level, at=row.at, whole=row.whole, damages=row.damages, rows=row.rows, seconds=row.seconds,
        run_number=row.run_number, by=row.by_whom, place=row.place,
    )  # fmt: skip


def breaker_view(row: Row[Any], now: datetime) -> BreakerView:
    """The circuit breaker's columns of a run."""
    until = utc(row.breaker_until)
    return BreakerView(
        BreakerState(row.breaker_state), row.breaker_failures, row.breaker_why, until,
        (until - now).total_seconds() if until else 0.0, row.breaker_worker,
    )  # fmt: skip


def find_run(connection: Connection, reference: str) -> Row[Any]:
    """A run by its number or id. Raises NotFound."""
    text = str(reference).strip()
    row = None
    if text.isascii() and text.isdigit() and len(text) <= _LONGEST_NUMBER:
        row = runs.by_number(connection, int(text))
    else:
        try:
            row = runs.get(connection, UUID(text))
        except ValueError:
            row = None
    if row is None:
        raise NotFound("There is no such run.", remedy="`briefly-admin status` and the overview list them.")
    return row


def find_backup(connection: Connection, reference: str) -> Row[Any]:
    """A backup by its name or id. Raises NotFound, also for one that was never proven."""
    text = str(reference).strip()
    row = backups.by_name(connection, storable(text))
    if row is None:
        try:
            row = backups.get(connection, UUID(text))
        except ValueError:
            row = None
    if row is None or row.state not in backups.SHOWN:
        raise NotFound("There is no such backup.", remedy="`briefly-admin backup list` and the page Backups name them.")
    return row


def why_not_restorable(row: Row[Any], now: datetime) -> str:
    """Why a backup cannot be restored, or ''."""
    if row.state == "damaged":
        return "It is damaged."
    if row.state == "expired" or row.shred_key is None:
        return "It has expired: nobody can read it any more."
    if row.state != "proven" or row.proven_at is None:
        return "It was never proven."
    if not row.pinned and row.expires_at is not None and row.expires_at <= now:
        return "Its time is over; it is about to be deleted."
    return ""


def is_resumable(row: Row[Any], newest_exclusive: Mapping[str, int]) -> bool:
    """Whether nothing else began on the target since the run stopped."""
    if RunState(row.state) not in _STOPPED or RunKind(row.kind) not in EXCLUSIVE_KINDS:
        return True
    newest = newest_exclusive.get(row.target_id, 0)
    return bool(newest <= row.number)


def phase_views(row: Row[Any], found: Mapping[str, Row[Any]]) -> tuple[PhaseView, ...]:
    """All phases that the run has or will have, in order."""
    config = RunConfig().with_json(row.config)
    wanted = phases(
        RunKind(row.kind), validate=config.validate_data, backup=config.create_backup, rehearse=config.dry_run
    )
    return tuple(
        PhaseView(p, found[p].state, utc(found[p].started_at), utc(found[p].finished_at), found[p].result)
        if p in found
        else PhaseView(p, "waiting")
        for p in wanted
    )


def may(view: RunView, action: Action) -> bool:
    """Whether the run's state has the action."""
    return any(allowed.action is action for allowed in view.actions)
