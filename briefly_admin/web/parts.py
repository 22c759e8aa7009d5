"""The plain values that the layout and the component macros take; views fill them, templates only print them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from briefly_admin.domain.permissions import GRANTS, Permission, Role


@dataclass(frozen=True, slots=True)
class NavItem:
    """A link of the top bar."""

    label: str
    url: str
    icon: str
    current: bool = False


@dataclass(frozen=True, slots=True)
class Person:
    """Who is signed in; `url` is their own page, `sign_out_url` takes a POST."""

    email: str
    role: str
    url: str
    sign_out_url: str


@dataclass(frozen=True, slots=True)
class Site:
    """What every page of `layouts/base.html` shows, as the context variable `site`.

    `idle_seconds`: after so long without a click a session ends, and the page warns two minutes before; 0 = never.
    """

    version: str
    home_url: str = "/"
    nav: Sequence[NavItem] = ()
    person: Person | None = None
    target: str = ""
    """The target as host/database: which data all these buttons would touch."""
    idle_seconds: int = 0


@dataclass(frozen=True, slots=True)
class Button:
    """An action of `components/_actions.html`.

    `style` is 'primary', 'danger', 'danger-quiet', 'ghost' or '' (plain); `method` 'post' makes a form, 'get' a link.
    With `why_not` the button is shown off, the reason beside it, linked to `why_url` where that solves it. `confirm`
    is asked first (by JavaScript alone).
    """

    name: str
    label: str
    url: str
    method: str = "post"
    style: str = ""
    icon: str = ""
    why_not: str = ""
    why_url: str = ""
    confirm: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """A phase of `components/_phases.html`: state 'done', 'running', 'waiting', 'failed', 'skipped' or 'pending'."""

    label: str
    state: str
    duration: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of `components/_bar.html`: `value` of `maximum`, in the same unit; `value` None while it cannot be told.

    `text` stands beside the bar ('68 %'), `label` says what is measured; `tone` is '', 'good', 'warn' or 'bad'.
    """

    label: str
    value: float | None
    maximum: float
    text: str
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why something was not done, and what to do; `url` leads to the run that stands against it."""

    text: str
    remedy: str
    url: str = ""


@dataclass(frozen=True, slots=True)
class Grid:
    """A table of texts: `columns` as the table macro takes them, the first of each row is its heading."""

    title: str
    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    wide: bool = False
    """It takes the page's whole width."""


_PAGES: Final = (
    ("Overview", "/", "layout-dashboard", Permission.READ),
    ("New run", "/runs/new", "player-play", Permission.VALIDATE),
    ("Checklist", "/checks", "checklist", Permission.READ),
    ("Quarantine", "/quarantine", "hand-stop", Permission.READ),
    ("Backups", "/backups", "archive", Permission.READ),
    ("Audit", "/audit", "list-details", Permission.READ),
    ("Admins", "/admins", "users", Permission.MANAGE_PEOPLE),
)


def navigation(role: Role, root: str, path: str) -> tuple[NavItem, ...]:
    """The links of the top bar that `role` may follow.

    `root` is where the program is mounted ('' or '/briefly', Flask's `request.script_root`), `path` the page's path
    below it.
    """
    here = _page_of(path)
    return tuple(
        NavItem(label, root + url, icon, current=url == here)
        for label, url, icon, permission in _PAGES
        if permission in GRANTS[role]
    )


def _page_of(path: str) -> str:
    """The link that stands for `path`: the longest that it begins with; a run belongs to the overview."""
    clean = path.rstrip("/") or "/"
    below = [url for _, url, _, _ in _PAGES if clean == url or (url != "/" and clean.startswith(url + "/"))]
    if below:
        return max(below, key=len)
    return "/" if clean.startswith("/runs") else ""
