"""What a run leaves behind in the app database beside its findings."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class QuarantinedRow:
    """A row that a run left alone. `key` is the key columns' values as texts, `message` free of tenant data."""

    table: str
    key: tuple[str, ...]
    cause: str
    message: str
    sqlstate: str | None = None
    constraint: str | None = None
    field: str = ""
    """The column that the cause is about; '' where it is not known."""


@dataclass(frozen=True, slots=True)
class SkippedRow:
    """A row that somebody decided to leave alone, and why; `key` as in QuarantinedRow."""

    table: str
    key: tuple[str, ...]
    reason: str
    by: str


@dataclass(frozen=True, slots=True)
class ChangeRecord:
    """A schema change of a run, with what undoes it; `state`: planned, made, waiting, reverted, or other.

    Other: it had waited, and stands now as a change that another run made under another name, or somebody by hand.
    """

    position: int
    table: str
    kind: str
    name: str
    sql: str
    inverse: str
    state: str = "planned"
    note: str = ""
