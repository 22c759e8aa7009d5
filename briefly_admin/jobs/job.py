"""The only jobs there are: lead a run, help with one. Whatever a payload names besides is never imported.

A JSON payload can still name any function, callback or webhook of the machine, and RQ would import or call it. This
class answers those questions itself, from an allow-list, and takes one argument: a run's id.
"""

from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

from rq.job import Job

from briefly_admin.domain.errors import Refused

LEAD: Final = "briefly_admin.jobs.leader.lead"
HELP: Final = "briefly_admin.jobs.leader.help_out"


def _lead(run_id: str) -> None:
    from briefly_admin.jobs.leader import lead

    lead(run_id)


def _help(run_id: str) -> None:
    from briefly_admin.jobs.leader import help_out

    help_out(run_id)


ALLOWED: Final[dict[str, Callable[[str], None]]] = {LEAD: _lead, HELP: _help}


class RunJob(Job):
    """An RQ job that runs nothing but what ALLOWED names, with one run id, and calls nobody back."""

    @property
    def func(self) -> Callable[[str], None]:
        """The allowed function. Raises Refused for any other function, instance or argument."""
        function = ALLOWED.get(str(self.func_name))
        if function is None or self.instance is not None:
            raise Refused(f"The job {self.id} names a function that workers do not run.")
        if len(self.args) != 1 or self.kwargs or not _is_uuid(self.args[0]):
            raise Refused(f"The job {self.id} carries something else than one run id.")
        return function

    @property
    def success_callback(self) -> None:
        """None, whatever the payload says."""

    @property
    def failure_callback(self) -> None:
        """None, whatever the payload says."""

    @property
    def stopped_callback(self) -> None:
        """None, whatever the payload says."""

    def send_webhooks(self, *_: Any, **__: Any) -> None:
        """Nobody is called, whatever the payload says."""

    @property
    def should_retry(self) -> bool:
        """False: the sweeper decides from the app database."""
        return False


def _is_uuid(value: object) -> bool:
    try:
        return isinstance(value, str) and str(UUID(value)) == value
    except ValueError:
        return False
