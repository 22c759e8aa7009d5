"""What a replay may take: checked before anything begins, kept in the run's options; and what follows from one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from briefly_admin.domain.corrections import told_key
from briefly_admin.domain.errors import InvalidRequest, NotFound, Refused
from briefly_admin.domain.runs import RunKind, RunState
from briefly_admin.plans.base import Plan
from briefly_admin.services.reading import find_run
from briefly_admin.store import details, runs, skips
from briefly_admin.store.database import Connection, Row
from briefly_admin.store.texts import storable

_TAKEN: Final = "Look at the page Quarantine: it shows what is open, by cause."


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Of which migration, and which of its quarantined rows; None: all. `key` are texts, and need the table."""

    of: str
    table: str | None = None
    field: str | None = None
    cause: str | None = None
    key: Sequence[str] | None = None


def check_form(scope: Scope, plan: Plan) -> None:
    """Raises InvalidRequest, field by field, unless it is well-formed and of this plan."""
    faults: dict[str, str] = {}
    for name in ("table", "field", "cause"):
        if not isinstance(getattr(scope, name), str | None):
            faults[name] = "Must be a text."
    tables = {table.name: table for table in plan.tables}
    if "table" not in faults and scope.table is not None and scope.table not in tables:
        faults["table"] = f"Must be one of: {', '.join(tables)}."
    if scope.key is not None and (fault := _fault_of_key(scope, tables)):
        faults["key"] = fault
    if faults:
        texts = " ".join(f"{name}: {text}" for name, text in faults.items())
        raise InvalidRequest(
            f"Nothing was replayed. {texts}", details={name: [text] for name, text in faults.items()}
        )  # fmt: skip


def _fault_of_key(scope: Scope, tables: Mapping[str, Any]) -> str:
    key = scope.key
    if isinstance(key, str) or not isinstance(key, Sequence) or not all(isinstance(text, str) for text in key):
        return "Must be a list of texts."
    if scope.table is None:
        return "Belongs to a table: name that, too."
    columns = tables[scope.table].key if scope.table in tables else key
    if len(key) != len(columns):
        return f"Must have a text for each column of the key: {', '.join(columns)}."
    return ""


def options_of(connection: Connection, scope: Scope, plan: Plan) -> tuple[dict[str, Any], Row[Any]]:
    """The run's options, and the migration. Raises NotFound; Refused where there is nothing that could be replayed."""
    row = find_run(connection, scope.of)
    require_replayable(row)
    if row.plan != plan.name:
        raise Refused(
            f"Run {row.number} is of the plan '{row.plan}'; this installation runs '{plan.name}'.",
            remedy=f"Set MIGRATION_PLAN={row.plan}.",
        )
    if row.plan_fingerprint != plan.fingerprint:
        raise Refused(
            f"The plan {plan.name} has changed since run {row.number}: its rows cannot be repaired as the others were.",
            remedy="Replay with the version of Briefly Admin that ran it, or start a new migration.",
        )
    wanted = {
        name: storable(value) for name in ("table", "field", "cause") if (value := getattr(scope, name)) is not None
    }
    key = None if scope.key is None else [storable(text) for text in scope.key]
    _require_rows(connection, row, wanted, key)
    options = {"of": str(row.id), "of_number": row.number, "table": None, "field": None, "cause": None, "key": key}
    return options | wanted, row


def require_replayable(row: Row[Any]) -> None:
    """Raises Refused unless it is a migration that completed with skips."""
    if RunKind(row.kind) is not RunKind.MIGRATION:
        raise Refused(
            f"Run {row.number} is a {row.kind}: what is replayed is the quarantine of a migration.", remedy=_TAKEN
        )
    if RunState(row.state) is not RunState.COMPLETED_WITH_SKIPS:
        raise Refused(
            f"Run {row.number} is {row.state}: only a migration that is completed_with_skips is replayed.",
            remedy=_TAKEN,
        )


def _require_rows(
    connection: Connection, row: Row[Any], wanted: Mapping[str, str], key: Sequence[str] | None
) -> None:  # fmt: skip
    found = details.open_in_scope(connection, row.id, key=key, **wanted)
    skipped = {(each.table, each.key) for each in skips.all_of(connection, target_id=row.target_id, plan=row.plan)}
    if any(place not in skipped for place in found):
        return
    # One that stopped after the last row that it takes has still to make the constraints that waited.
    if not wanted and key is None and row.id in runs.unfinished_replays(connection, [row.id]):
        return
    what = f"{told_key([wanted['table']])} [{told_key(key)}]" if key is not None else ""
    if found:
        raise Refused(
            f"{what or 'All that would be replayed'} is to be skipped.", remedy="Take the word to skip it back first."
        )
    if key is not None:
        raise NotFound(f"{what} is not in the quarantine of run {row.number}.", remedy=_TAKEN)
    raise Refused(f"Nothing of run {row.number} is in quarantine for that.", remedy=_TAKEN)


def require_still_replayable(connection: Connection, row: Row[Any]) -> None:
    """Raises Refused where the migration that the replay `row` is of was rolled back before a worker began."""
    require_replayable(find_run(connection, row.options["of"]))


def concluded(connection: Connection, row: Row[Any]) -> Mapping[str, Any]:
    """Settle what a finished replay has brought; for the audit trail.

    A migration of whose quarantine nothing is left is completed; rows skipped on purpose are left.
    """
    migration = find_run(connection, row.options["of"])
    left = details.open_quarantine(connection, [migration.id]).get(migration.id, 0)
    facts = {"of": f"run {migration.number}", "left": left}
    if left:
        return facts
    done = runs.transition(
        connection, migration.id, RunState.COMPLETED, before={RunState.COMPLETED_WITH_SKIPS}, by=f"run {row.number}"
    )
    return facts | {"completes": done}
