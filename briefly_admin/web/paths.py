"""Addresses of pages below the place where the program is mounted, and the ways from one to another."""

import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from flask import request, url_for

from briefly_admin.web.redirects import local_path

_LISTS: Final = re.compile(r"/(quarantine|fix|runs/[^/]+/findings)/?")
"""Pages from which one goes to a row, and back."""


def page_path(path: str) -> str:
    """`/backups` → `/briefly/backups` where the program is mounted below `/briefly`."""
    return request.script_root + path


def here() -> str:
    """The address of the page that is asked for, to come back to."""
    return page_path(request.full_path.rstrip("?"))


def row_url(table: str, key: Sequence[str], *, back: str = "") -> str:
    """A row's form; without `back` it leads back to the list that its link was followed from."""
    return url_for("rows.show", table=table, key=list(key), back=back or None)


def way_back() -> str:
    """Where to go afterwards: `back` of the form or the address, or the list that one came from; else ''."""
    asked = local_path(request.values.get("back"), request.script_root)
    if asked:
        return asked
    came = urlsplit(request.referrer or "")
    path = came.path.removeprefix(request.script_root)
    if came.netloc != request.host or not _LISTS.fullmatch(path):
        return ""
    whole = came.path + (f"?{came.query}" if came.query else "")
    return local_path(whole, request.script_root) or ""
