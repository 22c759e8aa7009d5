"""Every error that Briefly Admin raises on purpose.

BrieflyError
├── SettingError          a setting is missing or malformed                     exit 2, HTTP 500
├── InvalidRequest        input that is wrong, field by field                   exit 2, HTTP 400
├── NotAuthenticated      no or bad credentials                                 exit 4, HTTP 401
├── NotAllowed            the actor's role does not suffice                     exit 4, HTTP 403
├── NotFound              there is no such thing                                exit 2, HTTP 404
├── Refused               wrong state, not confirmed, preflight red             exit 4, HTTP 409
│   ├── Busy              another run holds the target                          exit 4, HTTP 409
│   └── PreflightFailed   a check is red                                        exit 4, HTTP 409
├── TooManyRequests       throttled; `retry_after` seconds                      exit 4, HTTP 429
├── Unavailable           a server does not answer; trying again can help       exit 1, HTTP 503
├── RunFailed             a phase could not do its work                         exit 1, HTTP 500
│   ├── BlockingFindings  validation found what the repairs will not cure       exit 3, HTTP 409
│   └── VerificationFailed the result is not what was promised                  exit 1, HTTP 500
├── Fenced                a newer attempt or claim owns the work: stop at once  exit 1, HTTP 409
├── Stopped               somebody asked the run to stop; `reason` says how     exit 130, HTTP 409
└── BackupError
    ├── BackupDamaged     a byte is not what was sealed                         exit 5, HTTP 409
    ├── BackupKeyMissing  a key needed to open it is not there                  exit 5, HTTP 409
    └── BackupExpired     it was shredded                                       exit 5, HTTP 409
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar


class BrieflyError(Exception):
    """The root: a message for people, a code for programs, a remedy, and whether trying again can help."""

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        """The message, and the remedy after it where there is one."""
        return f"{self.message} {self.remedy}".strip()


class SettingError(BrieflyError):
    """A setting is missing or malformed; `name` is the environment variable."""

    code = "bad_setting"
    exit_code = 2

    def __init__(self, name: str, message: str, *, remedy: str = "") -> None:
        super().__init__(f"{name}: {message}", remedy=remedy)
        self.name = name


class InvalidRequest(BrieflyError):
    """Input that is wrong; `details` maps a field's JSON name to its texts."""

    code = "bad_request"
    exit_code = 2
    http_status = 400

    def __init__(self, message: str, *, details: Mapping[str, Sequence[str]] | None = None, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.details = {field: list(texts) for field, texts in (details or {}).items()}


class NotAuthenticated(BrieflyError):
    """No or bad credentials."""

    code = "not_authenticated"
    exit_code = 4
    http_status = 401


class NotAllowed(BrieflyError):
    """The actor's role does not suffice."""

    code = "not_allowed"
    exit_code = 4
    http_status = 403


class NotFound(BrieflyError):
    """There is no such thing."""

    code = "not_found"
    exit_code = 2
    http_status = 404


class Refused(BrieflyError):
    """The state of things does not allow it."""

    code = "refused"
    exit_code = 4
    http_status = 409


class Busy(Refused):
    """Another run holds the target; `run_id` names it."""

    code = "busy"

    def __init__(self, message: str, *, run_id: str = "", remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.run_id = run_id


class PreflightFailed(Refused):
    """A check is red: nothing was changed."""

    code = "preflight_failed"


class TooManyRequests(BrieflyError):
    """Throttled for `retry_after` seconds."""

    code = "too_many_requests"
    exit_code = 4
    http_status = 429

    def __init__(self, message: str, *, retry_after: int, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.retry_after = retry_after


class Unavailable(BrieflyError):
    """A server does not answer; trying again can help."""

    code = "unavailable"
    http_status = 503
    retryable = True


class RunFailed(BrieflyError):
    """A phase could not do its work."""

    code = "run_failed"


class BlockingFindings(RunFailed):
    """Validation found what the plan's repairs will not cure."""

    code = "blocking_findings"
    exit_code = 3
    http_status = 409


class VerificationFailed(RunFailed):
    """The result is not what was promised."""

    code = "verification_failed"


class Fenced(BrieflyError):
    """A newer attempt or claim owns the work: this process must write nothing more."""

    code = "fenced"
    http_status = 409


class Stopped(BrieflyError):
    """Somebody asked the run to stop: `reason` is 'pause', 'cancel' or 'interrupt'."""

    code = "stopped"
    exit_code = 130
    http_status = 409

    def __init__(self, reason: str) -> None:
        super().__init__(f"The run was asked to stop ({reason}).")
        self.reason = reason


class BackupError(BrieflyError):
    """Something is wrong with a backup."""

    code = "backup_error"
    exit_code = 5
    http_status = 409


class BackupDamaged(BackupError):
    """A byte is not what was sealed; `damages` lists all that was found, one line each."""

    code = "backup_damaged"

    def __init__(self, message: str, *, damages: Sequence[str] = (), remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.damages = tuple(damages)


class BackupKeyMissing(BackupError):
    """A key needed to open it is not there, or is another one."""

    code = "backup_key_missing"


class BackupExpired(BackupError):
    """The backup was shredded: nobody can read it any more."""

    code = "backup_expired"
