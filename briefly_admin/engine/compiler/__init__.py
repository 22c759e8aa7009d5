"""The compiler from a record schema to SQL."""

from briefly_admin.engine.compiler.conditions import Condition, Typed, conditions
from briefly_admin.engine.compiler.coverage import RuleCoverage, coverage

__all__ = ["Condition", "RuleCoverage", "Typed", "conditions", "coverage"]
