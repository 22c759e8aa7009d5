"""Sample data in the target: what `selftest create-data` makes and `selftest cleanup` removes."""

from briefly_admin.engine.sampledata.building import create
from briefly_admin.engine.sampledata.cleaning import cleanup, counts
from briefly_admin.engine.sampledata.naming import PlantedFault, planted_faults
from briefly_admin.engine.sampledata.plants import BLOCKING_FAULTS, NOTICE_FAULTS, REPAIRABLE_FAULTS
from briefly_admin.engine.sampledata.shape import SEED_COUNTS, Shape

__all__ = [
    "BLOCKING_FAULTS", "NOTICE_FAULTS", "REPAIRABLE_FAULTS", "SEED_COUNTS", "PlantedFault", "Shape",
    "cleanup", "counts", "create", "planted_faults",
]  # fmt: skip
