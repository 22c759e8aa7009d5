"""Briefly Admin: checks, backs up, migrates, verifies and rolls back PostgreSQL data."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from flask import Flask

    from briefly_admin.services import Services
    from briefly_admin.settings import Settings

__version__ = "0.1.0"
_CHECKOUT: Final = Path(__file__).resolve().parent.parent
_LARGEST_BODY: Final = 1024 * 1024


def create_app(settings: "Settings | None" = None, services: "Services | None" = None) -> "Flask":
    """The program over HTTP: pages and JSON endpoints. Raises SettingError.

    Without arguments it reads the environment. `services` are found in `app.extensions["briefly"]`.
    """
    # Inside, so that a worker, which imports this package too, loads neither Flask nor the pages.
    from flask import Flask

    from briefly_admin import api, web, wiring
    from briefly_admin.jobs.queue import RqQueue
    from briefly_admin.services import logs
    from briefly_admin.settings import from_environ

    settings = settings or from_environ()
    logs.configure(settings.log_level)
    app = Flask(__name__, template_folder=str(_CHECKOUT / "templates"), static_folder=None)
    app.extensions["briefly"] = services or wiring.build(settings, queue=RqQueue(settings.redis_url))
    app.config.update(
        SECRET_KEY=settings.secret_key, MAX_CONTENT_LENGTH=_LARGEST_BODY, PROVIDE_AUTOMATIC_OPTIONS=False,
        VALIDATION_WAIT_SECONDS=20.0,
    )  # fmt: skip
    # The endpoints' rate limit comes before the credentials: strangers cost no look into the database.
    api.install(app, redis_url=settings.redis_url)
    web.install(
        app, base_url=settings.base_url, trusted_proxies=settings.trusted_proxies, static=_CHECKOUT / "static",
        api_answer=api.answer_error,
    )  # fmt: skip
    return app
