"""What every sub-command needs: the settings, the services, and who acts."""

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from briefly_admin import settings, wiring
from briefly_admin.domain.permissions import Actor, Role
from briefly_admin.services import Services, logs
from briefly_admin.settings import Settings


@dataclass(frozen=True, slots=True)
class Session:
    """One invocation of the command: its settings, services and actor."""

    settings: Settings
    services: Services
    actor: Actor


@contextmanager
def session() -> Iterator[Session]:
    """Read the settings, build the services, act as the machine's administrator. Raises SettingError."""
    loaded = settings.from_environ()
    logs.configure("warning")
    services = wiring.build(loaded)
    try:
        yield Session(loaded, services, Actor(name=f"cli:{_user()}", role=Role.ADMIN, via="cli"))
    finally:
        services.close()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
