"""All pages: one blueprint a noun, registered in this order. A new page's blueprint goes here, and nowhere else."""

from typing import Final

from flask import Blueprint

from briefly_admin.web import (
    admins,
    approvals,
    audit,
    backups,
    checks,
    findings,
    fix,
    health,
    me,
    overview,
    pictures,
    quarantine,
    rollback,
    rows,
    runs,
    session_views,
)

BLUEPRINTS: Final[tuple[Blueprint, ...]] = (
    health.blueprint,
    session_views.blueprint,
    overview.blueprint,
    checks.blueprint,
    runs.blueprint,
    approvals.blueprint,
    pictures.blueprint,
    findings.blueprint,
    quarantine.blueprint,
    rows.blueprint,
    fix.blueprint,
    backups.blueprint,
    rollback.blueprint,
    audit.blueprint,
    admins.blueprint,
    me.blueprint,
)
