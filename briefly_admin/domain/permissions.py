"""Who may do what: three roles, and what each may. Default deny."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Role(StrEnum):
    """Each role may do all that the one before it may."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


class Permission(StrEnum):
    """One kind of deed."""

    READ = "read"
    CHECK = "check"
    VALIDATE = "validate"
    RUN = "run"
    STEER = "steer"
    """Pause, resume, cancel, change live settings."""
    CORRECT = "correct"
    """Change rows by hand, or decide to leave them alone."""
    BACK_UP = "back_up"
    VERIFY_BACKUP = "verify_backup"
    PIN_BACKUP = "pin_backup"
    DELETE_BACKUP = "delete_backup"
    OPEN_BACKUP = "open_backup"
    """Read the rows of a backup outside a database."""
    ESCROW_BACKUP = "escrow_backup"
    """Write the file that opens a backup without the app database."""
    ROTATE_KEYS = "rotate_keys"
    PREVIEW = "preview"
    ROLL_BACK = "roll_back"
    APPROVE = "approve"
    """Let begin what another person has asked for, where REQUIRE_APPROVAL is set."""
    MANAGE_PEOPLE = "manage_people"
    MANAGE_OWN = "manage_own"
    """One's own password, sessions and tokens."""
    EXPORT_AUDIT = "export_audit"
    SAMPLE_DATA = "sample_data"
    """Make and remove sample data in the target."""


_P = Permission
_VIEWER: Final = frozenset({_P.READ, _P.MANAGE_OWN})
_OPERATOR: Final = _VIEWER | {
    _P.CHECK, _P.VALIDATE, _P.RUN, _P.STEER, _P.CORRECT, _P.BACK_UP, _P.VERIFY_BACKUP, _P.PIN_BACKUP, _P.PREVIEW,
}  # fmt: skip
GRANTS: Final[dict[Role, frozenset[Permission]]] = {
    Role.VIEWER: _VIEWER,
    Role.OPERATOR: _OPERATOR,
    Role.ADMIN: frozenset(Permission),
}


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks: a signed-in admin, a token's owner, or the command on the machine itself."""

    name: str
    role: Role
    via: str
    """'page', 'api', 'cli', 'worker' or 'clock'."""
    address: str = ""
    admin_id: str | None = None

    def may(self, permission: Permission) -> bool:
        """Whether the actor's role grants it."""
        return permission in GRANTS[self.role]
