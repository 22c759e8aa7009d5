"""The phase preflight: a list of checks, each green, amber or red with a remedy."""

from briefly_admin.engine.preflight.inputs import BackupFacts, PreflightInputs
from briefly_admin.engine.preflight.phase import check_all, concluded, run

__all__ = ["BackupFacts", "PreflightInputs", "check_all", "concluded", "run"]
