"""All pages: one blueprint a noun, registered in this order. A new page's blueprint goes here, and nowhere else."""

from typing import Final

from flask import Blueprint

from briefly_admin.web import health, session_views

BLUEPRINTS: Final[tuple[Blueprint, ...]] = (
    health.blueprint,
    session_views.blueprint,
)
