"""Changes to rows by hand: to one row, or to all rows of a cause. Values are texts, as PostgreSQL writes them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID

Changes = Mapping[str, str | None]
"""Column → its new value as a text; None is NULL."""
MOST_AT_ONCE = 100_000
"""Rows that one fix changes; a cause with more of them is fixed in several."""

_TOLD = 80
"""Characters of a key in a message: whoever asks may have sent any number of them."""


def told_key(key: Sequence[str]) -> str:
    """A key's texts for a message: 'a, 1', cut where they are over-long."""
    text = ", ".join(key)
    return text if len(text) <= _TOLD else f"{text[:_TOLD]}…"


class Input(StrEnum):
    """How a column is asked for."""

    TEXT = "text"
    LONG_TEXT = "long_text"
    CHOICE = "choice"
    NUMBER = "number"
    TRUTH = "truth"
    MOMENT = "moment"
    JSON = "json"
    FIXED = "fixed"
    """Shown, not asked for: keys, generated columns, vectors, types that no form can show."""


@dataclass(frozen=True, slots=True)
class RowField:
    """A column of a row with what is wrong with it; of a secret one `value` is always None."""

    name: str
    input: Input
    type: str
    """In SQL: 'timestamp with time zone'."""
    value: str | None
    secret: bool = False
    key: bool = False
    nullable: bool = True
    """Whether "no value" is offered: the record schema or a repair allows it, and the column."""
    choices: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    """In words: 'must be at least 0'."""
    faults: tuple[str, ...] = ()
    """What still is wrong once repaired, in words; these block."""
    repaired: str | None = None
    """What a migration makes of it, where that is another value; never of a secret column."""


@dataclass(frozen=True, slots=True)
class ShownRow:
    """A row as it was read. `version` names this very state of it ("xmin:ctid"); '' where it is only typed."""

    table: str
    key: tuple[str, ...]
    version: str
    fields: tuple[RowField, ...]
    faults: tuple[str, ...] = ()
    """Of the row as a whole: relations, uniqueness over several columns."""
    recorded: bool = True
    """Of a corrected row: its record stands in the app database; false: the change is made, its record follows."""

    @property
    def blocks(self) -> bool:
        """Whether something is left to cure."""
        return bool(self.faults) or any(each.faults for each in self.fields)


@dataclass(frozen=True, slots=True)
class Cause:
    """Rows with one thing wrong; with `run_id` those of that migration's quarantine, else all that have it now."""

    table: str
    field: str
    rule: str
    run_id: str | None = None


@dataclass(frozen=True, slots=True)
class RowOfCause:
    """A row of a cause; `value` is None for secret fields."""

    key: tuple[str, ...]
    value: str | None


@dataclass(frozen=True, slots=True)
class Fixed:
    """What a fix does, or would do, to the rows of a cause; counts are exact.

    `rows` have the cause now; `cured` of them would be right in the changed columns; `refused`: reason in words →
    rows that the change would not cure or would break. A fix is made only where nothing is refused.
    """

    rows: int
    cured: int
    refused: Mapping[str, int] = field(default_factory=dict)
    samples: Sequence[tuple[tuple[str, ...], Mapping[str, tuple[str | None, str | None]]]] = ()
    """(key, column → (before, after)), of at most 20 rows; secret columns left out."""
    more: int = 0
    """Rows of the cause beyond MOST_AT_ONCE, which this fix leaves for the next one."""
    recorded: bool = True
    """Of a fix that was made: as of ShownRow."""


@dataclass(frozen=True, slots=True)
class Deed:
    """Who corrects, in the target's record of it: settled into audit trail and app database afterwards."""

    id: UUID
    by: str
    role: str
    via: str
    address: str = ""
    cause: Cause | None = None
    """Of a fix."""


@dataclass(frozen=True, slots=True)
class CorrectedRow:
    """One row of a deed: field → (before, after) as texts; of secret columns the names alone."""

    table: str
    key: tuple[str, ...]
    values: Mapping[str, tuple[str | None, str | None]]
    secrets: tuple[str, ...]
    at: datetime
