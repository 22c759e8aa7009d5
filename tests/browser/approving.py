"""The running program's servers behind a second web process, which lets nothing begin that nobody else approved."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from werkzeug.serving import make_server

from briefly_admin import create_app
from briefly_admin.domain.permissions import Actor, Role
from briefly_admin.settings import load
from tests.browser.conftest import Program
from tests.serving import services_of

SECOND = "bea@example.com"


@contextmanager
def strict(program: Program) -> Iterator[Program]:
    """The program as it is with REQUIRE_APPROVAL=1; a second admin is there, of the same password."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    app = create_app(load({**program.addresses, "BRIEFLY_HOME": str(program.home), "REQUIRE_APPROVAL": "1",
                           "LOG_LEVEL": "warning"}))  # fmt: skip
    services_of(app).admins.create(Actor("setup", Role.ADMIN, "cli"), SECOND, "admin", program.password)
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield replace(program, url=f"http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        services_of(app).close()
        root.handlers, root.level = handlers, level
