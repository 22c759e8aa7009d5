"""Addresses of pages below the place where the program is mounted."""

from flask import request


def page_path(path: str) -> str:
    """`/backups` → `/briefly/backups` where the program is mounted below `/briefly`."""
    return request.script_root + path
