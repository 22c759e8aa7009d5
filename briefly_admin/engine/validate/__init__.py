"""The phase validate: the database's speed, marshmallow's verdict."""

from briefly_admin.engine.validate.blocked import blocked_rows
from briefly_admin.engine.validate.examine import Examination, examine, examine_tables
from briefly_admin.engine.validate.phase import run

__all__ = ["Examination", "blocked_rows", "examine", "examine_tables", "run"]
