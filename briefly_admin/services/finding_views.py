"""What people are shown of findings and of the rows that runs left alone."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from briefly_admin.domain.findings import Finding


@dataclass(frozen=True, slots=True)
class QuarantineRow:
    """A row that a run left alone; `key` are the key columns' values."""

    table: str
    key: tuple[str, ...]
    cause: str
    message: str
    sqlstate: str
    constraint: str
    closed: bool
    """A rollback undid the migration, a replay cured the row, or a later migration looked at it anew."""
    field: str = ""
    corrected_at: datetime | None = None
    skipped: str = ""
    """The reason for which somebody decided to leave it alone."""


@dataclass(frozen=True, slots=True)
class QuarantineCause:
    """Open rows of one migration's quarantine that have one thing wrong; counts are exact."""

    run_id: str
    run_number: int
    table: str
    field: str
    cause: str
    message: str
    """Of one of them."""
    rows: int
    corrected: int
    """Of these: changed by hand since."""
    skipped: int
    """Of these: to be left alone."""
    open_to_fix: int
    """Of these: neither, which a fix of the cause would change."""
    replayable: bool
    """Whether the migration's state lets a replay begin."""


@dataclass(frozen=True, slots=True)
class Trend:
    """A run's findings against the validation before it, of the same plan and target; `number` None: there was none.

    Keys are (table, field, rule, class).
    """

    number: int | None
    before: Mapping[tuple[str, str, str, str], int] = field(default_factory=dict)
    gone: tuple[Finding, ...] = ()
    """Found then and not now."""
