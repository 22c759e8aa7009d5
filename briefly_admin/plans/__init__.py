"""The plans that this program knows."""

from typing import Final

from briefly_admin.domain.errors import NotFound
from briefly_admin.plans.base import Plan
from briefly_admin.plans.unified import UNIFIED

PLANS: Final[dict[str, Plan]] = {UNIFIED.name: UNIFIED}


def plan(name: str) -> Plan:
    """The plan of that name. Raises NotFound, which lists the known ones."""
    try:
        return PLANS[name]
    except KeyError:
        known = ", ".join(sorted(PLANS))
        raise NotFound(f"There is no plan '{name}'.", remedy=f"Known plans: {known}.") from None
