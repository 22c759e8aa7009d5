"""Helps with a run that another worker leads: the steps of all phases that are shared out."""

from collections.abc import Mapping
from typing import Final

from briefly_admin.engine import backup, loading, migrate, proving, unchanged, validate, verification
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.sharing import Step, help_out

STEPS: Final[tuple[Step, ...]] = (
    validate.STEP, backup.STEP, proving.PROOF, migrate.STEP, validate.AGAIN, *loading.STEPS, *unchanged.STEPS,
    proving.AGAIN, *verification.STEPS,
)  # fmt: skip
_BY_NAME: Final[Mapping[str, Step]] = {step.name: step for step in STEPS}


def assist(context: RunContext) -> int:
    """Works partitions of whatever step the run is at until there are none for a while; how many it did.

    Raises Stopped, Fenced.
    """
    return help_out(context, _BY_NAME)
