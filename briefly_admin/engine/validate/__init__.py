"""The phase validate: the database's speed, marshmallow's verdict."""

from briefly_admin.engine.validate.blocked import blocked_among, blocked_rows
from briefly_admin.engine.validate.examine import Examination, examine, examine_tables
from briefly_admin.engine.validate.phase import run
from briefly_admin.engine.validate.shared import AGAIN, STEP, examine_shared

__all__ = [
    "AGAIN",
    "STEP",
    "Examination",
    "blocked_among",
    "blocked_rows",
    "examine",
    "examine_shared",
    "examine_tables",
    "run",
]
