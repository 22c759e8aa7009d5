"""What preflight is given, and how a check is made: it never raises."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import psycopg

from briefly_admin.domain.checks import Check, Colour
from briefly_admin.domain.errors import BrieflyError
from briefly_admin.domain.ports import BlobStore
from briefly_admin.engine.retry import lost_connection
from briefly_admin.engine.target import Target, safe_message
from briefly_admin.plans.base import Plan

_TRY_AGAIN: Final = "Run the checks again; if it stays, see the program's log."


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupFacts:
    """What the app database knows of backups."""

    newest: datetime | None = None
    """When the newest proven one was taken; None where there is none."""
    escrowed: bool = False
    """Whether that one has an escrow file."""
    drilled: datetime | None = None
    """When the last drill ended; None before the first."""
    drill_whole: bool = True
    drilled_backup: str = ""
    retention_hours: int = 24
    drill_every_hours: int | None = None
    production: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PreflightInputs:
    """The plan, the servers and what is known of them. What is None is not looked at: its check is left out."""

    plan: Plan
    target: Target
    ping_app_database: Callable[[], object] | None = None
    """Asks the app database something; raises where it does not answer."""
    store: BlobStore | None = None
    store_is_kept: bool = True
    """False: a `file:` store on a platform whose disk is not kept."""
    key_sizes: Mapping[str, int] | None = None
    """Backup key id → its size in bytes."""
    workers: Callable[[], int] | None = None
    """How many workers listen; raises Unavailable where Redis does not answer."""
    active_run: str | None = None
    """The run that holds the target, in words; '' for none."""
    starting: bool = False
    """A run is about to start: another active one is red, not a remark."""
    backups: BackupFacts | None = None
    now: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))


def green(name: str, title: str, found: str) -> Check:
    """All is well."""
    return Check(name, title, Colour.GREEN, found)


def amber(name: str, title: str, found: str, remedy: str) -> Check:
    """It goes, with a warning."""
    return Check(name, title, Colour.AMBER, found, remedy)


def red(name: str, title: str, found: str, remedy: str) -> Check:
    """It stops a run."""
    return Check(name, title, Colour.RED, found, remedy)


def look(name: str, title: str, ask: Callable[[], Check], *, otherwise: Colour = Colour.RED) -> Check:
    """`ask`'s check; where looking fails, one of the colour `otherwise` that says why, without any data.

    Raises psycopg.Error where the session that was looked through is gone: that says nothing of this check.
    """
    try:
        return ask()
    except BrieflyError as error:
        return Check(name, title, otherwise, error.message, error.remedy or _TRY_AGAIN)
    except psycopg.Error as error:
        if lost_connection(error):
            raise
        return Check(name, title, otherwise, f"It could not be looked at: {safe_message(error)}.", _TRY_AGAIN)
    except Exception as error:  # noqa: BLE001 - a check answers whatever happens; only the error's class is shown
        return Check(name, title, otherwise, f"It could not be looked at: {type(error).__name__}.", _TRY_AGAIN)
