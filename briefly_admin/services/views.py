"""What pages, endpoints and commands are given: plain frozen values, never rows."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from briefly_admin.domain.actions import Allowed
from briefly_admin.domain.breaker import BreakerState, BreakerView
from briefly_admin.domain.checks import Check, Colour
from briefly_admin.domain.permissions import Actor, Role
from briefly_admin.domain.progress import Progress
from briefly_admin.domain.runs import ACTIVE, LED, Phase, RunKind, RunState


@dataclass(frozen=True, slots=True)
class PhaseView:
    """A phase of a run; `state`: waiting, running, done, failed."""

    phase: Phase
    state: str
    started_at: datetime | None = None
    finished_at: datetime | None = None
    result: Mapping[str, Any] = field(default_factory=dict)

    @property
    def seconds(self) -> float | None:
        """How long it took, once it is over."""
        if self.started_at is None or self.finished_at is None:
            return None
        return (self.finished_at - self.started_at).total_seconds()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """A run as one actor may see it; times are UTC."""

    id: str
    number: int
    kind: RunKind
    name: str
    """'unified migration 42'."""
    state: RunState
    plan: str
    plan_title: str
    target_title: str
    config: Mapping[str, Any]
    options: Mapping[str, Any]
    phase: str
    phases: tuple[PhaseView, ...]
    progress: Progress | None
    records_processed: int
    records_total: int
    error: str
    error_code: str
    remedy: str
    report: Mapping[str, Any] | None
    backup_id: str | None
    backup_name: str | None
    backup_created: bool
    rollback_available: bool
    changes_left: int
    """Schema changes that wait for quarantined rows."""
    quarantined: int
    created_by: str
    created_at: datetime
    enqueued_at: datetime | None
    started_at: datetime | None
    completed_at: datetime | None
    heartbeat_at: datetime | None
    attempt: int
    leader: str
    actions: tuple[Allowed, ...]
    sentence: str
    waiting: str
    breaker: BreakerView
    """As it stands; closed for a run that nobody leads."""
    blocking: tuple[str, ...]
    """Who holds the locks that it waits for; looked up for one run alone, not in lists."""

    @property
    def finished(self) -> bool:
        """Nothing happens any more by itself, nor by Resume while paused."""
        return self.state not in ACTIVE

    @property
    def live(self) -> bool:
        """It may change at any second: pages poll."""
        return self.state in LED or self.state in {RunState.PENDING, RunState.INTERRUPTED}

    def status_json(self) -> dict[str, Any]:
        """MigrationStatus of contract.md; times as ISO 8601 in UTC."""
        progress = self.progress if self.live else None
        return {
            "id": self.id,
            "name": self.name,
            "status": self.state.value,
            "started_at": _iso(self.started_at),
            "completed_at": _iso(self.completed_at),
            "error": self.error or None,
            "records_processed": self.records_processed,
            "records_total": self.records_total,
            "backup_created": self.backup_created,
            "rollback_available": self.rollback_available,
            "kind": self.kind.value,
            "plan": self.plan,
            "phase": self.phase or None,
            "backup_id": self.backup_name,
            "tables": progress.to_json()["tables"] if progress else [],
            "rate": progress.rate if progress else 0.0,
            "eta_seconds": progress.eta_seconds if progress else None,
            "config": dict(self.config),
        }

    def work_json(self) -> dict[str, Any]:
        """How the work goes, beside MigrationStatus: null where there is nothing to say; `waiting` is then ''."""
        progress = self.progress if self.state in LED else None
        held = self.breaker.state is not BreakerState.CLOSED
        return {
            "batch_size": (progress and progress.batch_size) or None,
            "workers": (progress and progress.workers) or None,
            "waiting": self.waiting,
            "waiting_until": (progress and self.waiting and progress.waiting_until) or None,
            "breaker": {
                "state": self.breaker.state.value,
                "failures": self.breaker.failures,
                "why": self.breaker.why,
                "until": _iso(self.breaker.until),
            }
            if held
            else None,
        }


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of a run's log."""

    at: datetime
    level: str
    phase: str
    message: str


@dataclass(frozen=True, slots=True)
class ThroughputPoint:
    """Rows done in a phase, and rows a second, at a moment."""

    at: datetime
    phase: str
    done: int
    rate: float


@dataclass(frozen=True, slots=True)
class ProofView:
    """One look at a backup: `level` L0, L1 or L2, `place` where ("the store", or the database of a drill)."""

    level: str
    at: datetime
    whole: bool
    damages: int
    rows: int
    seconds: float
    run_number: int | None
    by: str
    place: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupView:
    """A proven, damaged or expired backup; sizes in bytes."""

    id: str
    name: str
    run_id: str | None
    run_number: int | None
    state: str
    plan: str
    target_title: str
    tables: tuple[Mapping[str, Any], ...]
    rows: int
    bytes: int
    created_at: datetime
    completed_at: datetime | None
    expires_at: datetime | None
    proven_at: datetime | None
    proven_level: str
    pinned: bool
    restorable: bool
    why_not: str
    damage: tuple[str, ...]
    proofs: tuple[ProofView, ...] = ()
    """Newest first."""
    escrowed_at: datetime | None = None
    """When its escrow file was written last."""


@dataclass(frozen=True, slots=True)
class BeyondView:
    """A table of the target beyond the plan, "schema.table"; `rows` estimated, `bytes` with TOAST and indexes."""

    name: str
    rows: int
    bytes: int
    why_not: str = ""
    """Why it cannot be backed up, or ''."""


@dataclass(frozen=True, slots=True)
class AdminView:
    """A person."""

    id: str
    email: str
    role: Role
    disabled: bool
    created_at: datetime
    last_seen_at: datetime | None


@dataclass(frozen=True, slots=True)
class SessionView:
    """A signed-in session; `id_hash` is public, the cookie's token is not kept."""

    id_hash: str
    admin: AdminView
    actor: Actor
    created_at: datetime
    seen_at: datetime
    address: str
    agent: str
    idle_left_seconds: int


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A new session: the token goes into the cookie and is kept nowhere else."""

    session_token: str = field(repr=False)
    admin: AdminView


@dataclass(frozen=True, slots=True)
class TokenView:
    """A bearer token, without the token."""

    id: str
    name: str
    role: Role
    owner: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked: bool
    expired: bool


@dataclass(frozen=True, slots=True)
class Attention:
    """Something to look at: a sentence, and the noun and reference of the page that helps."""

    text: str
    noun: str
    reference: str


@dataclass(frozen=True, slots=True)
class OverviewView:
    """The first page: the newest checklist, what runs, what ran, what is kept, what needs attention."""

    checks_at: datetime | None
    colour: Colour | None
    green: int
    amber: tuple[Check, ...]
    red: tuple[Check, ...]
    active: tuple[RunView, ...]
    recent: tuple[RunView, ...]
    backups: tuple[BackupView, ...]
    attention: tuple[Attention, ...]
    target_title: str
    tables: int
    rows: int | None
    """About how many rows the plan's tables have; None while the target does not answer."""


@dataclass(frozen=True, slots=True)
class PlanCheck:
    """One rule that validation holds a table to.

    `how`: exact: PostgreSQL decides every value. sound: it passes the usual ones, marshmallow judges the others.
    python: marshmallow judges every row, and `why` says what SQL cannot know.
    """

    field: str
    """'' of a rule that looks at rows as a whole."""
    rule: str
    words: str
    how: Literal["exact", "sound", "python"]
    why: str = ""


@dataclass(frozen=True, slots=True)
class PlanTable:
    """A table of the plan: rows as the server's statistics estimate them (None: not there), its repairs in words."""

    name: str
    rows: int | None
    bytes: int
    repairs: tuple[str, ...]
    checks: tuple[PlanCheck, ...] = ()
    """Over the columns that the table has; none of a table that is not there."""


@dataclass(frozen=True, slots=True)
class PlanChange:
    """A schema change of the plan and the SQL that makes it."""

    kind: str
    table: str
    name: str
    sql: str


@dataclass(frozen=True, slots=True)
class PlanView:
    """The plan over the target: `estimate_seconds` from the newest completed migration's rate, None without one."""

    name: str
    title: str
    summary: str
    target_title: str
    tables: tuple[PlanTable, ...]
    changes: tuple[PlanChange, ...]
    rows: int
    bytes: int
    estimate_seconds: float | None
    backup_bytes: int | None
    config: Mapping[str, Any]
    """The defaults, under the JSON names."""


def utc(moment: datetime | None) -> datetime | None:
    """The same moment in UTC."""
    return None if moment is None else moment.astimezone(UTC)


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
