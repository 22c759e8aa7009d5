"""Rollbacks by child processes, each struck at a chosen statement and followed by the next, until one comes to its end.

What the children finished is in a file, as a journal would have it; all else of a child goes with it.
"""

import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

from briefly_admin.domain.errors import Unavailable
from briefly_admin.domain.runs import Phase
from briefly_admin.engine import pipeline
from briefly_admin.engine.context import RunContext
from tests.faults import statements

PHASES = (Phase.STAGE, Phase.PREVIEW, Phase.RESTORE, Phase.VERIFY)
_AGAIN, _WRONG = 3, 4
"""Exit codes: the database was gone for a moment; anything else."""


class Forks:
    """One rollback's children. `begin`: makes the context of the next attempt; `logs`: where statements are counted."""

    def __init__(self, begin: Callable[[], RunContext], url: str, logs: Path) -> None:
        self._begin, self.url, self._logs = begin, url, logs
        self._finished = logs / "finished"
        self._finished.write_text("", encoding="utf-8")
        self.attempts = 0

    def attempt(self) -> bool:
        """Go on where the last one ended; whether this one came to the end. Raises AssertionError where one failed."""
        context = self._begin()
        self.attempts += 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # this process may have threads; the child uses none
            child = os.fork()
        if child == 0:
            self._child(context)
        _, status = os.waitpid(child, 0)
        ended = os.waitstatus_to_exitcode(status)
        said = (self._logs / "child").read_text(encoding="utf-8") if ended == _WRONG else ""
        assert ended in {0, _AGAIN} or ended < 0, f"a child ended with {ended}: {said}"
        return ended == 0

    def _child(self, context: RunContext) -> None:
        """Never returns."""
        try:
            os.setsid()  # who kills the worker kills a session's leader
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.environ |= statements.settings(self._logs) | {"TARGET_DATABASE_URL": self.url}
            statements.arm()
            for phase in PHASES[len(self._finished.read_text(encoding="utf-8").splitlines()) :]:
                context.journal.phase_finished(phase, vars(pipeline)["run_phase"](context, phase))
                with self._finished.open("a", encoding="utf-8") as file:
                    file.write(f"{phase.value}\n")
            os._exit(0)
        except Unavailable:
            os._exit(_AGAIN)
        except BaseException:  # noqa: BLE001 - the parent is to hear of it, whatever it is
            (self._logs / "child").write_text(traceback.format_exc(), encoding="utf-8")
            os._exit(_WRONG)
        finally:
            sys.stdout.flush()
