"""Where REQUIRE_APPROVAL is set: what changes data begins only once another admin has approved just that."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from briefly_admin.domain.config import RunConfig
from briefly_admin.domain.errors import NotAllowed, Refused
from briefly_admin.domain.permissions import Actor
from briefly_admin.domain.runs import EXCLUSIVE_KINDS, RunKind
from briefly_admin.store.database import Row

APPROVAL: Final = "approval"
"""The run's option: {"asked_until", "asked_by", "askers", "names"}, and once it is approved "by", "at", "until"."""
ASKED_FOR: Final = timedelta(hours=24)
"""How long a run waits for somebody to approve it."""
GOOD_FOR: Final = timedelta(hours=1)
"""How long an approval is good: within that a worker, or whoever resumes the run, must begin."""


def needed(kind: RunKind, config: Mapping[str, Any]) -> bool:
    """Whether a run of this kind waits for an approval: a rehearsal changes nothing."""
    return kind in EXCLUSIVE_KINDS and not RunConfig().with_json(config).dry_run


def asked(values: Mapping[str, Any], now: datetime, *, by: Actor) -> dict[str, Any]:
    """The option of a run that waits: until when, who asked, and what exactly is to be approved.

    `values`: the run's columns.
    """
    options = values["options"]
    names = {
        "kind": values["kind"], "target": values["target_title"], "plan": values["plan"],
        "fingerprint": values["plan_fingerprint"], "backup": options.get("backup_name"), "mode": options.get("mode"),
        "tables": options.get("tables"),
    }  # fmt: skip
    # One person has several names: signed in, and by each token.
    askers = {*(options.get(APPROVAL) or {}).get("askers", ()), by.admin_id} - {None}
    return {
        "asked_until": (now + ASKED_FOR).isoformat(), "asked_by": by.name, "askers": sorted(askers), "names": names,
    }  # fmt: skip


def approved(row: Row[Any], actor: Actor, now: datetime) -> dict[str, Any]:
    """The option once `actor` has approved. Raises Refused for whoever asked for it, and where it is too late."""
    found = row.options[APPROVAL]
    if is_own(row, actor):
        raise Refused(
            f"Run {row.number} was asked for by {actor.name}: another admin approves it.",
            remedy="Ask another admin, or cancel the run.",
        )
    if is_too_late(row, now):
        raise Refused(f"Run {row.number} waited too long for an approval.", remedy="Cancel it and start it again.")
    return {**found, "by": actor.name, "at": now.isoformat(), "until": (now + GOOD_FOR).isoformat()}


def require_person(actor: Actor) -> None:
    """Raises NotAllowed for a token without an owner: whoever holds two of them is still one person."""
    if _is_nobody(actor):
        raise NotAllowed(
            f"Approving needs a person, and behind the {actor.name} there is none: the command line made it.",
            remedy="Approve on the run's page, by the command, or with a token that you make under Me.",
        )


def unapprovable(row: Row[Any], actor: Actor) -> str:
    """Why the actor does not approve the run, or ''; whatever its state."""
    if _is_nobody(actor):
        return "A token that the command line made approves nothing: there is no person behind it."
    return "Another admin approves what you have asked for." if is_own(row, actor) else ""


def _is_nobody(actor: Actor) -> bool:
    return actor.via == "api" and actor.admin_id is None


def is_own(row: Row[Any], actor: Actor) -> bool:
    """Whether the actor asked for the run, or had it go on: by whatever way the same person came."""
    found = row.options.get(APPROVAL) or {}
    return actor.name in {row.created_by, found.get("asked_by")} or actor.admin_id in found.get("askers", ())


def is_too_late(row: Row[Any], now: datetime) -> bool:
    """Whether nobody approved in time."""
    return datetime.fromisoformat(row.options[APPROVAL]["asked_until"]) <= now


def is_good(row: Row[Any], now: datetime) -> bool:
    """Whether the run has an approval that has not expired."""
    until = (row.options.get(APPROVAL) or {}).get("until")
    return until is not None and now < datetime.fromisoformat(until)


def begun(row: Row[Any], now: datetime) -> dict[str, Any] | None:
    """The option once a worker begins what was approved, or None where nothing is to be noted.

    Raises Refused where the approval has expired before that.
    """
    found = row.options.get(APPROVAL)
    if not found or found.get("begun"):
        return None
    if not is_good(row, now):
        raise Refused(
            f"The approval of run {row.number} expired before a worker could begin.",
            remedy="See that a worker listens, then resume the run: it asks for another approval.",
        )
    return {**found, "begun": True}
