"""The compiler from a record schema to SQL."""

from briefly_admin.engine.compiler.conditions import Condition, conditions
from briefly_admin.engine.compiler.coverage import RuleCoverage, coverage
from briefly_admin.engine.compiler.views import Typed, readable

__all__ = ["Condition", "RuleCoverage", "Typed", "conditions", "coverage", "readable"]
