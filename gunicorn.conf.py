"""How gunicorn serves wsgi:app; it reads this file by itself."""

import sys

from briefly_admin.domain.errors import SettingError
from briefly_admin.settings import from_environ

try:
    _settings = from_environ()
except SettingError as error:
    sys.stderr.write(f"{error}\n")
    raise SystemExit(error.exit_code) from None

bind = _settings.bind
workers = _settings.web_concurrency
worker_class = "gthread"
threads = 8
timeout = 60
graceful_timeout = 8  # a platform kills ten seconds after SIGTERM
keepalive = 5
limit_request_line = 8190
limit_request_fields = 100
control_socket_disable = True  # it would stand in the person's own home directory
loglevel = "warning"
