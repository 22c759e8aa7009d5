"""Runs as people deal with them: begun here, steered (`Steering`) and looked at (`Watching`)."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from briefly_admin.domain.errors import BackupExpired, Busy, InvalidRequest
from briefly_admin.domain.permissions import Actor, Permission
from briefly_admin.domain.runs import RunKind
from briefly_admin.engine.beyond import checked, touchable
from briefly_admin.engine.identity import identify
from briefly_admin.services import replaying, restoring
from briefly_admin.services.auditing import require
from briefly_admin.services.reading import find_backup
from briefly_admin.services.starting import Request
from briefly_admin.services.steering import Steering
from briefly_admin.services.views import RunView
from briefly_admin.store import runs
from briefly_admin.store.database import Row

_LEVELS: Final = ("L0", "L1")
_OF_ANOTHER: Final = frozenset(
    {RunKind.VERIFICATION, RunKind.DRILL, RunKind.PREVIEW, RunKind.ROLLBACK, RunKind.REPLAY}
)  # fmt: skip
"""Each has a method of its own."""


class RunService(Steering):
    """Every method checks permission first; state, change and audit event go in one transaction."""

    def start(
        self,
        actor: Actor,
        kind: RunKind,
        *,
        config: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> RunView:
        """Begin a migration, a validation or a backup. A preview takes `options["backup"]`; a rollback has a method.

        Raises NotAllowed, InvalidRequest (field by field), Busy (naming the other run), Refused, Unavailable.
        """
        if kind is RunKind.PREVIEW and set(options or {}) == {"backup"}:
            return self.preview(actor, str((options or {})["backup"]), idempotency_key=idempotency_key)
        if kind in _OF_ANOTHER or options:
            needed = "a migration" if kind is RunKind.REPLAY else "a backup"
            text = f"A {kind} is not started so: it needs {needed}, or takes no options."
            raise InvalidRequest(text, details={"kind": [text]})
        wanted = dict(config or {})
        request = Request(kind=kind, config=wanted, idempotency_key=idempotency_key, asked=wanted)
        return self._view(self._starter.start(actor, request), actor)

    def rollback(
        self,
        actor: Actor,
        backup: str,
        *,
        confirm: bool,
        mode: str = "exact",
        tables: list[str] | None = None,
        reason: str = "",
        preview_id: str | None = None,
        rules: Mapping[str, str] | None = None,
        settled: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
        allow: Sequence[str] = (),
        allowance: int = 0,
        idempotency_key: str | None = None,
    ) -> RunView:
        """Begin to restore a backup (its name or id). Nothing happens unless `confirm` is True; see restoring.Wish.

        Raises NotAllowed, InvalidRequest, NotFound, BackupExpired, BackupDamaged, Refused, Busy, Unavailable.
        """
        require(actor, Permission.ROLL_BACK)
        wish = restoring.Wish(
            backup=backup, mode=mode, tables=tables, reason=reason, preview_id=preview_id, rules=rules or {},
            settled=settled or {}, allow=tuple(allow), allowance=allowance,
        )  # fmt: skip
        restoring.check_form(wish, confirm=confirm)
        repeated = self._starter.repeated(RunKind.ROLLBACK, idempotency_key, wish)
        if repeated is not None:
            return self._view(repeated, actor)
        with self._database.begin() as connection:
            options, target_id = restoring.options_of(connection, wish, self._servers.plan, self._now())
        if wish.allow:
            options |= self._touched(wish.allow)
        request = Request(
            kind=RunKind.ROLLBACK, options=options, target_id=target_id, idempotency_key=idempotency_key, asked=wish
        )  # fmt: skip
        return self._view(self._starter.start(actor, request), actor)

    def replay(
        self,
        actor: Actor,
        run_id: str,
        *,
        table: str | None = None,
        field: str | None = None,
        cause: str | None = None,
        key: Sequence[str] | None = None,
        idempotency_key: str | None = None,
    ) -> RunView:
        """Begin to take up rows of a migration's quarantine that are right by now: all, or those in scope.

        Raises NotAllowed, InvalidRequest (field by field), NotFound (the run, or a row that is not in quarantine),
        Refused (nothing to replay, another plan or target, skipped), Busy, Unavailable.
        """
        require(actor, Permission.RUN)
        scope = replaying.Scope(of=run_id, table=table, field=field, cause=cause, key=key)
        replaying.check_form(scope, self._servers.plan)
        repeated = self._starter.repeated(RunKind.REPLAY, idempotency_key, scope)
        if repeated is not None:
            return self._view(repeated, actor)
        with self._database.begin() as connection:
            options, migration = replaying.options_of(connection, scope, self._servers.plan)
        request = Request(
            kind=RunKind.REPLAY, config=dict(migration.config), options=options, target_id=migration.target_id,
            idempotency_key=idempotency_key, asked=scope,
        )  # fmt: skip
        return self._view(self._starter.start(actor, request), actor)

    def _touched(self, allow: Sequence[str]) -> dict[str, Any]:
        """The tables whose rows may go or change; what the plan's backup would lack of them, the rollback's takes."""
        with self._servers.target.session() as connection:
            allowed, outside = touchable(connection, self._servers.plan, allow)
        return {"allow": allowed} | ({"beyond": outside} if outside else {})

    def preview(
        self,
        actor: Actor,
        backup: str,
        *,
        tables: list[str] | None = None,
        idempotency_key: str | None = None,
    ) -> RunView:
        """Begin to count what restoring the backup, or some of its tables, would do. Raises as `rollback`."""
        require(actor, Permission.PREVIEW)
        wish = restoring.Wish(backup=backup, tables=tables)
        repeated = self._starter.repeated(RunKind.PREVIEW, idempotency_key, wish)
        if repeated is not None:
            return self._view(repeated, actor)
        with self._database.begin() as connection:
            options, target_id = restoring.options_of(connection, wish, self._servers.plan, self._now())
        request = Request(
            kind=RunKind.PREVIEW, options=options, target_id=target_id, idempotency_key=idempotency_key, asked=wish
        )  # fmt: skip
        return self._view(self._starter.start(actor, request), actor)

    def back_up(self, actor: Actor, *, beyond: Sequence[str] = (), idempotency_key: str | None = None) -> RunView:
        """Begin a backup of its own: the plan's tables, and those `beyond` it, "schema.table" each ("*": all others).

        Raises NotAllowed, InvalidRequest, Refused (naming tables that cannot be read), Unavailable.
        """
        require(actor, Permission.BACK_UP)
        options: dict[str, Any] = {}
        if beyond:
            with self._servers.target.session() as connection:
                options["beyond"] = checked(connection, self._servers.plan, beyond)
        request = Request(kind=RunKind.BACKUP, options=options, idempotency_key=idempotency_key, asked=list(beyond))
        return self._view(self._starter.start(actor, request), actor)

    def verify_backup(
        self, actor: Actor, reference: str, *, level: str = "L1", idempotency_key: str | None = None
    ) -> RunView:
        """Begin to look through a backup: L0, all objects are there; L1, every byte. Raises NotAllowed, NotFound,
        InvalidRequest, BackupExpired, Busy.
        """
        require(actor, Permission.VERIFY_BACKUP)
        if level not in _LEVELS:
            text = f"Must be one of: {', '.join(_LEVELS)}."
            raise InvalidRequest(f"There is no level '{level}'.", details={"level": [text]})
        asked = [reference, level]
        repeated = self._starter.repeated(RunKind.VERIFICATION, idempotency_key, asked)
        if repeated is not None:
            return self._view(repeated, actor)
        backup = self._kept(reference, RunKind.VERIFICATION)
        options = {"backup_id": str(backup.id), "backup_name": backup.name, "level": level}
        place = (backup.target_id, backup.target_title)
        request = Request(
            kind=RunKind.VERIFICATION, options=options, place=place, idempotency_key=idempotency_key, asked=asked
        )  # fmt: skip
        return self._view(self._starter.start(actor, request), actor)

    def drill(self, actor: Actor, reference: str, *, idempotency_key: str | None = None) -> RunView:
        """Begin to restore a backup into a scratch schema of the target, or of DRILL_DATABASE_URL, and compare.

        Raises NotAllowed, NotFound, BackupExpired, Busy, Unavailable.
        """
        require(actor, Permission.VERIFY_BACKUP)
        repeated = self._starter.repeated(RunKind.DRILL, idempotency_key, reference)
        if repeated is not None:
            return self._view(repeated, actor)
        backup = self._kept(reference, RunKind.DRILL)
        where = self._servers.drill_place
        options = {"backup_id": str(backup.id), "backup_name": backup.name, "place": where.title}
        request = Request(
            kind=RunKind.DRILL, options=options, place=(identify(where), where.title), idempotency_key=idempotency_key,
            asked=reference,
        )  # fmt: skip
        return self._view(self._starter.start(actor, request), actor)

    def _kept(self, reference: str, kind: RunKind) -> Row[Any]:
        """A backup that can still be read, and that no run of the kind looks at just now."""
        with self._database.begin() as connection:
            backup = find_backup(connection, reference)
            if backup.shred_key is None:
                raise BackupExpired(
                    f"{backup.name} has expired: nobody can read it any more.",
                    remedy="`briefly-admin backup list` and the page Backups name those that can be read.",
                )
            other = runs.looking_at(connection, kind.value, backup.id)
        if other is not None:
            raise Busy(
                f"Run {other.number} is a {kind} of {backup.name} already ({other.state}).", run_id=str(other.id),
                remedy="Look at it, or wait until it ends.",
            )  # fmt: skip
        return backup
