"""The processes: `up` and, one each, `web`, `worker`, `clock`; `release` before a new version serves."""

import os
import sys
from typing import Final

import click

from briefly_admin import settings, wiring
from briefly_admin.cli.up import CHECKOUT, up
from briefly_admin.jobs.clock import run_clock
from briefly_admin.jobs.worker import work
from briefly_admin.services import logs

_PARTS: Final = 6


@click.command()
def web() -> None:
    """Serve the pages and endpoints (gunicorn)."""
    settings.from_environ()
    # Named, so that the working directory does not matter; `exec`, so that signals reach it.
    place = ["--config", str(CHECKOUT / "gunicorn.conf.py"), "--pythonpath", str(CHECKOUT)]
    gunicorn = [sys.executable, "-m", "gunicorn", *place, "wsgi:app"]
    os.execv(sys.executable, gunicorn)  # noqa: S606 - our own interpreter, fixed arguments


@click.command()
@click.option("--burst", is_flag=True, help="Stop when the queue is empty.")
def worker(*, burst: bool) -> None:
    """Lead queued runs."""
    loaded = settings.from_environ()
    logs.configure(loaded.log_level)
    work(loaded.redis_url, burst=burst, log_level=loaded.log_level)


@click.command()
def clock() -> None:
    """Heal what crashes left; let backups expire."""
    loaded = settings.from_environ()
    logs.configure(loaded.log_level)
    services = wiring.build(loaded)
    try:
        run_clock(services, loaded.redis_url, every=loaded.lease_seconds / _PARTS)
    finally:
        services.close()


@click.command()
def release() -> None:
    """Bring the app database up to date, and make the first admin; the Procfile's release process."""
    from briefly_admin.store import migrate

    loaded = settings.from_environ()
    migrate.upgrade(loaded.database_url)
    if loaded.admin_email and loaded.admin_password:
        services = wiring.build(loaded)
        try:
            services.admins.ensure_first(loaded.admin_email, loaded.admin_password)
        finally:
            services.close()
    click.echo("The app database is up to date.")


COMMANDS: Final = (up, web, worker, clock, release)
