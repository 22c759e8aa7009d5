"""The record of corrections: taken over from the target into table, quarantine and audit trail, once each."""

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import Any

from briefly_admin.domain.corrections import CorrectedRow, Deed
from briefly_admin.domain.permissions import Actor, Role
from briefly_admin.engine import correcting
from briefly_admin.engine.identity import identify
from briefly_admin.engine.target import Connection as TargetConnection
from briefly_admin.services.auditing import AuditService
from briefly_admin.services.config import Servers
from briefly_admin.services.sentences import rows as counted
from briefly_admin.store import corrections
from briefly_admin.store.database import Connection

_After = dict[str, list[str | None]]
"""Field → the value that the rows of one deed have now, and another one where triggers make them differ."""


class Recorder:
    """Settles what corrections left in the target: each step may be repeated, the deed's id says what is done."""

    def __init__(self, servers: Servers, audit: AuditService, now: Callable[[], datetime]) -> None:
        self._servers = servers
        self._audit = audit
        self._now = now

    def settle(self) -> int:
        """Takes over all that is left there; how many deeds. Raises Unavailable, Refused."""
        with self._servers.target.session() as target:
            deeds = correcting.left_over(target)
            if not deeds:
                return 0
            target_id = identify(self._servers.target)
            for deed in deeds:
                with self._servers.database.begin() as connection:
                    if not corrections.lock(connection, deed.id):
                        self._take_over(connection, target, deed, target_id)
                correcting.empty(target, deed.id)
            return len(deeds)

    def _take_over(self, connection: Connection, target: TargetConnection, deed: Deed, target_id: str) -> None:
        count, last = 0, None
        after: _After = {}
        secrets: set[str] = set()  # triggers may have changed others in some rows only
        for rows in correcting.records(target, deed.id):
            corrections.add(connection, deed=deed.id, target_id=target_id, by=deed.by, rows=rows)
            _gather(after, rows)
            secrets.update(*(row.secrets for row in rows))
            count, last = count + len(rows), rows[-1]
        if last is None:  # another settled it between the look and the lock
            return
        corrections.note_quarantine(connection, deed.id)
        role = Role(deed.role) if deed.role in set(Role) else Role.VIEWER
        actor = Actor(deed.by, role, deed.via, deed.address)
        action, object_, details = self._event(deed, last, count, after, secrets)
        self._audit.write(connection, actor, action, object_, details)

    def _event(
        self, deed: Deed, row: CorrectedRow, count: int, after: _After, secrets: AbstractSet[str]
    ) -> tuple[str, str, dict[str, Any]]:
        details: dict[str, Any] = {
            "deed": str(deed.id), "table": row.table, "fields": sorted(after), "secret_fields": sorted(secrets),
            "at": row.at.isoformat(),
        }  # fmt: skip
        if deed.cause is not None:
            cause = deed.cause
            # Before, each row had its own, which stands in the table of corrections.
            details["values"] = {
                name: {"differs": True} if more else {"after": self._audit.seal(f"{row.table}.{name}", text)}
                for name, (text, *more) in after.items()
            }
            details |= {"rows": count, "cause": {"field": cause.field, "rule": cause.rule, "run": cause.run_id}}
            return "row.fix", f"{row.table} ({counted(count)})", details
        details["values"] = {
            name: {
                "before": self._audit.seal(f"{row.table}.{name}", before),
                "after": self._audit.seal(f"{row.table}.{name}", now),
            }
            for name, (before, now) in row.values.items()
        }
        return "row.correct", f"{row.table}/{', '.join(row.key)}", details


def _gather(after: _After, rows: Sequence[CorrectedRow]) -> None:
    for row in rows:
        for name, (_, text) in row.values.items():
            texts = after.setdefault(name, [text])
            if text != texts[0]:
                texts[1:] = [text]
