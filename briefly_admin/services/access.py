"""What a route demands, written on its view; a view that says nothing is closed to everybody.

The services check each deed again: this is the outer door, and what the test that walks `url_map × role` reads.
"""

from collections.abc import Callable
from enum import Enum
from typing import Any, Final, TypeVar

from briefly_admin.domain.permissions import Permission

View = TypeVar("View", bound=Callable[..., Any])


class Public(Enum):
    """The one mark beside permissions."""

    PUBLIC = "public"


PUBLIC: Final = Public.PUBLIC
Access = Permission | Public
_MARK: Final = "briefly_access"
_POLL: Final = "briefly_poll"


def requires(permission: Permission) -> Callable[[View], View]:
    """The view is for whoever has the permission. On a class of views it goes on each method."""

    def mark(view: View) -> View:
        setattr(view, _MARK, permission)
        return view

    return mark


def public(view: View) -> View:
    """The view is for everybody, signed in or not."""
    setattr(view, _MARK, PUBLIC)
    return view


def polled(view: View) -> View:
    """The page asks for it by itself: it does not keep a session alive."""
    setattr(view, _POLL, True)
    return view


def access_of(view: Callable[..., Any], method: str) -> Access | None:
    """What the view demands for an HTTP method; None where it does not say, which closes it."""
    found = getattr(_handler(view, method), _MARK, None)
    return found if isinstance(found, (Permission, Public)) else None


def is_polled(view: Callable[..., Any], method: str) -> bool:
    """Whether the view is marked as asked for by the page itself."""
    return bool(getattr(_handler(view, method), _POLL, False))


def _handler(view: Callable[..., Any], method: str) -> Callable[..., Any] | None:
    """The function that answers: a class of views has one a method, and HEAD is answered by GET's."""
    of_class = getattr(view, "view_class", None)
    if of_class is None:
        return view
    verb = method.lower()
    return getattr(of_class, verb, None) or (getattr(of_class, "get", None) if verb == "head" else None)
